"""What a wrapper tells of what it wraps: annotations and signatures, evaluated when asked for.

Since Python 3.14 annotations are evaluated late, so that they may name what is defined below.
What stands in for a function or a class must not ask for them any earlier, and what it says must
be what the plain one says at that moment.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from .._late import importing

_taken = functools.WRAPPER_ASSIGNMENTS


if sys.version_info >= (3, 14):  # only with Python 3.14
    _taken = tuple(name for name in _taken if name not in {"__annotations__", "__annotate__"})

    class _OfWrapped:
        """An attribute that is the wrapped function's own: read, set and deleted there."""

        def __init__(self, name: str, of_class: object) -> None:
            self._name, self._of_class = name, of_class

        def __get__(self, wrapper: Any, owner: Any = None) -> Any:
            return self._of_class if wrapper is None else getattr(wrapper.__wrapped__, self._name)

        def __set__(self, wrapper: Any, value: object) -> None:
            setattr(wrapper.__wrapped__, self._name, value)

        def __delete__(self, wrapper: Any) -> None:
            delattr(wrapper.__wrapped__, self._name)


class Described:
    """What looks like the function that it wraps.

    A class derived from it must not annotate anything in its body: Python keeps those annotations
    where the function's are looked for.
    """

    if sys.version_info >= (3, 14):  # only with Python 3.14
        __annotations__ = _OfWrapped("__annotations__", {})
        __annotate__ = _OfWrapped("__annotate__", None)

    def __init__(self, func: Callable[..., Any]) -> None:
        wrapper: Any = self
        functools.update_wrapper(wrapper, func, _taken)


def take_annotations(facade: type, cls: type) -> None:
    """Let ``facade`` have the annotations of the class ``cls``, evaluated or not as they are."""
    annotate = getattr(cls, "__annotate__", None)
    if annotate is not None:  # only with Python 3.14
        facade.__annotate__ = annotate  # type: ignore[attr-defined]
    elif "__annotations__" in vars(cls):
        facade.__annotations__ = cls.__annotations__


def signature_of(func: Callable[..., Any], **options: Any) -> inspect.Signature:
    """Its signature; what its annotations name need not be defined yet."""
    try:
        return inspect.signature(func, **options)
    except NameError:  # only with Python 3.14
        if sys.version_info >= (3, 14):
            with importing:
                from annotationlib import Format

            return inspect.signature(func, annotation_format=Format.FORWARDREF, **options)
        raise


class SignatureOfClass:
    """The signature of the class that a facade wraps, as a class attribute of the facade."""

    def __get__(self, instance: object, owner: Any = None) -> inspect.Signature:
        try:
            return signature_of(owner.__wrapped__)
        except ValueError as err:  # Python cannot tell.
            raise AttributeError(str(err)) from None
