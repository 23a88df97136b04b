"""Drafts: what ``self`` is within a shared class's method.

An instance of the plain class, whose ``__dict__`` is the view's value: within, everything is as
in any class, and as fast. It gives itself out as an instance of the facade.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .._share import Share


class Draft:
    """What a draft is on top of the plain class."""

    __slots__ = ()

    if TYPE_CHECKING:
        _mmapshare_handle: Any
        _mmapshare_facade: weakref.ref[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # ``type(self)(...)`` in a method means another instance of the shared class.
        return cls._mmapshare_facade()(*args, **kwargs)  # type: ignore[misc]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """The plain class shall not notice that it was derived from."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._mmapshare_handle)

    def __reduce_ex__(self, protocol: Any = 4) -> Any:
        # A method that keeps its own instance, or hands it on, means the shared one.
        return self._mmapshare_handle.__reduce_ex__(protocol)

    __reduce__ = __reduce_ex__


class Ended:
    """What a draft becomes when its method is over: whoever kept it has the instance itself."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name in {"_mmapshare_handle", "__class__", "__reduce__", "__reduce_ex__"}:
            return object.__getattribute__(self, name)
        return getattr(object.__getattribute__(self, "_mmapshare_handle"), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(object.__getattribute__(self, "_mmapshare_handle"), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(object.__getattribute__(self, "_mmapshare_handle"), name)


class OnlyLooks:
    """What a draft is while something only looks at it: a change would be lost."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"{type(self).__name__}.{name}: a property, __repr__, __eq__ and the like only look, "
            "at a copy that is dropped; change things in a method"
        )


class _Unset:
    """Stands for a slot, so that drafts keep it in their ``__dict__``."""

    def __init__(self, cls: str, name: str) -> None:
        self._message = f"{cls!r} object has no attribute {name!r}"

    def __get__(self, instance: object, owner: Any = None) -> Any:
        if instance is None:
            return self
        raise AttributeError(self._message)


# --- Making them ---------------------------------------------------------------------------


def share_of(handle: Any) -> Share[dict[str, Any]]:
    """The share that holds the attributes of ``handle``."""
    share: Share[dict[str, Any]] = object.__getattribute__(handle, "_mmapshare")
    return share


def _member_of_facade(name: str) -> Callable[[Any], Any]:
    return lambda draft: getattr(draft.__class__, name)


def draft_of(handle: Any, attributes: dict[str, Any]) -> Any:
    """An instance of the plain class with these attributes."""
    return _make(kept_of(type(handle)).draft, handle, attributes)


def copy_of(handle: Any) -> Any:
    """A draft to look at what was committed last; it refuses to be changed."""
    return _make(kept_of(type(handle)).looking, handle, share_of(handle).get())


def _make(cls: type, handle: Any, attributes: dict[str, Any]) -> Any:
    draft: Any = object.__new__(cls)
    object.__setattr__(draft, "_mmapshare_handle", handle)
    object.__setattr__(draft, "__dict__", attributes)
    return draft


def end(draft: Any) -> None:
    _set_class(draft, kept_of(type(draft._mmapshare_handle)).ended)


_set_class: Final = vars(object)["__class__"].__set__
"""Assigns ``__class__`` past the property of that name."""


class Kept:
    """A facade's draft classes, made when they are first needed. Pickled, it is empty."""

    __slots__ = ("draft", "ended", "looking")

    draft: type
    ended: type
    looking: type

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, ()


def kept_of(facade: type) -> Kept:
    kept: Kept = facade._mmapshare_kept  # type: ignore[attr-defined]
    if not hasattr(kept, "looking"):
        _make_draft_classes(facade, kept)
    return kept


def _make_draft_classes(facade: type, kept: Kept) -> None:
    cls: type = facade.__wrapped__  # type: ignore[attr-defined]
    slots = ["_mmapshare_handle"] if cls.__dictoffset__ else ["_mmapshare_handle", "__dict__"]
    namespace: dict[str, Any] = {
        name: _Unset(cls.__name__, name)
        for base in cls.__mro__
        for name, member in vars(base).items()
        if inspect.ismemberdescriptor(member)
    }
    for name in dir(cls):
        if name not in vars(object) and isinstance(inspect.getattr_static(cls, name), classmethod):
            namespace[name] = property(_member_of_facade(name))
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    namespace |= {**names, "__slots__": slots, "_mmapshare_facade": weakref.ref(facade)}
    make = type(cls)
    kept.draft = make(cls.__name__, (Draft, cls), namespace)
    kept.ended = make(cls.__name__, (Ended, kept.draft), {**names, "__slots__": ()})
    kept.looking = make(cls.__name__, (OnlyLooks, kept.draft), {**names, "__slots__": ()})
