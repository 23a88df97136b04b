"""Content: a digest of all that an object is, the same in every process that has it alike.

It says what cloudpickle would store, private names, closures and the globals that functions look
at included, but in an order of its own: neither addresses nor the seed of hashes show. What a
module that others import too defines is its name. What cannot be pickled is its type.
"""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Callable, Iterable, Iterator
from types import (
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, Final

import cloudpickle

from .._late import importing
from .descent import MAINS

DIGEST_BYTES: Final = 16
_MOST: Final = 20_000
"""Objects that are looked at; content of more is told by no digest, since that takes too long."""

PLAIN: Final = frozenset({int, float, complex, str, bytes, bool, type(None), type(...)})
_NO_CONTENT: Final = frozenset(
    {
        "__annotations_cache__",
        "__dict__",
        "__firstlineno__",
        "__module__",
        "__slotnames__",
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    }
)
"""What Python adds to a class, by and by or in any order; ``__main__`` has two names."""


def content_of(obj: object, shallow: bool = False) -> bytes:
    """The digest; empty where there is none, which is then like no other.

    ``shallow``: without the globals that functions look at, and without what classes are beyond
    their names.
    """
    try:
        return _Walk(shallow).look(obj)
    except (TooMuchError, RecursionError):
        return b""


def digest(raw: bytes) -> bytes:
    with importing:
        from hashlib import blake2b

    return blake2b(raw, digest_size=DIGEST_BYTES).digest()


def importable(obj: Any) -> bool:
    """Whether module and name lead to this class or function in other processes too."""
    module = obj.__module__
    return goes_by_name(module) and look_up(module, obj.__qualname__)[1] is obj


def goes_by_name(module: str | None) -> bool:
    """Whether what a module defines is imported by other processes."""
    return module not in MAINS and not _is_taken_by_value(module)


def look_up(module: str | None, qualname: str) -> tuple[Any, Any]:
    """The module of that name here, and what it has by the other one; None for what is not."""
    home: Any = sys.modules.get(MAINS[0] if module in MAINS else str(module))
    found = home
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return home, found


def _is_taken_by_value(module: str | None) -> bool:
    """Whether the user told cloudpickle so, of the module or of a package that it is in."""
    taken = cloudpickle.list_registry_pickle_by_value()
    while taken and module:
        if module in taken:
            return True
        module = module.rpartition(".")[0]
    return False


def functions_of(value: Any) -> list[FunctionType]:
    """The functions that a class attribute is, or wraps."""
    parts = [value]
    if isinstance(value, property):
        parts = [value.fget, value.fset, value.fdel]
    elif type(value).__module__ == "functools":  # cached_property, partial, lru_cache and such.
        parts = [getattr(value, name, None) for name in ("func", "__wrapped__")]
    elif isinstance(value, staticmethod | classmethod):
        parts = [value.__func__]
    return [part for part in parts if isinstance(part, FunctionType)]


class TooMuchError(Exception):
    """It would take too long to look at all of it."""


class _Walk:
    def __init__(self, shallow: bool) -> None:
        self._shallow = shallow
        self._left = _MOST
        self._path: dict[int, int] = {}
        """What is being looked at, by address: how deep it is. It may hold itself."""

    def look(self, obj: object) -> bytes:
        kind = type(obj)
        if kind in PLAIN:
            return _packed((kind.__name__.encode(), repr(obj).encode("utf-8", "surrogatepass")))
        depth = self._path.get(id(obj))
        if depth is not None:
            return b"within %d" % depth
        self._left -= 1
        if not self._left:
            raise TooMuchError
        self._path[id(obj)] = len(self._path)
        try:
            return digest(_packed(self._parts(obj, kind)))
        finally:
            del self._path[id(obj)]

    def _parts(self, obj: Any, kind: type) -> Iterator[bytes]:
        yield kind.__qualname__.encode()
        look = _WAYS.get(kind)
        for base in kind.__mro__ if look is None else ():
            look = look or _FAMILIES.get(base)
        yield from (look or _Walk._object)(self, obj)

    def _in_order(self, obj: Iterable[Any]) -> Iterator[bytes]:
        yield from map(self.look, obj)

    def _in_any_order(self, obj: Iterable[Any]) -> Iterator[bytes]:
        yield from sorted(map(self.look, obj))

    def _items(self, obj: Any) -> Iterator[bytes]:
        yield from sorted(self.look(key) + self.look(value) for key, value in dict(obj).items())

    def _name(self, obj: Any) -> Iterator[bytes]:
        yield getattr(obj, "__qualname__", obj.__name__).encode()

    def _property(self, obj: property) -> Iterator[bytes]:
        yield from map(self.look, (obj.fget, obj.fset, obj.fdel))

    def _method(self, obj: staticmethod[Any, Any] | classmethod[Any, Any, Any]) -> Iterator[bytes]:
        yield self.look(obj.__func__)

    def _class(self, cls: type) -> Iterator[bytes]:
        yield _full_name(cls)
        if self._shallow or importable(cls):
            return
        yield self.look(type(cls))
        yield from map(self.look, cls.__bases__)
        for name, value in sorted(vars(cls).items()):
            if name not in _NO_CONTENT and not _is_made(cls, name, value):
                yield name.encode()
                yield self.look(value)

    def _function(self, function: FunctionType) -> Iterator[bytes]:
        yield _full_name(function)
        if importable(function):
            return
        yield self.look(function.__code__)
        for own in (function.__defaults__, function.__kwdefaults__, function.__dict__):
            yield self.look(own)
        for name, cell in zip(function.__code__.co_freevars, cells_of(function), strict=True):
            # A class's own dict, which its annotations look into from Python 3.14 on.
            if name != "__classdict__":
                yield self.look(cell)
        if not self._shallow:
            names = _names(function.__code__)
            yield from self._items(
                (name, value)
                for name, value in function.__globals__.copy().items()
                if name in names
            )

    def _code(self, code: CodeType) -> Iterator[bytes]:
        yield self.look(code_facts(code))
        yield from map(self.look, code.co_consts)

    def _object(self, obj: Any) -> Iterator[bytes]:
        kind = type(obj)
        yield self.look(kind)
        functions = functions_of(obj)
        if functions:  # A wrapper of functools.
            yield from map(self.look, functions)
            yield self.look((getattr(obj, "args", ()), getattr(obj, "keywords", {})))
            return
        if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
            return  # A share is a place, and pickling one is noted.
        reducer: Callable[[Any], Any] | None = copyreg.dispatch_table.get(kind)
        try:
            found = reducer(obj) if reducer else obj.__reduce_ex__(4)
        except Exception:  # Nothing of it can be stored.
            return
        if type(found) is not tuple:
            yield f"{getattr(obj, '__module__', None)}:{found}".encode()
            return
        yield from map(self.look, found[:3])
        for each in found[3:5]:
            yield self.look(list(each or ()))


_WAYS: Final[dict[type, Callable[[_Walk, Any], Iterator[bytes]]]] = {
    tuple: _Walk._in_order,
    list: _Walk._in_order,
    type({}.values()): _Walk._in_order,
    set: _Walk._in_any_order,
    frozenset: _Walk._in_any_order,
    type({}.keys()): _Walk._in_any_order,
    dict: _Walk._items,
    type({}.items()): _Walk._items,
    MappingProxyType: _Walk._items,
    FunctionType: _Walk._function,
    CodeType: _Walk._code,
    GetSetDescriptorType: _Walk._name,
    MemberDescriptorType: _Walk._name,
    MethodDescriptorType: _Walk._name,
    WrapperDescriptorType: _Walk._name,
}
"""How to look at what is of exactly such a type."""
_FAMILIES: Final[dict[type, Callable[[_Walk, Any], Iterator[bytes]]]] = {
    type: _Walk._class,
    ModuleType: _Walk._name,
    property: _Walk._property,
    staticmethod: _Walk._method,
    classmethod: _Walk._method,
}
"""The same for those of any type that derives from these."""


def cells_of(function: FunctionType) -> list[Any]:
    """What a function closes over; None where there is nothing yet."""
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:
            cells.append(None)
    return cells


def code_facts(code: CodeType) -> tuple[Any, ...]:
    """What a code object says, but for its constants."""
    return (
        code.co_name,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
        code.co_code,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
    )


def _names(code: CodeType) -> set[str]:
    """Names that a function's code, or code within it, may look up as globals."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found


def _is_made(cls: type, name: str, value: Any) -> bool:
    """Whether Python has written a class's annotations, of which there are none, or its docs.

    A dataclass's say what the defaults look like, in this process.
    """
    if name == "__doc__":
        return "__dataclass_params__" in vars(cls) and str(value).startswith(f"{cls.__name__}(")
    return name in {"__annotations__", "__annotate_func__"} and not value


def _full_name(obj: Any) -> bytes:
    home = MAINS[0] if obj.__module__ in MAINS else obj.__module__
    return f"{home}:{obj.__qualname__}".encode()


def _packed(parts: Iterable[bytes]) -> bytes:
    return b"".join([len(part).to_bytes(4, "little") + part for part in parts])
