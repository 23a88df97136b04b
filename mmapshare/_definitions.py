"""Definitions: classes and code that travel by value are pickled once and named afterwards.

cloudpickle writes a class of ``__main__`` in full with every instance: half a millisecond each
time. Here such a class is pickled once, into a `Definition`; values say only its key, and the
definition's ready bytes ride along with each commit that needs them. So do code objects, whose
functions keep cloudpickle's meaning: closures and globals are copied each time one is stored.

What a class's definition is, is its name, its bases, its methods and the names of its public
attributes (see `_shape`). Whoever meets a key looks, in this order, for the class

1. that it has met under that key before,
2. at the same address, if it descends from the same process by fork: it is the very object,
3. of the same name in ``__main__``: a spawned child imports its own,
4. rebuilds it from the stored definition, once in a process.

A class attribute that is data travels when the class is first stored; later changes to it are
each process's own, as they are after a fork. A changed method makes a new definition.

Of the ideas, two are loky's and cloudpickle's: reduce by value what ``__main__`` defines, and
rebuild a class as a skeleton first, its contents second, so that definitions may be circular.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType
from typing import Any, Final

import attrs
import cloudpickle

from ._shape import DIGEST_BYTES, digest, shape_of
from .errors import CorruptRegionError, UnpicklableError

_FAMILY: Final = os.urandom(16)
"""What processes that descend from one another by fork have in common."""
_MAINS: Final = ("__main__", "__mp_main__")
"""The program's own module, and its name in a child that multiprocessing spawned."""
_KEPT: Final = 1024
"""How many definitions a process remembers, the oldest go first."""
_SIZE_BYTES: Final = 8

_modules = sys.modules


@attrs.define(eq=False, repr=False)
class Definition:
    """One definition as it is stored, and those that it needs in turn."""

    key: bytes
    body: bytes = b""
    needs: tuple[Definition, ...] = ()


@attrs.define(eq=False, repr=False)
class _Known:
    """A class or code object of this process, with its definition.

    ``contents`` are a class's attributes as they were when its shape was last looked at.
    """

    object: Any
    definition: Definition
    contents: tuple[Any, ...] = ()


_known_by_key: dict[bytes, _Known] = {}
_known_by_id: dict[int, _Known] = {}
_bundles: dict[tuple[bytes, ...], bytes] = {}


class _Workshop:
    """What is being made: definitions whose bodies are not whole, classes without their contents.

    They may name one another, so they become known together, when the outermost is whole; until
    then only the thread that makes them sees them.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.busy = False
        self.half_made: list[_Known] = []
        self.bodies: dict[bytes, bytes] = {}
        """Bodies by key, of definitions that are being learned: loading one may need another."""

    def make(self, work: Callable[..., Any], *args: Any) -> Any:
        """Do a piece of work, which may call for others, as the only thread."""
        with self.lock:
            # No call stands between this and the try: no signal can come in between.
            outermost, self.busy = not self.busy, True
            try:
                made = work(self, *args)
                if outermost:
                    for known in self.half_made:
                        _remember(known)
                return made
            finally:
                if outermost:
                    self.busy, self.half_made, self.bodies = False, [], {}

    def by_object(self, obj: object) -> _Known | None:
        return next((known for known in self.half_made if known.object is obj), None)

    def by_key(self, key: bytes) -> _Known | None:
        return next((known for known in self.half_made if known.definition.key == key), None)


_workshop = _Workshop()

offered: dict[bytes, bytes] = {}
"""Bodies by key that a log has brought, from where any of its values may need them."""


def _after_fork_in_child() -> None:
    """Another thread of the parent may have been at work: it is not here to finish."""
    global _workshop  # noqa: PLW0603
    _workshop = _Workshop()


if hasattr(os, "register_at_fork"):  # only with fork
    os.register_at_fork(after_in_child=_after_fork_in_child)


# --- Storing -------------------------------------------------------------------------------


_TextFile: Final = io.TextIOWrapper


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, writing definitions by their key. Used by one thread at a time.

    After a dump ``needs`` holds the definitions that the stream names.
    """

    def __init__(self, file: Any, buffer_callback: Callable[[Any], Any] | None = None) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self.needs: dict[bytes, Definition] = {}

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is FunctionType:
            if _importable(obj):
                return NotImplemented
            _register_spawned_main(obj)
            return super().reducer_override(obj)
        if kind is CodeType:
            return self._name(_code_definition(obj))
        if kind is type or issubclass(kind, type):
            return self._reduce_class(obj)
        if kind is _TextFile and obj is not sys.stdout and obj is not sys.stderr:
            # cloudpickle would make a StringIO of it, with what it says now.
            raise pickle.PicklingError("an open file; store its path, or what it says")
        return NotImplemented

    def _reduce_class(self, cls: type) -> Any:
        known = _known_by_id.get(id(cls))
        if known is not None and (_same(known.contents, cls) or _same_shape(known)):
            return self._name(known.definition)
        if _importable(cls):
            return NotImplemented
        _register_spawned_main(cls)
        return _workshop.make(self._reduce_new_class, cls)

    def _reduce_new_class(self, workshop: _Workshop, cls: type) -> Any:
        known = workshop.by_object(cls)
        if known is not None:
            return self._name(known.definition)
        reduced = super().reducer_override(cls)
        if type(reduced) is not tuple or len(reduced) != 6:
            return reduced  # By reference, or one of the built-in singletons' types.
        return self._name(_class_definition(workshop, cls, reduced))

    def forget(self) -> None:
        """Make ready for another value."""
        self.clear_memo()
        self.globals_ref.clear()
        self.needs.clear()

    def _name(self, definition: Definition) -> Any:
        self.needs[definition.key] = definition
        return resolve, (definition.key,)


def bundle(needs: Iterable[Definition]) -> bytes:
    """The definitions, and all that they need in turn, to stand behind a stream's end."""
    todo = list(needs)
    names = tuple([definition.key for definition in todo])
    ready = _bundles.get(names)
    if ready is None:
        found: dict[bytes, bytes] = {}
        while todo:
            definition = todo.pop()
            if definition.key not in found:
                found[definition.key] = definition.body
                todo.extend(definition.needs)
        raw = pickle.dumps(found, 5)
        ready = raw + len(raw).to_bytes(_SIZE_BYTES, "little")
        _put(_bundles, names, ready)
    return ready


def _importable(obj: Any) -> bool:
    """Whether plain pickle's way, by module and name, finds this class or function elsewhere."""
    name = obj.__module__
    if name in _MAINS or cloudpickle.list_registry_pickle_by_value():
        return False
    return getattr(_modules.get(name), obj.__qualname__, None) is obj


def _register_spawned_main(obj: Any) -> None:
    # A spawned child knows the program as __mp_main__, which nobody else can import.
    if obj.__module__ == "__mp_main__":
        module = _modules.get("__mp_main__")
        if module is not None and module.__name__ == "__mp_main__":
            cloudpickle.register_pickle_by_value(module)


def _same(contents: tuple[object, ...], cls: type) -> bool:
    try:
        return contents == tuple(vars(cls).values())
    except Exception:  # An attribute's own __eq__ failed: look closely.
        return False


def _same_shape(known: _Known) -> bool:
    if shape_of(known.object) != known.definition.key[DIGEST_BYTES:]:
        return False
    known.contents = tuple(vars(known.object).values())
    return True


def _code_definition(code: CodeType) -> Definition:
    known = _known_by_id.get(id(code))
    if known is None:
        body = cloudpickle.dumps(code, protocol=5)
        known = _Known(code, Definition(digest(body), body))
        _remember(known)
    return known.definition


def _class_definition(workshop: _Workshop, cls: type, reduced: tuple[Any, ...]) -> Definition:
    shape = shape_of(cls)
    identity = (_FAMILY, id(cls), cls.__module__, cls.__qualname__, shape)
    definition = Definition(digest(repr(identity).encode()) + shape)
    # Named before it is whole: its own methods may do so.
    workshop.half_made.append(_Known(cls, definition, tuple(vars(cls).values())))
    make, args, state, _, _, set_state = reduced
    header, header_needs = _dump((*identity, cls.__bases__[0]))
    try:
        skeleton, skeleton_needs = _dump((make, args))
        rest, rest_needs = _dump((set_state, state))
    except Exception as err:
        # Its family needs no body, nor does who imports it; who else meets it is told why.
        skeleton, rest = b"", f"{type(err).__name__}: {err}".encode()
        skeleton_needs = rest_needs = ()
    definition.body = pickle.dumps((header, skeleton, rest), 5)
    definition.needs = (*header_needs, *skeleton_needs, *rest_needs)
    return definition


def _dump(obj: object) -> tuple[bytes, tuple[Definition, ...]]:
    file = io.BytesIO()
    pickler = Pickler(file)
    pickler.dump(obj)
    return file.getvalue(), tuple(pickler.needs.values())


def _remember(known: _Known) -> None:
    _put(_known_by_id, id(known.object), known)
    _put(_known_by_key, known.definition.key, known)


def _put(kept: dict[Any, Any], key: Any, value: Any) -> None:
    kept[key] = value
    while len(kept) > _KEPT:
        # Another thread may drop the same one.
        kept.pop(next(iter(kept)), None)


# --- Loading -------------------------------------------------------------------------------


class UnknownDefinitionError(Exception):
    """A stream names a definition that this process has not met; `learn` it and load again."""


def resolve(key: bytes) -> Any:
    """The class or code of this process that a key names; called by streams as they load."""
    known = _known_by_key.get(key)
    if known is not None:
        return known.object
    return _workshop.make(_resolve_new, key)


def _resolve_new(workshop: _Workshop, key: bytes) -> Any:
    known = workshop.by_key(key)
    if known is not None:
        return known.object
    body = workshop.bodies.get(key) or offered.get(key)
    if body is None:
        raise UnknownDefinitionError(key.hex())
    if len(key) == DIGEST_BYTES:
        known = _Known(pickle.loads(body), Definition(key, body))
        workshop.half_made.append(known)
        return known.object
    return _resolve_class(workshop, key, body)


def without_bundle(frame: Any) -> Any:
    """A frame without the definitions behind its stream, or as it is where it has none."""
    size = _bundle_bytes(frame)
    return frame[: -_SIZE_BYTES - size] if size else frame


def bundle_of(frame: Any) -> bytes:
    """The definitions behind a stream as they stand there; empty where it has none."""
    size = _bundle_bytes(frame)
    return bytes(frame[-_SIZE_BYTES - size :]) if size else b""


def offer(bundle: bytes) -> None:
    """Have definitions at hand for streams that name them, without learning them yet."""
    offered.update(pickle.loads(bundle[:-_SIZE_BYTES]))


def _bundle_bytes(frame: Any) -> int:
    """Size of the pickled definitions behind a stream; 0 where there can be none."""
    size = int.from_bytes(frame[-_SIZE_BYTES:], "little")
    fits = 0 < size <= len(frame) - _SIZE_BYTES and frame[-_SIZE_BYTES - 1] == pickle.STOP[0]
    return size if fits else 0


def learn(frame: Any) -> None:
    """Make known the definitions that stand behind a stream, ahead of the frame's end."""
    size = _bundle_bytes(frame)
    if not size:
        raise CorruptRegionError("a definition that the value names is missing from its commit")
    bodies: dict[bytes, bytes] = pickle.loads(frame[-_SIZE_BYTES - size : -_SIZE_BYTES])
    _workshop.make(_learn_all, bodies)


def _learn_all(workshop: _Workshop, bodies: dict[bytes, bytes]) -> None:
    workshop.bodies.update(bodies)
    for key in bodies:
        resolve(key)


def _resolve_class(workshop: _Workshop, key: bytes, body: bytes) -> Any:
    header, skeleton, rest = parts = pickle.loads(body)
    family, address, module, qualname, shape, base = pickle.loads(header)
    bodies = offered | workshop.bodies
    needs = {k: v for k, v in bodies.items() if any(k in part for part in parts)}
    definition = Definition(key, body, tuple(Definition(k, v) for k, v in needs.items()))
    cls: Any = _relative(family, address, qualname, shape, base)
    if cls is None:
        cls = _namesake(module, qualname, shape)
    if cls is not None:
        workshop.half_made.append(_Known(cls, definition, tuple(vars(cls).values())))
        return cls
    if not skeleton:
        raise UnpicklableError(
            f"class {module}.{qualname} cannot be rebuilt in this process, since its definition "
            f"could not be pickled ({bytes(rest).decode()}); define it in a module that all "
            "processes import",
            path=qualname,
        )
    make, args = pickle.loads(skeleton)
    cls = make(*args)
    known = _Known(cls, definition)
    workshop.half_made.append(known)  # Before its contents, which may name it.
    set_state, state = pickle.loads(rest)
    set_state(cls, state)
    known.contents = tuple(vars(cls).values())
    return cls


def _relative(family: bytes, address: int, qualname: str, shape: bytes, base: type) -> type | None:
    """The class at this address, where this process has it from a common ancestor."""
    if family != _FAMILY:
        return None
    candidates: list[type] = type.__subclasses__(base)
    for cls in candidates:
        if id(cls) == address and cls.__qualname__ == qualname and shape_of(cls) == shape:
            return cls
    return None


def _namesake(module: str, qualname: str, shape: bytes) -> type | None:
    """The class of this name in the program's own module, if it is the same."""
    found: Any = _modules.get("__main__" if module in _MAINS else module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, type) and shape_of(found) == shape else None
