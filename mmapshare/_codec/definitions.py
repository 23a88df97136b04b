"""Definitions: classes and code that travel by value are pickled once and named afterwards.

cloudpickle writes a class of ``__main__`` in full with every instance: half a millisecond each
time. Here such a class is pickled once, into a `Definition`; values say only its key, and the
definition's ready bytes are stored beside those that need them. So do code objects, whose
functions keep cloudpickle's meaning: closures and globals are copied each time one is stored.

A class's key says which object it is (see `_codec.descent`) and what it could do when it was
stored: its bases, its methods and the names of its public attributes (see `_codec.fingerprint`).
Whoever meets a key takes the class

1. that it has met under that key before, if it is still there,
2. that it has by descent, if that can still do the same,
3. of the same name in the module of the same name, if that module has been read anew, as a
   spawned child does, and what was read is the same: all of it, or the lines of the source,
4. that it rebuilds from the stored definition.

A class attribute that is data travels when the class is first stored; later changes to it are
each process's own, as they are after a fork. A changed method makes a new definition.

Of the ideas, two are loky's and cloudpickle's: reduce by value what ``__main__`` defines, and
rebuild a class as a skeleton first, its contents second, so that definitions may be circular.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from types import CodeType
from typing import Any, Final

import attrs

from ..errors import CorruptRegionError, UnpicklableError
from . import descent as _descent
from . import known as _known
from .content import content_of, look_up
from .fingerprint import shape_of, source_of
from .known import Definition, Definitions, Stored, Workshop, by_key, known_as, warm

_READY_MOST: Final = 256
_READY_BYTES: Final = 64 << 10
_SIZE_BYTES: Final = 8
_KEY_BYTES: Final = 16
_STOP: Final = pickle.STOP[0]
"""The last byte of a stream that has nothing behind it. Definitions end with their size, and keys
with their number, whose last byte is far below that."""


# --- Handing them on -----------------------------------------------------------------------


@attrs.define(eq=False, repr=False)
class Needed:
    """What a stream needs: the definitions that it names, and those that these need in turn."""

    keys: bytes
    """Keys that the stream names, to stand behind its end; their number is in the last bytes."""
    stored: dict[bytes, Stored]
    _bundle: bytes = b""

    def bundle(self) -> bytes:
        """All of them, to stand behind a stream's end."""
        if not self._bundle:
            raw = pickle.dumps(self.stored, 5)
            self._bundle = raw + len(raw).to_bytes(_SIZE_BYTES, "little")
        return self._bundle


_ready: dict[tuple[bytes, ...], Needed] = {}


def needed(named: Mapping[bytes, Definition]) -> Needed:
    """What a stream needs that names these."""
    names = tuple(named)
    ready = _ready.get(names)
    if ready is None:
        stored: dict[bytes, Stored] = {}
        todo, size = list(named.values()), 0
        while todo:
            definition = todo.pop()
            if definition.key not in stored:
                stored[definition.key] = (
                    definition.body,
                    tuple([need.key for need in definition.needs]),
                )
                size += len(definition.body)
                todo += definition.needs
        ready = Needed(b"".join(names) + len(names).to_bytes(_SIZE_BYTES, "little"), stored)
        if size < _READY_BYTES:
            if len(_ready) >= _READY_MOST:
                _ready.clear()
            _ready[names] = ready
    return ready


def needs_of(memory: Any, end: int) -> list[bytes]:
    """The keys of the definitions that a value names, which was encoded with them apart.

    ``end``: where in ``memory`` its first frame ends.
    """
    if memory[end - 1] == _STOP:
        return []
    end -= _SIZE_BYTES
    number = int.from_bytes(memory[end : end + _SIZE_BYTES], "little")
    return [
        bytes(memory[at : at + _KEY_BYTES])
        for at in range(end - number * _KEY_BYTES, end, _KEY_BYTES)
    ]


def closure(keys: Iterable[bytes], source: Definitions) -> dict[bytes, Stored]:
    """Those of the definitions that these keys need, directly or not."""
    found: dict[bytes, Stored] = {}
    todo = list(keys)
    while todo:
        key = todo.pop()
        if key not in found and key in source:
            found[key] = source[key]
            todo += source[key][1]
    return found


# --- Loading -------------------------------------------------------------------------------


def resolve(key: bytes) -> Any:
    """The class or code of this process that a key names; called by streams as they load."""
    known = by_key.get(key)
    if known is not None:
        obj = known.kept
        if obj is not None:
            return obj
    return _known.workshop.make(_resolve_new, key)


def _resolve_new(shop: Workshop, key: bytes) -> Any:
    known = shop.by_key.get(key)
    if known is not None:
        return known()
    known = by_key.get(key)
    obj = None if known is None else known()
    if known is not None and obj is not None:
        warm(known, obj)
        return obj
    definition = shop.definition(key)
    found = pickle.loads(definition.body)
    if isinstance(found, CodeType):
        shop.add(known_as(found, definition), found)
        return found
    return _resolve_class(shop, definition, found)


def learn(frame: Any, apart: Definitions | None) -> list[Any]:
    """Make known the definitions that a stream needs, ahead of the frame's end.

    They stand behind it; or only their keys do, and they themselves are ``apart``. They stay known
    for as long as what is returned, which are the classes and code.
    """
    if apart is None:
        size = _bytes_behind(frame, False)
        apart = pickle.loads(frame[-_SIZE_BYTES - size : -_SIZE_BYTES]) if size else {}
        keys = list(apart)
    else:
        keys = needs_of(frame, len(frame))
    if not keys or not all(key in apart for key in keys):
        raise CorruptRegionError("a definition that the value names is missing from its commit")
    found: list[Any] = _known.workshop.make(_learn_all, keys, apart)
    return found


def _learn_all(shop: Workshop, keys: list[bytes], stored: Definitions) -> list[Any]:
    shop.sources.append(stored)
    try:
        return [_resolve_new(shop, key) for key in keys]
    finally:
        shop.sources.pop()


def stream_of(frame: Any, apart: bool) -> Any:
    """A frame without what stands behind its stream, or as it is where nothing does.

    ``apart``: that is only the keys of definitions, not the definitions themselves.
    """
    size = _bytes_behind(frame, apart)
    return frame[: -_SIZE_BYTES - size] if size else frame


def _bytes_behind(frame: Any, apart: bool) -> int:
    """Size of the definitions behind a stream, or of their keys; 0 where there can be none."""
    size = int.from_bytes(frame[-_SIZE_BYTES:], "little") * (_KEY_BYTES if apart else 1)
    end = len(frame) - _SIZE_BYTES - size
    return size if end > 0 and frame[end - 1] == _STOP else 0


@attrs.frozen
class Header:
    """What a class's definition says of it before it is loaded.

    Attributes:
        address, mark: which object it is; see `_codec.descent`.
        home: the same of the module that defines it, where there is one.
        content, source: what it is like, if it stands in that module under its name.
    """

    address: int
    mark: bytes
    module: str
    qualname: str
    shape: bytes
    home: tuple[int, bytes] | None
    content: bytes
    source: Any


def header_of(cls: type, shape: bytes) -> Header:
    """Of a class of this process."""
    module, qualname = cls.__module__, cls.__qualname__
    home, found = look_up(module, qualname)
    marked = None if home is None else (id(home), _descent.mark_of(home))
    content, source = b"", None
    if found is cls:
        source = source_of(cls)
        content = content_of(cls)
    return Header(id(cls), _descent.mark_of(cls), module, qualname, shape, marked, content, source)


def _resolve_class(shop: Workshop, definition: Definition, parts: tuple[bytes, ...]) -> Any:
    raw, skeleton, rest = parts
    header = Header(*pickle.loads(raw))
    cls = _relative(header)
    if cls is None:
        cls = _namesake(header)
    if cls is not None:
        shop.add(known_as(cls, definition, header.shape), cls)
        return cls
    if not skeleton:
        raise UnpicklableError(
            f"class {header.module}.{header.qualname} cannot be rebuilt in this process, since "
            f"its definition could not be pickled ({rest.decode()}); define it in a module that "
            "all processes import",
            path=header.qualname,
        )
    make, args = pickle.loads(skeleton)
    cls = make(*args)
    known = known_as(cls, definition, header.shape)
    shop.add(known, cls)  # Before its contents, which may name it.
    set_state, state = pickle.loads(rest)
    set_state(cls, state)
    known.shape = shape_of(cls)  # That of what was rebuilt may be another.
    return cls


def _relative(header: Header) -> type | None:
    """The very class, where this process has it by descent and has not changed its methods."""
    cls = _descent.descendant(header.address, header.mark)
    return cls if isinstance(cls, type) and shape_of(cls) == header.shape else None


def _namesake(header: Header) -> type | None:
    """The class of this name in a module that was read anew here, if it is proven to be the same.

    Where the module is here by descent, so is the class; or it has been made since, as another.
    """
    home, found = look_up(header.module, header.qualname)
    if not isinstance(found, type) or shape_of(found) != header.shape:
        return None
    if header.home is not None and _descent.descendant(*header.home) is home:
        return None
    source = source_of(found)
    if source is not None and source == header.source:
        return found
    return found if header.content and content_of(found) == header.content else None
