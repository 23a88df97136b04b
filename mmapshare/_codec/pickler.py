"""The pickler: cloudpickle's, but for what travels by value, which it writes by key.

See `_codec.definitions` for what a key is, and for how it is read.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
from collections.abc import Callable
from enum import Enum
from types import CodeType, FunctionType
from typing import Any, Final

import attrs
import cloudpickle

from . import known as _known
from .content import digest, importable
from .definitions import header_of, resolve
from .fingerprint import shape_of
from .known import (
    Definition,
    Known,
    Workshop,
    by_address,
    known_as,
    remember,
    unpicklable,
    warm,
)

_TextFile: Final = io.TextIOWrapper


_reducers: dict[type, Callable[[Any], Any]] = {}
"""What cloudpickle's own table and copyreg's say together, as a dict, which C looks up itself."""
_seen: dict[type, Any] = {}
preferred: dict[type, Callable[[Any], Any]] = {}
"""What goes before all that anybody registers: how torch's storages are pickled, once it is met."""


def prefer(reducers: dict[type, Callable[[Any], Any]]) -> None:  # only with torch
    """Have these go first."""
    preferred.update(reducers)
    _reducers.update(reducers)


def look_at_reducers() -> None:
    """Take notice of what was registered with copyreg since."""
    global _seen  # noqa: PLW0603
    if _seen != copyreg.dispatch_table:
        new = copyreg.dispatch_table.copy()
        # Whole, and in one step, before anybody takes it for looked at: others pickle meanwhile.
        _reducers.update({**new, **cloudpickle.Pickler.dispatch_table, **preferred})
        _seen = new


class Chunks(list[bytes]):
    """A file for picklers to write to."""

    write = list.append


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, writing definitions by their key. Used by one thread at a time.

    After a dump ``needs`` holds the definitions that the stream names.
    """

    dispatch_table = _reducers

    def __init__(self, file: Any, buffer_callback: Callable[[Any], Any] | None = None) -> None:
        look_at_reducers()
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self.needs: dict[bytes, Definition] = {}

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is FunctionType:
            if obj is resolve or importable(obj):
                return NotImplemented
            _register_spawned_main(obj)
            return super().reducer_override(obj)
        if issubclass(kind, type):
            return self._reduce_class(obj)
        if kind is CodeType:
            return self._name(_code_definition(obj))
        if kind is _TextFile and obj is not sys.stdout and obj is not sys.stderr:
            # cloudpickle would make a StringIO of it, with what it says now.
            raise pickle.PicklingError("an open file; store its path, or what it says")
        if type(kind) is not type and issubclass(kind, Enum):
            return _reduce_member(obj, kind)
        return NotImplemented

    def _reduce_class(self, cls: type) -> Any:
        known = by_address.get(id(cls))
        # Its address may be another's by now, who has not been stored.
        if known is not None and known() is cls and _is_as_it_was(known, cls):
            return self._name(known.definition)
        if importable(cls):
            return NotImplemented
        _register_spawned_main(cls)
        return _known.workshop.make(self._reduce_new_class, cls)

    def _reduce_new_class(self, shop: Workshop, cls: type) -> Any:
        known = shop.by_address.get(id(cls))
        if known is not None:
            return self._name(known.definition)
        reduced = super().reducer_override(cls)
        if type(reduced) is not tuple or len(reduced) != 6:
            return reduced  # By reference, or one of the built-in singletons' types.
        return self._name(_class_definition(shop, cls, reduced))

    def forget(self) -> None:
        """Make ready for another value."""
        self.clear_memo()
        self.globals_ref.clear()
        self.needs.clear()

    def _name(self, definition: Definition) -> Any:
        self.needs[definition.key] = definition
        if definition.named is None:
            definition.named = resolve, (definition.key,)
        return definition.named


def changed_meanwhile(err: BaseException | None) -> bool:
    """Whether another thread has changed a dict or a set while it was pickled."""
    return isinstance(err, RuntimeError) and "during iteration" in str(err)


def is_too_deep(err: BaseException) -> bool:
    """Whether something was nested too deeply to be pickled from where that began."""
    return isinstance(err, RecursionError) or isinstance(err.__cause__, RecursionError)


def _register_spawned_main(obj: Any) -> None:
    # A spawned child knows the program as __mp_main__, which nobody else can import.
    if obj.__module__ == "__mp_main__":
        module = sys.modules.get("__mp_main__")
        if module is not None and module.__name__ == "__mp_main__":
            cloudpickle.register_pickle_by_value(module)


def _reduce_member(member: Any, kind: Any) -> Any:
    """An enum's member by its name; its value may be equal to nothing but itself."""
    name = member._name_
    if kind.__reduce_ex__ is Enum.__reduce_ex__ and kind._member_map_.get(name) is member:
        return getattr, (kind, name)
    return NotImplemented


def _is_as_it_was(known: Known, cls: type) -> bool:
    """Whether a class can do what it could when its definition was made."""
    contents = tuple(cls.__dict__.values())
    try:
        if known.contents == contents:
            return True
    except Exception:  # An attribute's own __eq__ failed: look closely.
        pass
    if shape_of(cls) != known.shape:
        return False
    warm(known, cls)
    known.contents = contents
    if known.kept is None:  # Another thread has let it go meanwhile.
        known.contents = ()
    return True


def _code_definition(code: CodeType) -> Definition:
    known = by_address.get(id(code))
    if known is None or known() is not code:
        body = cloudpickle.dumps(code, protocol=5)
        known = known_as(code, Definition(digest(body), body))
        remember(known, code)
    return known.definition


def _class_definition(shop: Workshop, cls: type, reduced: tuple[Any, ...]) -> Definition:
    shape = shape_of(cls)
    header = header_of(cls, shape)
    definition = Definition(digest(repr((header.address, header.mark, shape)).encode()))
    # Named before it is whole: its own methods may do so.
    shop.add(known_as(cls, definition, shape), cls)
    make, args, state, _, _, set_state = reduced
    # Without cloudpickle's own id of the class: under it a process of the family would find its
    # own one, and overwrite its methods where they differ.
    args = (*args[:-2], None, args[-1])
    try:
        skeleton, skeleton_needs = _dump((make, args))
        rest, rest_needs = _dump((set_state, state))
    except Exception as err:
        if isinstance(err, MemoryError) or changed_meanwhile(err) or is_too_deep(err):
            raise  # That is not the class's own fault.
        # Its family needs no body, nor does who imports it; who else meets it is told why.
        skeleton, rest = b"", f"{type(err).__name__}: {err}".encode()
        skeleton_needs = rest_needs = ()
        unpicklable.append(cls)
    raw = pickle.dumps(attrs.astuple(header, recurse=False), 5)
    definition.body = pickle.dumps((raw, skeleton, rest), 5)
    definition.needs = tuple(dict.fromkeys((*skeleton_needs, *rest_needs)))
    return definition


def _dump(obj: object) -> tuple[bytes, tuple[Definition, ...]]:
    chunks = Chunks()
    pickler = Pickler(chunks)
    pickler.dump(obj)
    return b"".join(chunks), tuple(pickler.needs.values())
