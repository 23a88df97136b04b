"""A `SharedDict` at one version: a snapshot, which is a copy of all of it, and a glance.

A glance is what `wait` shows to its predicate: it copies only what is asked for.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from typing import Any, Final, NoReturn, TypeVar, cast

from .._codec import Definitions, decode
from ..errors import UnloadableError, ViewClosedError, at_key
from .optimistic import Conflict

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

_VALUES: Final = 64
"""Who asks for more values than that gets a copy of everything."""
_TRIES: Final = 3
"""So often a commit may come in between, before the predicate gets a copy of everything."""


# Iterators that meet a value which does not load here raise, and go on with the next one.


class _Values(ValuesView[V]):
    _mapping: Any

    def __iter__(self) -> Iterator[V]:
        return map(self._mapping.__getitem__, self._mapping)

    def __reversed__(self) -> Iterator[V]:
        return map(self._mapping.__getitem__, reversed(self._mapping))


class _Items(ItemsView[K, V]):
    _mapping: Any

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return map(self._item, self._mapping)

    def __reversed__(self) -> Iterator[tuple[K, V]]:
        return map(self._item, reversed(self._mapping))

    def _item(self, key: K) -> tuple[K, V]:
        return key, self._mapping[key]


class _OneVersion(Mapping[K, V]):
    """A dict at one version, as a process sees it: nobody changes it, nor takes it along."""

    __slots__ = ()

    version: int

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def items(self) -> ItemsView[K, V]:
        return _Items(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a snapshot is this process's own; pass dict(snapshot) on")

    def __repr__(self) -> str:
        return f"<DictSnapshot of version {self.version}: {len(self)} keys>"


class DictSnapshot(_OneVersion[K, V]):
    """A `SharedDict` as it was at one version: read-only, private to this process.

    Values are loaded anew each time that they are read, so that changing one changes nothing
    here. Safe to be used by any thread. It keeps no memory of the region's, unless it was asked for
    with ``copy=False``.
    """

    __slots__ = ("_image", "_places", "version")

    def __init__(self, image: Any) -> None:
        self.version: int = image.version
        self._image = image
        self._places = image.places

    def __getitem__(self, key: K) -> V:
        stored = self._image.frames(self._places[key])
        try:
            return cast(V, decode(stored, self._image.definitions))
        except UnloadableError as err:
            raise at_key(err, key) from err.__cause__

    def __iter__(self) -> Iterator[K]:
        keys: Iterator[K] = iter(self._places)
        return keys

    def __reversed__(self) -> Iterator[K]:
        keys: Iterator[K] = reversed(self._places)
        return keys

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places


class Glance(_OneVersion[Any, Any]):
    """A dict at one version, read from where it lies; Conflict once that is another.

    What outlives the predicate is a copy.
    """

    __slots__ = (
        "__weakref__",
        "_store",
        "_take",
        "_values",
        "_whole",
        "ended",
        "failed",
        "version",
    )

    def __init__(self, store: Any, take: Callable[[], Any]) -> None:
        self._store = store
        self._take = take
        self._values = 0
        self._whole: Any = None
        self.ended = False
        self.failed = False
        self.version: int = store.read(lambda state: state.version)

    def __getitem__(self, key: Any) -> Any:
        self._values += 1
        if self._whole is None and self._values <= _VALUES:
            frames, definitions = self._look(lambda state: self._frames(state, key))
            if frames is None:
                raise KeyError(key)
            try:
                return decode(frames, definitions)
            except UnloadableError as err:
                raise at_key(err, key) from err.__cause__
        return self.whole()[key]

    def _frames(self, state: Any, key: Any) -> tuple[Any, Definitions]:
        place = state.places.get(key)
        frames = None if place is None else self._store.frames(place)
        return frames, state.definitions

    def __contains__(self, key: object) -> bool:
        if self._whole is not None:
            return key in self._whole
        return self._look(lambda state: key in state.places)

    def __len__(self) -> int:
        if self._whole is not None:
            return len(self._whole)
        return self._look(lambda state: len(state.places))

    def __iter__(self) -> Iterator[Any]:
        return self._keys(False)

    def __reversed__(self) -> Iterator[Any]:
        return self._keys(True)

    def _keys(self, backward: bool) -> Iterator[Any]:
        if self._whole is not None:
            return reversed(self._whole) if backward else iter(self._whole)
        return self._look(lambda state: state.places.iterate(backward, self._store.mutex))

    def _look(self, look: Callable[[Any], T]) -> T:
        version: int
        found: T
        version, found = self._store.read(lambda state: (state.version, look(state)))
        if version != self.version:
            self._fail()
        return found

    def whole(self) -> Any:
        """A copy of everything, from which it is read from now on."""
        if self._whole is None:
            whole = self._take()
            if whole.version != self.version:
                self._fail()
            self._whole = whole
        return self._whole

    def _fail(self) -> NoReturn:
        if self.ended:
            raise ViewClosedError(
                "this snapshot was for the predicate alone, and the dict is another by now; take "
                "d.snapshot() to keep one"
            )
        self.failed = True
        raise Conflict


def holds(predicate: Callable[[Any], object], store: Any, take: Callable[[], Any]) -> bool:
    """Whether a predicate holds for one version of a dict; ``take`` makes a snapshot of it."""
    for _ in range(_TRIES):
        glance = Glance(store, take)
        try:
            found = bool(predicate(glance))
        except Conflict:
            if not glance.failed:
                raise
        finally:
            glance.ended = True
        if glance.failed:  # Though perhaps the predicate caught what told it so.
            continue
        kept = weakref.ref(glance)
        del glance
        if _is_whole(kept()):
            return found
    return bool(predicate(take()))


def _is_whole(kept: Glance | None) -> bool:
    """Copy what the predicate has kept for later; whether that was still to be had."""
    try:
        return kept is None or kept.whole() is not None
    except ViewClosedError:
        return False
