"""Work without the lock, on a private draft, committed only if what it was made from still stands.

Of a `Share` that is its version. Of a `SharedDict` it is the keys that were looked at: a draft is
made as in a block, but over `SeenPlaces`, which remember where the value of each key was that the
function asked for. At each new key they look whether those before still stand, so that what a
function sees belongs together at any time; at the commit, under the lock, they look once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .._codec.frames import decode
from .._lock.lock import current_owner
from ..errors import UnloadableError, VersionConflict, at_key
from .mapping import NONE, MappingView, Touched, touched_at

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
        view._owner, view._inner, view._busy = current_owner(), None, False
        try:
            view._open_without_lock(share)
            try:
                result = work(view)
                changes = view._changes()
            finally:
                view._owner = None
        except Conflict:
            continue
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


class SeenPlaces:
    """Stands for a state and its ``places``, and remembers what was asked."""

    __slots__ = ("_keys", "_run", "_seen", "_store", "_version")

    def __init__(self, store: Any) -> None:
        self._store = store
        self._seen: dict[Any, Any] = {}
        self._keys: list[Any] | None = None
        self._version = self._run = -1
        self.look_again()

    @property
    def places(self) -> SeenPlaces:
        return self

    @property
    def version(self) -> int:
        """That at which it was last looked."""
        return self._version

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

    @property
    def definitions(self) -> Any:
        return self._store.state.definitions

    def still_stand(self, state: Any) -> bool:
        """Whether all that was asked has the same answer there.

        In another run a place may be the same and the value another.
        """
        if state.run != self._run and (self._seen or self._keys is not None):
            return False
        if self._keys is not None and self._keys != list(state.places):
            return False
        return all(state.places.get(key) == place for key, place in self._seen.items())

    def _all(self) -> list[Any]:
        if self._keys is None:
            self._keys = self._look(lambda state: list(state.places))
        return self._keys

    def look_again(self) -> None:
        """Conflict where what was asked has another answer by now."""
        self._look(lambda state: None)

    def _look(self, look: Callable[[Any], R]) -> R:
        """What ``look`` finds, as long as all that was asked before has the same answer.

        Under the store's mutex, since other threads change the state meanwhile.
        """

        def both(state: Any) -> R:
            if state.version != self._version:
                if not self.still_stand(state):
                    raise Conflict
                self._version, self._run = state.version, state.run
            return look(state)

        found: R = self._store.read(both)
        return found


class SeenTouched(Touched):
    """Values that were touched without the lock: what is read may be overtaken by a writer."""

    __slots__ = ()

    def __missing__(self, key: Any) -> Any:
        place = self.state.places.get(key)
        if place is None or key in self.gone:
            raise KeyError(key)
        frames, definitions = self._read(place)
        try:
            value = decode(frames, definitions)
        except UnloadableError as err:
            raise at_key(err, key) from err.__cause__
        self.read = self.read or {}
        self.read[key] = frames
        super().__setitem__(key, value)
        return value

    def stored(self, key: Any, place: Any) -> Any:
        """The frames of a value that was read, anew."""
        # What was only set has no need of a second look.
        return self._read(place)[0] if key in self.read else ()

    def _read(self, place: Any) -> tuple[Any, Any]:
        state = self.store.state
        frames = self.store.frames(place)
        if not self.store.stands(state):
            raise Conflict
        self.state.look_again()
        return frames, state.definitions

    def __setitem__(self, key: Any, value: Any) -> None:
        self.state.places.get(key)  # From now on another's change of it is a conflict.
        super().__setitem__(key, value)


class SeenView(MappingView):
    """A view with nothing looked at yet, and what will remember."""

    __slots__ = ()

    def _open_without_lock(self, share: Any) -> None:
        self._share = share
        self._failed, self._named = None, NONE
        self._value = touched_at(share._store, SeenPlaces(share._store), SeenTouched)
        self._base = (self._value.state.version,)

    def _committed(self) -> Any:
        # What was looked at stays looked at.
        return touched_at(self._share._store, self._value.state, SeenTouched)

    def _expects(self) -> Any:
        return self._value.state.still_stand
