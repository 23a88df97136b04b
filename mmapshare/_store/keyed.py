"""The keyed store over memory: a log, and this process's index of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from .._bytes import Frame, private_copy, same_bytes
from ..errors import CorruptRegionError, RegionFullError, VersionConflict
from . import index
from .base import Changes, KeyCodec
from .compaction import Compaction, Image
from .format import FLOOR, LOG_KIND, VERSION, align
from .index import State, apply, follow, load
from .log import BASE, BEGIN, END, RUN, Log, Position, V
from .manifest import Extents, lay_out
from .order import Places
from .region import ORDERED_STORES, WINDOW_MOST, MemoryStore, Region, floor_ahead

T = TypeVar("T")

_SPARE_KEYS: Final = 1000


class KeyedStore(MemoryStore):
    """Shared memory that holds values by key; see `_store.base.KeyedStore`.

    Any thread may use it at any time; a forked child inherits it as it stands. Without the GIL: the
    mutex keeps threads apart, and ``state`` is swapped whole by one store; see `State`.
    """

    __slots__ = ("_busy", "_codec", "_mutexes", "log", "state")

    def __init__(self, region: Region, codec: KeyCodec) -> None:
        super().__init__(region)
        self.log = Log(region)
        self._codec = codec
        self.kept = {}
        self.state = State(BEGIN, Places(), 0, 0)
        self.state.version = -1  # Not even that the log is empty has been seen.
        self._mutexes: dict[int, Any] = {}
        """The mutex by process: a forked child must not wait for its parent's thread."""
        self._busy = False
        """The thread that has the mutex uses or changes the state this very moment."""

    @classmethod
    def create(cls, kind: str, max_size: int, codec: KeyCodec) -> KeyedStore:
        """A new, empty one; RegionFullError where the machine cannot map its ceiling."""
        # A log has what is dead beside what lives, and keys.
        spare = WINDOW_MOST + 3 * max_size // 2
        return cls(Region.create(kind, max_size, LOG_KIND, spare), codec)

    def close(self) -> None:
        """Let go of the memory in this process."""
        self.log.close()
        super().close()

    def mutex(self) -> Any:
        """Of this process, for who looks at the state.

        Reentrant, since a signal handler or a finaliser may read, or write, in the middle of
        what it interrupts. Then it finds the store busy and works with a state of its own.
        """
        pid = self.lock.pid
        mutex = self._mutexes.get(pid)
        return mutex if mutex is not None else self._mutexes.setdefault(pid, threading.RLock())

    # --- Reading ---------------------------------------------------------------------------

    def newest(self, key: Any) -> bytes | None:
        """The one frame of a key's newest value; None where it takes more than a glance to tell."""
        state = self.state
        # Taken first: another thread may bring the state up to date in between.
        version = state.version
        try:
            begin, end = state.places[key]
        except (KeyError, ValueError):
            return None
        raw: bytes = self._map[begin:end]
        # Asked afterwards. While it stays the newest, nobody writes to its area but behind it.
        return raw if self._words[VERSION] == version else None

    def fetch(self, key: Any) -> tuple[Sequence[Frame], Any]:
        """The frames of a key's newest value, and where its definitions are; KeyError if none."""
        if ORDERED_STORES:
            state = self.refresh()
            if state is not None:
                extents = state.places.get(key)
                if extents is not None and len(extents) == 2:
                    raw = self._map[extents[0] : extents[1]]
                    if self._words[FLOOR] <= state.position[RUN]:
                        return (raw,), state.definitions
        return self.read(lambda state: (self.frames(state.places[key]), state.definitions))

    def read(self, look: Callable[[State], T]) -> T:
        """What ``look`` finds in the newest state; called again where a writer overtook it."""
        found = self.read_or_lock(
            lambda: self._try_read(look), lambda: (self._look_undisturbed(look),)
        )
        return found[0]

    def _look_undisturbed(self, look: Callable[[State], T]) -> T:
        """What ``look`` finds, for the lock's holder: nobody can have overtaken it."""
        state = self.current()
        found = look(state)
        if not self.stands(state):
            raise floor_ahead()
        return found

    def _try_read(self, look: Callable[[State], T]) -> tuple[T] | None:
        mutex = self.mutex()
        first = not mutex._is_owned()
        with mutex:  # Else another thread's delta would change the state meanwhile.
            state = self.refresh()
            if state is None:
                return None
            busy = self._busy and not first
            self._busy = True
            try:
                found = look(state)
            finally:
                self._busy = busy
            return (found,) if self.stands(state) else None

    def current(self) -> State:
        """The newest state, for the lock's holder."""
        state = self.state
        if state.version == self._words[VERSION] and not state.changing:
            return state
        found = self.refresh()
        if found is None:
            raise floor_ahead()
        return found

    def refresh(self) -> State | None:
        """Catch up with the newest version; None where a writer was faster."""
        mutex = self.mutex()
        first = not mutex._is_owned()
        with mutex:
            if first:
                self._busy = False  # An interrupt may have left it standing.
            state = self.state
            if state.version == self._words[VERSION] and not state.changing:
                return state
            if self._busy:
                return load(self.log, self._codec)
            self._busy = True
            try:
                return self._catch_up(state)
            finally:
                self._busy = False

    def _catch_up(self, state: State) -> State | None:
        if state.version > 0 and not state.changing:
            one = self.log.next_key(state.position)
            if one is not None:
                key, begin, position = one
                self._set_one(state, self._codec.decode(key), begin, position)
                return state
            newest = self.log.newest()
            if newest is None:
                return None
            if newest[V] < state.version:
                raise CorruptRegionError(
                    f"the region's version went back from {state.version} to {newest[V]}"
                )
            if newest[RUN] == state.position[RUN]:
                begin = state.position[END] + 7 & -8
                records = self.log.records(begin, state.version + 1, newest)
                if records is None:
                    return None
                follow(state, records, newest, self._codec)
                return state
        found = load(self.log, self._codec)
        if found is not None:
            self.state = found
        return found

    def _set_one(self, state: State, key: Any, begin: int, position: Position) -> None:
        end = position[END]
        state.changing = True
        old = state.places.get(key)
        if old is not None:
            size = old[-1] - old[0]
            state.dead += size
            state.live -= size
        state.live += end - begin
        state.places[key] = (begin, end)
        state.position = position
        state.version = position[V]
        state.changing = False

    def keys(self, backward: bool) -> Iterator[Any]:
        """The keys in order as they are now, whatever is changed meanwhile."""
        return self.read(lambda state: state.places.iterate(backward, self.mutex))

    def single(self, place: Extents) -> bytes | None:
        """A value's one frame, None where it has several; to be used as `frames`."""
        return self._map[place[0] : place[1]] if len(place) == 2 else None

    def frames(self, place: Extents) -> Sequence[Frame]:
        """Private copies of a value's frames; to be used only if the state still stands."""
        first = self._map[place[0] : place[1]]
        if len(place) == 2:
            return (first,)
        with memoryview(self._map) as view:
            pairs = zip(place[2::2], place[3::2], strict=True)
            return [first, *[private_copy(view[begin:end]) for begin, end in pairs]]

    def stands(self, state: State) -> bool:
        """Whether all that was read of a state until now was what had been written."""
        return bool(self._words[FLOOR] <= state.position[RUN])

    def image(self) -> Image:
        """All of the newest version, copied."""

        def look(state: State) -> Image:
            base, end = state.position[BASE], state.position[END]
            return Image(state, base, self._map[base:end])

        return self.read(look)

    def size_of(self, place: Extents) -> int:
        """Bytes that a value takes."""
        return place[-1] - place[0]

    def used_bytes(self) -> int:
        """Bytes that the snapshot and the deltas since take."""
        return self.log.used_bytes()

    # --- Writing: the caller holds the lock ------------------------------------------------

    def holds(self, place: Extents, frames: Sequence[Frame]) -> bool:
        """Whether these frames are what is stored there, byte by byte; keeps no copy."""
        if len(place) == 2 and len(frames) == 1:
            return bool(self._map[place[0] : place[1]] == frames[0])
        pairs = list(zip(place[::2], place[1::2], strict=True))
        with memoryview(self._map) as view:
            return len(pairs) == len(frames) and all(
                same_bytes(view[begin:end], frame)
                for (begin, end), frame in zip(pairs, frames, strict=True)
            )

    def _check(self, expect: Callable[[State], bool]) -> None:
        if not expect(self.current()):
            raise VersionConflict("something that was looked at has been changed meanwhile")

    def _put(self, changes: Changes) -> int:
        gone, changed, _ = changes
        state = self.current()
        place = state.places.get(changed[0][0]) if len(changed) == 1 and not gone else None
        # One key whose value is there already is not stored again.
        if place is None or not self.holds(place, changed[0][1]):
            self.commit(changes)
        version: int = self._words[VERSION]
        return version

    def keep(self, changes: Changes | None, kept: dict[Any, Any] | None) -> None:
        """Keep alive what values refer to which this process stored last, by their keys."""
        left = dict(self.kept)
        for key in [*changes[0], *[key for key, _ in changes[1]]] if changes else ():
            left.pop(key, None)
        self.kept = left | (kept or {})

    def commit(self, changes: Changes) -> None:
        """Commit that keys are gone and others are set, in this order, all together.

        RegionFullError, with nothing changed, where the values do not fit.
        """
        state = self.state
        if state.version != self._words[VERSION] or state.changing:
            state = self.current()
        gone, changed, needed = changes
        position = state.position
        new = _new_to(state, needed) if needed else needed
        if len(changed) == 1 and not gone and not new and self._commit_one(state, *changed[0]):
            return
        live, dead = _without(state, changes)
        places = state.places
        values: list[Frame] = []
        sizes, lengths, added = [], {}, 0
        for number, (_, frames) in enumerate(changed):
            size = len(frames[0])
            if len(frames) == 1:
                values.append(frames[0])
            else:
                lengths[number] = tuple(map(len, frames))
                size = lay_out(frames, values, added)
            sizes.append(size)
            added += size
        self._codec.check([key for key, _ in changed if key not in places])
        if live + added > state.live:
            self._check_fits(live + added)
        used = position[END] - position[BASE] + added
        if (
            not position[V]
            or position[END] + added > state.most
            or 2 * dead > used + index.SPARE_BYTES
            or 2 * (len(places) - len(gone)) < state.snapshot_keys - _SPARE_KEYS
        ):
            try:
                self._rewrite(state, changes)
                return
            except RegionFullError:  # No memory for a second copy, perhaps there is for a delta.
                if not position[V]:
                    raise
        directory = (gone, [key for key, _ in changed], sizes, lengths, new)
        after = self.log.append(self._codec.encode(directory), values, bool(lengths), position)
        if after is None:
            self._rewrite(state, changes)
            return
        with self.mutex():
            # Else it is another's by now, or this very thread was interrupted in the middle of
            # using it; then it catches up.
            in_use = self._busy and state is self.state
            if state.version == position[V] and not state.changing and not in_use:
                state.changing = True
                apply(state, directory, after[END] - added)
                state.position = after
                state.version = after[V]
                state.changing = False

    def reserve(self, changes: Changes) -> None:
        """See to it that `commit` of the same finds room; RegionFullError where it would not."""
        state = self.current()
        gone, changed, needed = changes
        position = state.position
        live, _ = _without(state, changes)
        added = sum(align(len(frame)) for _, frames in changed for frame in frames)
        if live + added > state.live:
            self._check_fits(live + added)
        keys = [key for key, _ in changed]
        self._codec.check([key for key in keys if key not in state.places])
        numbers = len(keys) + sum(len(frames) for _, frames in changed)
        size = added + len(self._codec.encode((gone, keys, (), {}, needed))) + 16 * numbers + 64
        if not position[V]:
            self._rewrite(state, ((), (), {}))
        elif not self.log.has_room(position, size):
            # Nothing changes by that, and behind the new snapshot there is room.
            self._rewrite(state, ((), (), {}))
            if not self.log.has_room(self.state.position, size):
                raise self.log.full(size)

    def _commit_one(self, state: State, key: Any, frames: Sequence[Frame]) -> bool:
        """The common way, for one key; False, with nothing done, where there is more to it."""
        position = state.position
        value = frames[0]
        if (
            len(frames) > 1
            or position[END] + len(value) > state.most
            or state.live + len(value) > self.region.identity.max_size
            or 2 * state.dead > position[END] - position[BASE] + index.SPARE_BYTES
            or not position[V]
        ):
            return False
        stream = self._codec.encode(key)
        if key not in state.places:
            self._codec.check([key])
        after = self.log.append_one(stream, value, position)
        if after is None:
            return False
        with self.mutex():
            in_use = self._busy and state is self.state
            if state.version == position[V] and not state.changing and not in_use:
                self._set_one(state, key, after[END] - len(value), after)
        return True

    def _check_fits(self, live: int) -> None:
        most = self.region.identity.max_size
        if live > most:
            raise RegionFullError(
                f"all values together take {live:,} bytes, the ceiling is {most:,} bytes; make the "
                "dict with a larger max_size. What is stored is as it was",
                needed_bytes=live,
                max_size_bytes=most,
            )

    def _rewrite(self, state: State, changes: Changes) -> None:
        """Commit everything as a snapshot."""
        new = Compaction(self.log, self._map, self._codec, self.frames).commit(state, changes)
        with self.mutex():
            if not self._busy:
                self.state = new


def _without(state: State, changes: Changes) -> tuple[int, int]:
    """Bytes that live and that are dead once what is replaced or gone is dead."""
    live, dead, places = state.live, state.dead, state.places
    for key in dict.fromkeys([*changes[0], *[key for key, _ in changes[1]]]):
        old = places.get(key)
        if old is not None:
            dead += old[-1] - old[0]
            live -= old[-1] - old[0]
    return live, dead


def _new_to(state: State, needed: dict[bytes, Any]) -> dict[bytes, Any]:
    """Those of the definitions that the log does not have."""
    return {key: one for key, one in needed.items() if key not in state.definitions}


if not ORDERED_STORES:  # only without ordered stores
    KeyedStore.newest = lambda self, key: None  # type: ignore[method-assign]
