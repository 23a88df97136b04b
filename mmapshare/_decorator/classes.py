"""Classes whose instances' attributes live in a region, one for each instance.

`facade_of` derives two classes from the one that is decorated. Instances of the *facade*, which
takes its name, are handles: they have a share and no attributes. Each public method opens a
transaction, makes a *draft* whose ``__dict__`` is the view's value, and calls the plain method
on it: within, everything is as in any class, and as fast. A draft gives itself out as an
instance of the facade.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable
from enum import EnumType
from functools import partialmethod, singledispatchmethod
from types import FunctionType, MappingProxyType, MethodType
from typing import TYPE_CHECKING, Any, Final, NoReturn

import cloudpickle

from .._arguments import size_bytes, timeout_s
from .._share import Share
from .described import Described, SignatureOfClass, take_annotations

_LOOKING: Final = frozenset(
    f"__{name}__"
    for name in [
        "repr",
        "str",
        "format",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "hash",
        "len",
        "bool",
        "contains",
        "bytes",
        "int",
        "float",
        "complex",
        "index",
        "sizeof",
        "dir",
        "fspath",
    ]
)
"""Special methods that only look: they work on a copy of what was committed last."""
_BIRTH: Final = frozenset(
    f"__{name}__"
    for name in [
        "new",
        "init",
        "post_init",
        "attrs_init",
        "attrs_pre_init",
        "attrs_post_init",
        "init_subclass",
        "class_getitem",
        "subclasshook",
        "getattribute",
        "getattr",
        "setattr",
        "delattr",
        "reduce",
        "reduce_ex",
        "getstate",
        "setstate",
        "set_name",
        "get",
        "set",
        "delete",
        "prepare",
    ]
)
"""Special methods that make an instance, pickle it or look attributes up: no transactions."""
_HEAP_TYPE: Final = 1 << 9


class Kept:
    """A facade's draft classes, made when they are first needed. Pickled, it is empty."""

    __slots__ = ("draft", "ended", "looking")

    draft: type
    ended: type
    looking: type

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, ()


def facade_of(cls: type, options: dict[str, Any]) -> type:
    """The class to take the place of ``cls``; TypeError where it cannot be shared."""
    for name in ("initial", "share"):
        if name in options:
            raise TypeError(
                f"{name}= is for functions: each instance of a class has a region of its own, "
                "and __init__ makes what is in it"
            )
    _refuse_unfit(cls)
    size_bytes(options.get("max_size", 1))
    timeout_s(options.get("timeout"))
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
            namespace[name] = _method(name, member)
        elif isinstance(member, property):
            namespace[name] = _property(member)
        elif _is_public(name) and isinstance(member, partialmethod | singledispatchmethod):
            namespace[name] = Method(_bound_later(member))
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
        return name in _LOOKING or (name not in _BIRTH and name not in vars(object))
    return not name.startswith("_")


def _method(name: str, func: FunctionType) -> Method:
    if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
        raise TypeError(
            f"{func.__qualname__} is a generator: suspended between two items it would keep the "
            "lock. Return a list, or an iterator over one"
        )
    if inspect.iscoroutinefunction(func):
        return AsyncMethod(func)
    if name == "__repr__":
        return Showing(func)
    return Looking(func) if name in _LOOKING else Method(func)


def _reduce_partialmethod(method: Any) -> tuple[Any, ...]:
    """As `functools.partial` does it: what Python 3.14 has of its own fails to load."""
    return _make_partialmethod, (method.func, method.args, method.keywords)


def _make_partialmethod(func: Any, args: Any, keywords: Any) -> Any:
    return partialmethod(func, *args, **keywords)


cloudpickle.Pickler.dispatch_table.setdefault(partialmethod, _reduce_partialmethod)


def _bound_later(member: Any) -> Callable[..., Any]:
    return lambda draft, *args, **kwargs: member.__get__(draft, type(draft))(*args, **kwargs)


def _property(member: property) -> property:
    def change(act: Callable[..., Any] | None) -> Callable[..., Any] | None:
        return Method(act) if isinstance(act, FunctionType) else None

    getter = Looking(member.fget) if isinstance(member.fget, FunctionType) else member.fget
    return property(getter, change(member.fset), change(member.fdel), member.__doc__)


# --- Methods as the facade has them ----------------------------------------------------------


class Method(Described):
    """A method that is one transaction on its instance's attributes."""

    def __init__(self, func: Callable[..., Any]) -> None:
        super().__init__(func)
        self._func: Callable[..., Any] = func

    def __call__(self, handle: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(handle, Draft):  # Called by the class's name, within a method.
            return self._func(handle, *args, **kwargs)
        with share_of(handle).locked() as view:
            draft = _draft(handle, view.value)
            try:
                result = self._func(draft, *args, **kwargs)
                view.value = draft.__dict__
            finally:
                _end(draft)
            return handle if result is draft else result

    def __get__(self, handle: object, owner: Any = None) -> Any:
        return self if handle is None else MethodType(self, handle)

    def __set_name__(self, owner: type, name: str) -> None:
        self._address = (owner, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, self._address


def _reduce_for_cloudpickle(method: Method) -> tuple[Any, ...]:
    """By value, for a class that is pickled by value would look for itself in itself."""
    owner, _ = method._address
    module = owner.__module__
    elsewhere = module != "__main__" and module not in cloudpickle.list_registry_pickle_by_value()
    if elsewhere and getattr(sys.modules.get(module), owner.__qualname__, None) is owner:
        return method.__reduce__()
    return object.__new__, (type(method),), vars(method)


class Looking(Method):
    """A method that only looks, at what was committed last."""

    def __call__(self, handle: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(handle, Draft):
            return self._func(handle, *args, **kwargs)
        return self._func(_copy(handle), *args, **kwargs)


class Showing(Looking):
    """``__repr__``, which is also asked where nothing can be read any more."""

    def __call__(self, handle: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(handle, Draft):
            share = share_of(handle)
            if share.closed or not share._is_reached():
                return f"<{type(handle).__qualname__} on {share!r}>"
        return super().__call__(handle, *args, **kwargs)


class KnownAsAsync:
    """What calls an ``async def`` is known as one by `inspect` (Python 3.12 on) and `asyncio`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if sys.version_info >= (3, 12):  # only with Python 3.12
            inspect.markcoroutinefunction(self)  # type: ignore[type-var]

    if sys.version_info < (3, 12):  # only without Python 3.12

        @property
        def _is_coroutine(self) -> object:
            return getattr(sys.modules.get("asyncio.coroutines"), "_is_coroutine", None)


class AsyncMethod(KnownAsAsync, Method):
    """An ``async def`` method: the event loop runs on while it waits for the lock."""

    async def __call__(self, handle: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(handle, Draft):
            return await self._func(handle, *args, **kwargs)
        async with share_of(handle).locked() as view:
            draft = _draft(handle, view.value)
            try:
                result = await self._func(draft, *args, **kwargs)
                view.value = draft.__dict__
            finally:
                _end(draft)
            return handle if result is draft else result


for _cls in (Method, Looking, Showing, AsyncMethod):
    cloudpickle.Pickler.dispatch_table[_cls] = _reduce_for_cloudpickle


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
        draft = _draft(self, {})
        try:
            draft.__init__(*args, **kwargs)
            attributes = draft.__dict__
        finally:
            _end(draft)
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
        return getattr(_copy(self), name)

    def __setattr__(self, name: str, value: object) -> None:
        member = _class_member(type(self), name)
        if isinstance(member, property):
            object.__setattr__(self, name, value)
        else:
            self._refuse(name, "= ...")

    def __delattr__(self, name: str) -> None:
        member = _class_member(type(self), name)
        if isinstance(member, property):
            object.__delattr__(self, name)
        else:
            self._refuse(name, "is deleted")

    def _refuse(self, name: str, how: str) -> NoReturn:
        cls = type(self).__name__
        raise AttributeError(
            f"{cls}.{name} is shared: change it in a method of the class, which is one "
            f"transaction, or write  with instance.share.locked() as state: state[{name!r}] = ..."
        )

    def __copy__(self) -> Any:
        """A handle to the same region, as if it had been pickled."""
        return _attach(type(self), share_of(self))

    def __deepcopy__(self, memo: object) -> Any:
        return Facade.__copy__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (type(self), share_of(self))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Facade.__reduce__(self)


def share_of(handle: Any) -> Share[dict[str, Any]]:
    """The share that holds the attributes of ``handle``."""
    share: Share[dict[str, Any]] = object.__getattribute__(handle, "_mmapshare")
    return share


def _attach(cls: type, share: Share[dict[str, Any]]) -> Any:
    handle: Any = object.__new__(cls)
    object.__setattr__(handle, "_mmapshare", share)
    return handle


def _class_member(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return None


def _is_code(member: Any) -> bool:
    return isinstance(member, FunctionType | Method | property | classmethod | staticmethod) or (
        callable(member) and hasattr(member, "__get__")
    )


# --- Drafts ----------------------------------------------------------------------------------


class Draft:
    """What a draft is on top of the plain class."""

    __slots__ = ()

    if TYPE_CHECKING:
        _mmapshare_handle: Facade
        _mmapshare_facade: weakref.ref[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # ``type(self)(...)`` in a method means another instance of the shared class.
        return cls._mmapshare_facade()(*args, **kwargs)  # type: ignore[misc]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """The plain class shall not notice that it was derived from."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._mmapshare_handle)

    def __reduce__(self) -> tuple[Any, ...]:
        # A method that keeps its own instance, or hands it on, means the shared one.
        return Facade.__reduce__(self._mmapshare_handle)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Draft.__reduce__(self)


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


def _member_of_facade(name: str) -> Callable[[Any], Any]:
    return lambda draft: getattr(draft.__class__, name)


def _draft(handle: Any, attributes: dict[str, Any]) -> Any:
    """An instance of the plain class with these attributes."""
    return _make(_kept(type(handle)).draft, handle, attributes)


def _copy(handle: Any) -> Any:
    """A draft to look at what was committed last; it refuses to be changed."""
    return _make(_kept(type(handle)).looking, handle, share_of(handle).get())


def _make(cls: type, handle: Any, attributes: dict[str, Any]) -> Any:
    draft: Any = object.__new__(cls)
    object.__setattr__(draft, "_mmapshare_handle", handle)
    object.__setattr__(draft, "__dict__", attributes)
    return draft


def _end(draft: Any) -> None:
    _set_class(draft, _kept(type(draft._mmapshare_handle)).ended)


_set_class: Final = vars(object)["__class__"].__set__
"""Assigns ``__class__`` past the property of that name."""


def _kept(facade: type) -> Kept:
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
