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
from inspect import Parameter
from typing import Any, Final, Generic, TypeVar

import cloudpickle

from .._codec import goes_by_name, look_up
from .._late import importing

R = TypeVar("R")

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


class Described(Generic[R]):
    """What looks like the function that it wraps, and is pickled by cloudpickle as functions are.

    A class derived from it must not annotate anything in its body: Python keeps those annotations
    where the function's are looked for.
    """

    if sys.version_info >= (3, 14):  # only with Python 3.14
        __annotations__ = _OfWrapped("__annotations__", {})
        __annotate__ = _OfWrapped("__annotate__", None)

    def __init__(self, func: Callable[..., R]) -> None:
        wrapper: Any = self
        functools.update_wrapper(wrapper, func, _taken)
        self._func: Callable[..., R] = func

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cloudpickle.Pickler.dispatch_table[cls] = _reduce_for_cloudpickle


def found_at(module: str, name: str) -> Any:
    """What stands under a name, bound or not; None where there is nothing."""
    _, found = look_up(module, name)
    return getattr(found, "__func__", found)


def is_found(wrapper: Any) -> bool:
    """Whether its module and name lead to it, or to its like on another region."""
    found = found_at(wrapper.__module__, wrapper.__qualname__)
    return isinstance(found, Described) and found._func is wrapper._func


def _reduce_for_cloudpickle(wrapper: Any) -> Any:
    """By name where the other side can import it, else by value.

    A class that is pickled by value would look for itself in itself.
    """
    if goes_by_name(wrapper.__module__) and is_found(wrapper):
        return wrapper.__reduce__()
    return object.__new__, (type(wrapper),), wrapper.__getstate__()


class KnownAsAsync:
    """What calls an ``async def`` is known as one by `inspect` (Python 3.12 on) and `asyncio`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if sys.version_info >= (3, 12):  # only with Python 3.12
            inspect.markcoroutinefunction(self)  # type: ignore[type-var]

    if sys.version_info < (3, 12):  # only without Python 3.12

        @property
        def _is_coroutine(self) -> object:
            return getattr(sys.modules.get("asyncio.coroutines"), "_is_coroutine", None)


def take_annotations(facade: type, cls: type) -> None:
    """Let ``facade`` have the annotations of the class ``cls``, evaluated or not as they are."""
    annotate = getattr(cls, "__annotate__", None)
    if annotate is not None:  # only with Python 3.14
        facade.__annotate__ = annotate  # type: ignore[attr-defined]
    elif "__annotations__" in vars(cls):
        facade.__annotations__ = cls.__annotations__


def name_of(func: Any) -> str:
    """Its name, for messages too: of what has none, what it is."""
    return str(getattr(func, "__qualname__", func))


def refuse_generator(func: Callable[..., Any]) -> None:
    """TypeError for what has not done its work when it returns."""
    if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
        raise TypeError(
            f"{name_of(func)} is a generator: suspended between two items it would keep the lock. "
            "Return a list or an iterator over one, or give the state out by a plain function "
            "that a generator calls"
        )


# --- Signatures ------------------------------------------------------------------------------

_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


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


def without_state(func: Callable[..., Any], after_self: bool) -> inspect.Signature:
    """The signature as callers see it; TypeError where there is no room for the state."""
    own = signature_of(func, follow_wrapped=False)
    shown = signature_of(func)
    at = int(after_self)
    parameters = list(own.parameters.values())
    if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters[: at + 1]):
        # It passes on whatever it gets; what it wraps, if anything, says where the state goes.
        parameters = list(shown.parameters.values())
        if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters[: at + 1]):
            return shown
    elif own != shown:
        return shown  # A wrapper that takes the state itself: callers see what it wraps.
    if len(parameters) <= at or parameters[at].kind not in _POSITIONAL:
        first = "self, state" if after_self else "state"
        name = getattr(func, "__name__", name_of(func))
        raise TypeError(
            f"{name_of(func)} has no parameter for the state: write  def {name}({first}, ...)"
        )
    del parameters[at]
    return shown.replace(parameters=parameters)


def without_first(signature: inspect.Signature) -> inspect.Signature:
    """The same for who has a bound method."""
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].kind in _POSITIONAL:
        del parameters[0]
    return signature.replace(parameters=parameters)


class SignatureOfClass:
    """The signature of the class that a facade wraps, as a class attribute of the facade."""

    def __get__(self, instance: object, owner: Any = None) -> inspect.Signature:
        try:
            return signature_of(owner.__wrapped__)
        except ValueError as err:  # Python cannot tell.
            raise AttributeError(str(err)) from None
