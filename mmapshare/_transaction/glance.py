"""What `SharedDict.wait` shows to its predicate: a snapshot that copies only what is asked for."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn, TypeVar

from .._codec.frames import decode
from .._codec.known import Definitions
from ..errors import UnloadableError, ViewClosedError, at_key
from .optimistic import Conflict

T = TypeVar("T")

_VALUES: Final = 64
"""Who asks for more values than that gets a copy of everything."""
_TRIES: Final = 3
"""So often a commit may come in between, before the predicate gets a copy of everything."""


class Glance(Mapping[Any, Any]):
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

    def __reduce__(self) -> NoReturn:
        raise TypeError("a snapshot is this process's own; pass dict(snapshot) on")

    def __repr__(self) -> str:
        return f"<DictSnapshot of version {self.version}: {len(self)} keys>"

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
