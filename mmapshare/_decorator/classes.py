"""Classes whose instances' attributes live in a region, one for each instance.

`facade_of` derives two classes from the one that is decorated. Instances of the *facade*, which
takes its name, are handles: they have a share and no attributes. Each public method opens a
transaction, makes a *draft* (see `drafts`), and calls the plain method on it.
"""

from __future__ import annotations

import inspect
from enum import EnumType
from functools import partialmethod, singledispatchmethod
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from .._share import Share
from .described import SignatureOfClass, take_annotations
from .drafts import Kept, copy_of, draft_of, end, share_of
from .methods import LOOKING, Method, bound_later, method_of, property_of

_BIRTH: Final = frozenset({
    "__new__", "__init__", "__post_init__", "__attrs_init__", "__attrs_pre_init__",
    "__attrs_post_init__", "__init_subclass__", "__class_getitem__", "__subclasshook__",
    "__getattribute__", "__getattr__", "__setattr__", "__delattr__", "__reduce__", "__reduce_ex__",
    "__getstate__", "__setstate__", "__set_name__", "__get__", "__set__", "__delete__",
    "__prepare__",
})  # fmt: skip
"""Special methods that make an instance, pickle it or look attributes up: no transactions."""
_HEAP_TYPE: Final = 1 << 9


def facade_of(cls: type, options: dict[str, Any]) -> type:
    """The class to take the place of ``cls``; TypeError where it cannot be shared."""
    for name in ("initial", "share"):
        if name in options:
            raise TypeError(
                f"{name}= is for functions: each instance of a class has a region of its own, "
                "and __init__ makes what is in it"
            )
    _refuse_unfit(cls)
    namespace: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__signature__": SignatureOfClass(),
        "__wrapped__": cls,
        "_mmapshare_options": options,
        "_mmapshare_kept": Kept(),
        "__slots__": ("_mmapshare",) if cls.__weakrefoffset__ else ("_mmapshare", "__weakref__"),
    }
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        if _is_public(name) and isinstance(member, FunctionType):
            namespace[name] = method_of(name, member)
        elif isinstance(member, property):
            namespace[name] = property_of(member)
        elif _is_public(name) and isinstance(member, partialmethod | singledispatchmethod):
            namespace[name] = bound_later(member)
    facade = type(cls)(cls.__name__, (Facade, cls), namespace)
    take_annotations(facade, cls)
    return facade


def _refuse_unfit(cls: type) -> None:
    if issubclass(cls, Facade):
        raise TypeError(f"{cls.__qualname__} is shared already: decorate it once")
    for base in cls.__mro__[:-1]:
        if not base.__flags__ & _HEAP_TYPE:
            raise TypeError(
                f"{cls.__qualname__} derives from {base.__name__}, whose content is no attribute "
                f"and would not be shared: keep a {base.__name__} in an attribute"
            )
    if isinstance(cls, EnumType):
        raise TypeError(f"{cls.__qualname__} is an enumeration: its members are constants")
    if cls.__new__ is not object.__new__:
        raise TypeError(
            f"{cls.__qualname__} has a __new__, which could not make a shared instance: do what "
            "it does in __init__, or in a classmethod"
        )
    if hasattr(cls, "share"):
        raise TypeError(
            f"{cls.__qualname__}.share is where an instance's region will be: rename yours"
        )
    if hasattr(cls, "__del__"):
        raise TypeError(
            f"{cls.__qualname__} has a __del__, which would run for every copy of an instance, in "
            "every process: give it a method that is called explicitly"
        )


def _is_public(name: str) -> bool:
    if name.startswith("__") and name.endswith("__"):
        return name in LOOKING or (name not in _BIRTH and name not in vars(object))
    return not name.startswith("_")


# --- Handles ---------------------------------------------------------------------------------


class Facade:
    """What a shared class is on top of the plain one. Its instances are handles."""

    __slots__ = ()

    if TYPE_CHECKING:  # No annotation of ours among those of the class.
        _mmapshare: Share[dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls.__init__ is not Facade.__init__:
            raise TypeError(
                f"{cls.__name__}.__init__ was made after the class was shared: let @shared_state "
                "stand above the other decorators"
            )
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        share: Share[Any] = Share(**type(self)._mmapshare_options)  # type: ignore[attr-defined]
        # Before the attributes are stored: they may name this very instance.
        object.__setattr__(self, "_mmapshare", share)
        draft = draft_of(self, {})
        try:
            draft.__init__(*args, **kwargs)
            attributes = draft.__dict__
        finally:
            end(draft)
        if "share" in attributes:
            raise TypeError(
                f"{type(self).__qualname__}: the attribute 'share' is where an instance's region "
                "is found; rename yours"
            )
        share.set(attributes)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if Facade not in cls.__bases__:
            raise TypeError(
                f"class {cls.__name__} derives from a shared class, and its own methods would be "
                "no transactions: derive from the class before it is decorated, and decorate "
                "the derived one"
            )

    @property
    def share(self) -> Share[dict[str, Any]]:
        """The region of this instance: a dict of its attributes."""
        return share_of(self)

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            return MappingProxyType(share_of(self).get())
        if name == "share" or (name.startswith("__") and name.endswith("__")):
            return object.__getattribute__(self, name)
        if _is_code(_class_member(type(self), name)):
            return object.__getattribute__(self, name)
        return getattr(copy_of(self), name)

    def __setattr__(self, name: str, value: object) -> None:
        _refuse_unless_property(type(self), name)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        _refuse_unless_property(type(self), name)
        object.__delattr__(self, name)

    def __copy__(self, memo: object = None) -> Any:
        """A handle to the same region, as if it had been pickled."""
        return _attach(type(self), share_of(self))

    __deepcopy__ = __copy__

    def __reduce_ex__(self, protocol: Any = 4) -> Any:
        return _attach, (type(self), share_of(self))

    __reduce__ = __reduce_ex__


def _attach(cls: type, share: Share[dict[str, Any]]) -> Any:
    handle: Any = object.__new__(cls)
    object.__setattr__(handle, "_mmapshare", share)
    return handle


def _refuse_unless_property(cls: type, name: str) -> None:
    if not isinstance(_class_member(cls, name), property):
        raise AttributeError(
            f"{cls.__name__}.{name} is shared: change it in a method of the class, which is one "
            f"transaction, or write  with instance.share.locked() as state: state[{name!r}] = ..."
        )


def _class_member(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return None


def _is_code(member: Any) -> bool:
    return isinstance(member, FunctionType | Method | property | classmethod | staticmethod) or (
        callable(member) and hasattr(member, "__get__")
    )
