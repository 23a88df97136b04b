"""The index: which key's value lies where in a log, as one process knows it.

Each process keeps its own and catches up by reading only the records that are new to it, whose
directories say what has changed (see `_directory`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pickle import dumps
from typing import Any, Final, TypeVar

from ._closed import CLOSED
from ._codec import Frame, Gathered, closure, decode, needs_of
from ._directory import (
    PLAIN_KEYS,
    Directory,
    Extents,
    check_keys,
    decode_directory,
    encode_directory,
    extents_at,
    lay_out,
    lengths_of,
    places_of,
)
from ._layout import VERSION, align
from ._log import BASE, BEGIN, END, RUN, Log, Position, Record, V
from ._memory import private_copy
from ._order import Places
from ._owner import claim_by, current_owner
from ._region import ORDERED_STORES, same_bytes
from ._sameness import Trusts
from .errors import CorruptRegionError, RegionFullError

T = TypeVar("T")

Frames = tuple[Frame, ...]
Changes = tuple[Sequence[Any], Sequence[tuple[Any, Frames]], Gathered]
"""Keys that are gone, keys that are set with their values' frames, and definitions that these need,
whether or not the log has them yet."""

_SPARE_BYTES: Final = 64 << 10
"""So much may be dead, or added to a snapshot, before it is worth while to write a new one."""
_SPARE_KEYS: Final = 1000
_ATTEMPTS_BEFORE_LOCK: Final = 16
_PIECE: Final = 10_000
"""Values that are copied to a snapshot at a time."""


class State:
    """What is known at one position. Replaced as a whole, but for deltas, which change ``places``.

    Without the GIL: it is changed under the index's mutex only. Who reads without that takes the
    version first, one key's extents by one operation of a dict, and asks the region's version (or
    FLOOR) afterwards. The lock's holder needs no mutex once it is current: nobody can commit.

    Attributes:
        version: of the position; apart, since each read asks for it.
        places: extents by key, in the dict's order.
        definitions: those that the log has, by key; more may come, none goes. The next snapshot
            has only those that values need.
        live: bytes of the values that are there.
        dead: bytes of the values that were replaced or deleted since the snapshot.
        snapshot_keys: of how many keys the area's snapshot was.
        most: up to where deltas may reach before it is worth while to write a new snapshot.
        changing: a delta is being applied: not to be copied, and not to be used in a forked child.
    """

    __slots__ = (
        "changing",
        "dead",
        "definitions",
        "live",
        "most",
        "places",
        "position",
        "snapshot_keys",
        "version",
    )

    def __init__(self, position: Position, places: Places, live: int, end: int) -> None:
        """``end``: where the snapshot that ``places`` were read from ends."""
        self.position = position
        self.version = position[V]
        self.places = places
        self.definitions: Gathered = {}
        self.live = live
        self.dead = 0
        self.snapshot_keys = len(places)
        self.most = end + (end - position[BASE]) + _SPARE_BYTES
        self.changing = False


class Index:
    """A log's keys and where their values are; any thread may use it at any time.

    A forked child inherits it as it stands. Without the GIL: the mutex keeps threads apart, and
    ``state`` is swapped whole by one store; see `State`.
    """

    __slots__ = ("_busy", "_mutexes", "log", "map", "state", "trusts", "words")

    def __init__(self, log: Log) -> None:
        self.log = log
        self.map = log._map
        self.words = log._words
        self.state = State(BEGIN, Places(), 0, 0)
        self.state.version = -1  # Not even that the log is empty has been seen.
        self.trusts = Trusts()
        self._mutexes: dict[int, Any] = {}
        """The mutex by process: a forked child must not wait for its parent's thread."""
        self._busy = False
        """The thread that has the mutex uses or changes the state this very moment."""

    def _mutex(self) -> Any:
        # Reentrant, since a signal handler or a finaliser may read, or write, in the middle of
        # what it interrupts. Then it finds the index busy and works with a state of its own.
        pid = self.log.lock.pid
        mutex = self._mutexes.get(pid)
        return mutex if mutex is not None else self._mutexes.setdefault(pid, threading.RLock())

    def close(self) -> None:
        """Let go of the memory."""
        self.map = self.words = CLOSED

    # --- Reading ---------------------------------------------------------------------------

    def read(self, look: Callable[[State], T]) -> T:
        """What ``look`` finds in the newest state; called again where a writer overtook it."""
        while ORDERED_STORES:
            for _ in range(_ATTEMPTS_BEFORE_LOCK):
                found = self._try_read(look)
                if found is not None:
                    return found[0]
            # A writer that rewrites without pause overtakes every copy. It lets go between its
            # commits; while it does not, it commits nothing and the next attempt succeeds.
            claim = claim_by(current_owner())
            try:
                if self.log.lock.try_acquire(claim):
                    return self._look_undisturbed(look)
            finally:
                self.log.lock.abandon(claim)
        claim = claim_by(current_owner())
        try:
            self.log.lock.acquire(claim, None)  # Or the caller has it already.
            return self._look_undisturbed(look)
        finally:
            self.log.lock.abandon(claim)

    def _look_undisturbed(self, look: Callable[[State], T]) -> T:
        """What ``look`` finds, for the lock's holder: nobody can have overtaken it."""
        state = self.current()
        found = look(state)
        if not self.log.stands(state.position):
            raise _floor_ahead()
        return found

    def _try_read(self, look: Callable[[State], T]) -> tuple[T] | None:
        mutex = self._mutex()
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
            return (found,) if self.log.stands(state.position) else None

    def current(self) -> State:
        """The newest state, for the lock's holder."""
        state = self.state
        if state.version == self.words[VERSION] and not state.changing:
            return state
        found = self.refresh()
        if found is None:
            raise _floor_ahead()
        return found

    def refresh(self) -> State | None:
        """Catch up with the newest version; None where a writer was faster."""
        mutex = self._mutex()
        first = not mutex._is_owned()
        with mutex:
            if first:
                self._busy = False  # An interrupt may have left it standing.
            state = self.state
            if state.version == self.words[VERSION] and not state.changing:
                return state
            if self._busy:
                return self._load()
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
                self._set_one(state, decode((key,)), begin, position)
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
                self._follow(state, records, newest)
                return state
        found = self._load()
        if found is not None:
            self.state = found
        return found

    def _load(self) -> State | None:
        """A state from the area's snapshot on."""
        newest = self.log.newest()
        if newest is None or not newest[V]:
            return newest and State(newest, Places(), 0, 0)
        records = self.log.records(newest[BASE], newest[RUN], newest)
        if records is None:
            return None
        raw, begin, end, one_key = records[0]
        if one_key:
            raise CorruptRegionError("the area does not begin with a snapshot")
        directory = decode_directory(raw)
        state = State(newest, *places_of(directory, begin), end)
        state.definitions.update(directory[4])
        self._follow(state, records[1:], newest)
        return state

    def _follow(self, state: State, records: Iterable[Record], newest: Position) -> None:
        decoded = [
            (decode((raw,)), begin, end) if one_key else (decode_directory(raw), begin, 0)
            for raw, begin, end, one_key in records
        ]
        state.changing = True
        places, live, dead = state.places, state.live, state.dead
        for found, begin, end in decoded:
            if end:
                old = places.get(found)
                if old is not None:
                    dead += old[-1] - old[0]
                    live -= old[-1] - old[0]
                places[found] = (begin, end)
                live += end - begin
            else:
                state.live, state.dead = live, dead
                _apply(state, found, begin)
                live, dead = state.live, state.dead
        state.live, state.dead = live, dead
        state.position = newest
        state.version = newest[V]
        state.changing = False

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
        return self.read(lambda state: state.places.iterate(backward, self._mutex))

    def frames(self, extents: Extents) -> Sequence[Frame]:
        """Private copies of a value's frames; to be used only if the state still stands."""
        first = self.log.copy(extents[0], extents[1])
        if len(extents) == 2:
            return (first,)
        with memoryview(self.log._map) as view:
            pairs = zip(extents[2::2], extents[3::2], strict=True)
            return [first, *[private_copy(view[begin:end]) for begin, end in pairs]]

    # --- Writing: the caller holds the lock ------------------------------------------------

    def holds(self, extents: Extents, frames: Frames) -> bool:
        """Whether these frames are what is stored there, byte by byte; keeps no copy."""
        pairs = list(zip(extents[::2], extents[1::2], strict=True))
        with memoryview(self.log._map) as view:
            return len(pairs) == len(frames) and all(
                same_bytes(view[begin:end], frame)
                for (begin, end), frame in zip(pairs, frames, strict=True)
            )

    def commit(self, state: State, changes: Changes) -> None:
        """Commit that keys are gone and others are set, in this order, all together.

        RegionFullError, with nothing changed, where the values do not fit.
        """
        gone, changed, needed = changes
        position = state.position
        new = _new_to(state, needed) if needed else needed
        if len(changed) == 1 and not gone and not new and self._commit_one(state, *changed[0]):
            return
        live, dead = state.live, state.dead
        places = state.places
        for key in dict.fromkeys([*gone, *[key for key, _ in changed]]):
            old = places.get(key)
            if old is not None:
                dead += old[-1] - old[0]
                live -= old[-1] - old[0]
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
        check_keys([key for key, _ in changed if key not in places])
        if live + added > state.live:
            self._check_fits(live + added)
        used = position[END] - position[BASE] + added
        if (
            not position[V]
            or position[END] + added > state.most
            or 2 * dead > used + _SPARE_BYTES
            or 2 * (len(places) - len(gone)) < state.snapshot_keys - _SPARE_KEYS
        ):
            try:
                self._rewrite(state, changes)
                return
            except RegionFullError:  # No memory for a second copy, perhaps there is for a delta.
                if not position[V]:
                    raise
        directory = (gone, [key for key, _ in changed], sizes, lengths, new)
        after = self.log.append(encode_directory(directory), values, bool(lengths), position)
        if after is None:
            self._rewrite(state, changes)
            return
        with self._mutex():
            if state.version == position[V] and not state.changing and not self._in_use(state):
                state.changing = True
                _apply(state, directory, after[END] - added)
                state.position = after
                state.version = after[V]
                state.changing = False

    def _in_use(self, state: State) -> bool:
        """Whether this thread was interrupted in the middle of using the state; it catches up."""
        return self._busy and state is self.state

    def make_room(self, state: State, changes: Changes) -> None:
        """See to it that `commit` of the same finds room; RegionFullError where it would not."""
        gone, changed, needed = changes
        places, position = state.places, state.position
        live = state.live
        for key in dict.fromkeys([*gone, *[key for key, _ in changed]]):
            old = places.get(key)
            live -= old[-1] - old[0] if old is not None else 0
        added = sum(align(len(frame)) for _, frames in changed for frame in frames)
        if live + added > state.live:
            self._check_fits(live + added)
        keys = [key for key, _ in changed]
        check_keys([key for key in keys if key not in places])
        numbers = len(keys) + sum(len(frames) for _, frames in changed)
        size = added + len(encode_directory((gone, keys, (), {}, needed))) + 16 * numbers + 64
        if not position[V]:
            self._rewrite(state, ((), (), {}))
        elif not self.log.has_room(position, size):
            # Nothing changes by that, and behind the new snapshot there is room.
            self._rewrite(state, ((), (), {}))
            if not self.log.has_room(self.state.position, size):
                raise self.log.full(size)

    def _commit_one(self, state: State, key: Any, frames: Frames) -> bool:
        """The common way, for one key; False, with nothing done, where there is more to it."""
        position = state.position
        value = frames[0]
        if (
            len(frames) > 1
            or position[END] + len(value) > state.most
            or state.live + len(value) > self.log.identity.max_size
            or 2 * state.dead > position[END] - position[BASE] + _SPARE_BYTES
            or not position[V]
        ):
            return False
        stream = dumps(key, 5) if type(key) in PLAIN_KEYS else encode_directory(key)
        if key not in state.places:
            check_keys([key])
        after = self.log.append_one(stream, value, position)
        if after is None:
            return False
        with self._mutex():
            if state.version == position[V] and not state.changing and not self._in_use(state):
                self._set_one(state, key, after[END] - len(value), after)
        return True

    def _check_fits(self, live: int) -> None:
        most = self.log.identity.max_size
        if live > most:
            raise RegionFullError(
                f"all values together take {live:,} bytes, the ceiling is {most:,} bytes; make the "
                "dict with a larger max_size. What is stored is as it was",
                needed_bytes=live,
                max_size_bytes=most,
            )

    def _rewrite(self, state: State, changes: Changes) -> None:
        """Commit everything as a snapshot; what was stored is copied, and not decoded."""
        gone, changed, needed = changes
        places: dict[Any, Any] = state.places.copy()
        for key in gone:
            places.pop(key, None)  # An interrupted commit of several shares is made again.
        places.update(changed)
        sizes, lengths, total = [], {}, 0
        for number, found in enumerate(places.values()):
            if type(found[0]) is int:
                size = found[-1] - found[0]
                if len(found) > 2:
                    lengths[number] = lengths_of(found)
            else:
                size = len(found[0])
                if len(found) > 1:
                    lengths[number] = tuple(map(len, found))
            if number in lengths:
                size = sum(map(align, lengths[number][:-1])) + lengths[number][-1]
                size += align(total) - total
            sizes.append(size)
            total += size
        definitions = self._still_needed(places, {**state.definitions, **needed})
        directory: Directory = ((), list(places), sizes, lengths, definitions)
        values = self._values(places, lengths)
        after = self.log.rewrite(encode_directory(directory), values, total, state.position)
        new = State(after, *places_of(directory, after[END] - total), after[END])
        new.definitions = definitions
        with self._mutex():
            if not self._busy:
                self.state = new

    def _still_needed(self, places: dict[Any, Any], known: Gathered) -> Gathered:
        """Those of the definitions that values need; the others end with this snapshot."""
        if not known:
            return {}
        keys: dict[bytes, None] = {}
        for found in places.values():
            if type(found[0]) is int:
                named = needs_of(self.map, found[1])
            else:
                named = needs_of(found[0], len(found[0]))
            keys.update(dict.fromkeys(named))
        return closure(keys, known)

    def _values(
        self, places: dict[Any, Any], lengths: dict[int, tuple[int, ...]]
    ) -> Iterator[Frame]:
        """The values of a snapshot, one behind the other, a good number at a time."""
        found = iter(places.values())
        total = number = 0
        while piece := list(islice(found, _PIECE)):
            values: list[Frame] = []
            for one in piece:
                stored = type(one[0]) is int
                if number not in lengths:
                    value = self.log.copy(one[0], one[1]) if stored else one[0]
                    values.append(value)
                    total += len(value)
                else:
                    frames = self.frames(one) if stored else one
                    total += lay_out(frames, values, total)
                number += 1
            yield b"".join(values)


def _floor_ahead() -> CorruptRegionError:
    return CorruptRegionError("the region's FLOOR word is ahead of its version")


def _apply(state: State, directory: Directory, begin: int) -> None:
    gone, keys, sizes, lengths, definitions = directory
    state.definitions.update(definitions)  # At hand before any value is loaded that needs them.
    places, live, dead = state.places, state.live, state.dead
    for key in gone:
        old = places.take_out(key)
        if old is not None:
            dead += old[-1] - old[0]
            live -= old[-1] - old[0]
    for number, (key, size) in enumerate(zip(keys, sizes, strict=True)):
        old = places.get(key)
        if old is not None:
            dead += old[-1] - old[0]
            live -= old[-1] - old[0]
        extents = extents_at(begin, lengths[number]) if number in lengths else (begin, begin + size)
        places[key] = extents
        live += extents[-1] - extents[0]
        begin += size
    state.live, state.dead = live, dead


def _new_to(state: State, needed: Gathered) -> Gathered:
    """Those of the definitions that the log does not have."""
    return {key: one for key, one in needed.items() if key not in state.definitions}
