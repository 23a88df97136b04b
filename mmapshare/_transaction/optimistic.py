"""Work without the lock, on a private draft, committed only if what it was made from still stands.

Of a `Share` that is its version. Of a `SharedDict` it is the keys that were looked at: a draft is
made as in a block, but over a `ReadSet`, which remembers where the value of each key was that the
function asked for. At each new key it looks whether those before still stand, so that what a
function sees belongs together at any time; at the commit, under the lock, it looks once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ..errors import VersionConflict
from .mapping import NONE, MappingView, WriteSet, new_write_set

R = TypeVar("R")


class Conflict(BaseException):
    """A key that the function looked at has been changed meanwhile; it has to run again.

    No `Exception`, so that the function does not take it for one of its own.
    """


def optimistic(share: Any, view_class: type, work: Callable[[Any], R], retries: int) -> R:
    """What ``work`` makes of a view, committed as a block would; without the lock at first.

    It **may run more than once**: where what it has seen was changed meanwhile it runs again, and
    after ``retries`` times with the lock. Within the owner's own block it runs in that.
    """
    for _ in range(0 if share._store.lock.holds_own() else retries):
        view = view_class()
        try:
            view._open_without_lock(share)
            result = work(view)
            changes = view._changes()
        except Conflict:
            continue
        finally:
            view._owner = None
        if changes is None or _commit(share, view, changes):
            return result
    with share.locked() as block:
        return work(block)


def _commit(share: Any, view: Any, changes: Any) -> bool:
    """Commit what a view had changed, if what it has seen still stands."""
    try:
        version = share._store.put(changes, view._expects(), share._timeout, view._named)
    except VersionConflict:
        return False
    return version is not None  # Else the lock was left to this owner by an interrupt.


class ReadSet:
    """Stands for a store and its state, and remembers what was asked."""

    __slots__ = ("_epoch", "_keys", "_read", "_seen", "_store", "definitions", "version")

    def __init__(self, store: Any) -> None:
        self._store = store
        self._seen: dict[Any, Any] = {}
        self._keys: list[Any] | None = None
        self.version = self._epoch = -1
        """That at which it was last looked."""
        self.definitions: Any = NONE
        self._read = store.read
        self._look(lambda state: None)
        # From now on what is new is told at the commit at last.
        self._read = store.read_known

    # --- As a state, and its places ---------------------------------------------------------

    @property
    def places(self) -> ReadSet:
        return self

    def get(self, key: Any) -> Any:
        if key in self._seen:
            return self._seen[key]
        place = self._look(lambda state: state.places.get(key))
        self._seen[key] = place
        return place

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._all())

    def __reversed__(self) -> Iterator[Any]:
        return iter(self._all()[::-1])

    from_front = __iter__

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> list[Any]:
        if self._keys is None:
            self._keys = self._look(lambda state: list(state.places))
        return self._keys

    # --- As a store -------------------------------------------------------------------------

    def current(self) -> ReadSet:
        """What was looked at stays looked at."""
        return self

    def single(self, place: Any) -> None:
        """What there is is copied, and compared, under the mutex alone: see `frames`, `holds`."""

    def prefetch(self, places: Any) -> None:
        """What was not read needs a look for itself."""

    def frames(self, place: Any) -> Any:
        return self._look(lambda state: self._store.frames(place))

    def draft(self, key: Any, place: Any) -> Any:
        return self.frames(place)

    def holds(self, place: Any, frames: Any) -> bool:
        return self._look(lambda state: bool(self._store.holds(place, frames)))

    # --- What makes it stand ----------------------------------------------------------------

    def is_valid_at(self, state: Any) -> bool:
        """Whether all that was asked has the same answer there.

        In another epoch a place may be the same and the value another.
        """
        if state.epoch != self._epoch and (self._seen or self._keys is not None):
            return False
        if self._keys is not None and self._keys != list(state.places):
            return False
        return all(state.places.get(key) == place for key, place in self._seen.items())

    def _look(self, look: Callable[[Any], R]) -> R:
        """What ``look`` finds, as long as all that was asked before has the same answer.

        Else Conflict. In the store's `read`, since other threads change the state meanwhile.
        """

        def both(state: Any) -> R:
            if state.version != self.version:
                if not self.is_valid_at(state):
                    raise Conflict
                self.version, self._epoch = state.version, state.epoch
                self.definitions = state.definitions
            return look(state)

        found: R = self._read(both)
        return found


class OptimisticWriteSet(WriteSet):
    """A write set of one who has no lock."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        self.state.places.get(key)  # From now on another's change of it is a conflict.
        super().__setitem__(key, value)


class OptimisticView(MappingView):
    """A view of one who has no lock."""

    __slots__ = ()

    def _read(self, store: Any) -> Any:
        return ReadSet(store)

    def _open(self, share: Any, base: Any) -> None:
        super()._open(share, base)
        self._value = new_write_set(base, base, self._base, OptimisticWriteSet)

    def _expects(self) -> Any:
        return self._value.state.is_valid_at
