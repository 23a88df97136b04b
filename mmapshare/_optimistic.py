"""Work on a `SharedDict` without the lock: the keys that were looked at must still be the same.

A draft is made as in a block, but over `SeenPlaces`, which remember where the value of each key
was that the function asked for. At each new key they look whether those before still stand, so
that what a function sees belongs together at any time; at the commit, under the lock, they look
once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ._codec import Gathered, decode
from ._directory import Extents
from ._draft import NONE, MappingView, Touched
from ._index import Index, State
from ._log import RUN
from ._owner import current_owner
from .errors import UnloadableError, at_key

T = TypeVar("T")


class Conflict(BaseException):
    """A key that the function looked at has been changed meanwhile; it has to run again.

    No `Exception`, so that the function does not take it for one of its own.
    """


class SeenPlaces:
    """Stands for a state's ``places``, and remembers what was asked."""

    __slots__ = ("_index", "_keys", "_run", "_seen", "_version")

    def __init__(self, index: Index) -> None:
        self._index = index
        self._seen: dict[Any, Extents | None] = {}
        self._keys: list[Any] | None = None
        self._version = self._run = -1
        self.look_again()

    @property
    def places(self) -> SeenPlaces:
        return self

    def get(self, key: Any) -> Extents | None:
        if key in self._seen:
            return self._seen[key]
        extents: Extents | None = self._look(lambda state: state.places.get(key))
        self._seen[key] = extents
        return extents

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
    def definitions(self) -> Gathered:
        return self._index.state.definitions

    def still_stand(self, state: State) -> bool:
        """Whether all that was asked has the same answer there.

        Behind another snapshot a place may be the same and the value another.
        """
        if state.position[RUN] != self._run and (self._seen or self._keys is not None):
            return False
        if self._keys is not None and self._keys != list(state.places):
            return False
        return all(state.places.get(key) == extents for key, extents in self._seen.items())

    def _all(self) -> list[Any]:
        if self._keys is None:
            self._keys = self._look(lambda state: list(state.places))
        return self._keys

    def look_again(self) -> None:
        """Conflict where what was asked has another answer by now."""
        self._look(lambda state: None)

    def _look(self, look: Callable[[State], T]) -> T:
        """What ``look`` finds, as long as all that was asked before has the same answer.

        Under the index's mutex, since other threads change the state meanwhile.
        """

        def both(state: State) -> T:
            if state.version != self._version:
                if not self.still_stand(state):
                    raise Conflict
                self._version, self._run = state.version, state.position[RUN]
            return look(state)

        return self._index.read(both)


class SeenTouched(Touched):
    """Values that were touched without the lock: what is read may be overtaken by a writer."""

    __slots__ = ()

    def __missing__(self, key: Any) -> Any:
        extents = self.state.places.get(key)
        if extents is None or key in self.gone:
            raise KeyError(key)
        state = self.index.state
        frames = self.index.frames(extents)
        if not self.index.log.stands(state.position):
            raise Conflict
        self.state.look_again()  # type: ignore[attr-defined]
        try:
            value = decode(frames, state.definitions)
        except UnloadableError as err:
            raise at_key(err, key) from err.__cause__
        self.read = self.read or {}
        self.read[key] = frames
        super().__setitem__(key, value)
        return value

    def stored(self, key: Any, extents: Extents) -> Any:
        """The frames of a value that was read, anew."""
        if key not in self.read:
            return ()  # What was only set has no need of a second look.
        state = self.index.state
        frames = self.index.frames(extents)
        if not self.index.log.stands(state.position):
            raise Conflict
        self.state.look_again()  # type: ignore[attr-defined]
        return frames

    def __setitem__(self, key: Any, value: Any) -> None:
        self.state.places.get(key)  # From now on another's change of it is a conflict.
        super().__setitem__(key, value)


class _Undone:
    """What `View.rollback` asks: nothing touched, but what was looked at stays looked at."""

    def __init__(self, index: Index, places: SeenPlaces) -> None:
        self._index = index
        self._places = places

    def _committed(self) -> SeenTouched:
        return _touched(self._index, self._places)


def seen(index: Index) -> tuple[MappingView, SeenPlaces]:
    """A view with nothing looked at yet, and what will remember."""
    places = SeenPlaces(index)
    view = MappingView()
    view._owner = current_owner()
    view._inner = None
    view._commit = (places._version,)
    view._share = _Undone(index, places)
    view._failed = None
    view._value = _touched(index, places)
    return view, places


def _touched(index: Index, places: SeenPlaces) -> SeenTouched:
    touched = SeenTouched()
    touched.index = index
    touched.state = places  # type: ignore[assignment]
    touched.gone = touched.named = touched.read = NONE
    touched.ends = None
    return touched
