"""The keyed store over memory: a log, and this process's index of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from .._bytes import Frame, private_copy
from ..errors import CorruptRegionError, RegionFullError
from . import holds, index, patched
from .base import Changes, KeyCodec, KeyedStore, too_large
from .compaction import Compaction, HeldImage, LogImage
from .format import HOLDS, LOG_KIND, OLDEST_READABLE, VERSION, align
from .index import State, apply, follow, load
from .key_drafts import KeyDrafts
from .log import BASE, BEGIN, END, EPOCH, Log, Position, V
from .manifest import Manifest, lay_out
from .memory import WINDOW_MOST, MemoryStore, create_region, undisturbed
from .order import Places
from .patched import Extents
from .region import ORDERED_STORES, Region
from .segment import Segment, memory_of

T = TypeVar("T")

_SPARE_KEYS: Final = 1000


class MemoryKeyedStore(MemoryStore, KeyedStore):
    """Shared memory that holds values by key; see `_store.base`.

    Any thread may use it at any time; a forked child inherits it as it stands. Without the GIL: the
    mutex keeps threads apart, and ``state`` is swapped whole by one store; see `State`.
    """

    __slots__ = ("_busy", "_codec", "_drafts", "_mutexes", "log", "state")

    def __init__(self, region: Region, codec: KeyCodec) -> None:
        super().__init__(region)
        self.log = Log(region)
        self._codec = codec
        self._drafts = KeyDrafts()
        self.state = State(BEGIN, Places(), 0, 0)
        self.state.version = -1  # Not even that the log is empty has been seen.
        self._mutexes: dict[int, Any] = {}
        """The mutex by process: a forked child must not wait for its parent's thread."""
        self._busy = False
        """The thread that has the mutex uses or changes the state this very moment."""

    @classmethod
    def create(cls, kind: str | None, max_size: int, codec: KeyCodec) -> MemoryKeyedStore:
        """A new, empty one; RegionFullError where the machine cannot map its ceiling."""
        return cls.create_in(memory_of(kind), max_size, codec)

    @classmethod
    def create_in(
        cls, memory: Callable[[int], Segment], max_size: int, codec: KeyCodec
    ) -> MemoryKeyedStore:
        """The same in what ``memory`` makes of a size."""
        # A log has what is dead beside what lives, and keys.
        spare = WINDOW_MOST + 3 * max_size // 2
        return cls(create_region(memory, max_size, LOG_KIND, spare), codec)

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
        if ORDERED_STORES:
            state = self.refresh()
            if state is not None:
                extents = state.places.get(key)
                if extents is not None and len(extents) == 2:
                    raw = self._map[extents[0] : extents[1]]
                    if self._words[OLDEST_READABLE] <= state.position[EPOCH]:
                        return (raw,), state.definitions
        return super().fetch(key)

    def read(self, look: Callable[[State], T]) -> T:
        return self.read_or_lock(lambda: self._try_read(look))[0]

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
        state = self.state
        if state.version == self._words[VERSION] and not state.changing:
            return state
        return undisturbed(self.refresh)

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
                state.follow_one(self._codec.decode_key(key), begin, position)
                return state
            newest = self.log.newest()
            if newest is None:
                return None
            if newest[V] < state.version:
                raise CorruptRegionError(
                    f"the region's version went back from {state.version} to {newest[V]}"
                )
            if newest[EPOCH] == state.position[EPOCH]:
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

    def single(self, place: Extents) -> bytes | None:
        return self._map[place[0] : place[1]] if len(place) == 2 else None

    def frames(self, place: Extents) -> Sequence[Frame]:
        if len(place) == 2:
            return (self._map[place[0] : place[1]],)
        with memoryview(self._map) as view:
            return patched.copied(place, view, copy=private_copy)

    def stands(self, state: State) -> bool:
        """Whether all that was read of a state until now was what had been written."""
        return bool(self._words[OLDEST_READABLE] <= state.position[EPOCH])

    def image(self) -> LogImage:
        def look(state: State) -> LogImage:
            base, end = state.position[BASE], state.position[END]
            return LogImage(state, base, self._map[base:end])

        return self.read(look)

    def hold(self, key: Any) -> tuple[Sequence[Frame], Any] | None:
        def look(state: State) -> tuple[Sequence[Frame], Any] | None:
            # Whether the state still stands is asked afterwards, as with a copy.
            held = patched.held(state.places[key], self.region.segment, self._map)
            return (held, state.definitions) if held and self._words[HOLDS] else None

        return self.read(look) if self._words[HOLDS] else None

    def hold_image(self) -> LogImage:
        segment = self.region.segment

        def look(state: State) -> LogImage | None:
            base, end = state.position[BASE], state.position[END]
            found = holds.hold(segment, base, end)
            if found is None or not self._words[HOLDS]:
                return None
            mapping, at = found
            return HeldImage(state, at, memoryview(mapping), segment)

        return (self.read(look) if self._words[HOLDS] else None) or self.image()

    def size_of(self, place: Extents) -> int:
        return place[-1] - place[0]

    def used_bytes(self) -> int:
        """Bytes that the snapshot and the deltas since take."""
        return self.log.used_bytes()

    # --- Writing: the caller holds the lock ------------------------------------------------

    def draft(self, key: Any, place: Extents) -> Sequence[Frame]:
        draft = None
        if self._words[HOLDS]:
            draft = self._drafts.take(key, place, self.region.segment, self._map)
        return self.frames(place) if draft is None else draft

    def holds(self, place: Extents, frames: Sequence[Frame]) -> bool:
        if len(place) == 2 and len(frames) == 1:
            return bool(self._map[place[0] : place[1]] == frames[0])
        with memoryview(self._map) as view:
            draft = self._drafts.find(place, frames, view)
            if draft is not None:
                return not draft.changes and draft[0] == frames[0]
            return patched.is_stored(place, frames, view)

    def commit(self, changes: Changes) -> int:
        state = self.state
        if state.version != self._words[VERSION] or state.changing:
            state = self.current()
        gone, changed, needed = changes
        position = state.position
        new = _new_to(state, needed) if needed else needed
        after = manifest = None
        if len(changed) == 1 and not gone and not new:
            after = self._append_one(state, *changed[0])
        if after is None:
            after, manifest = self._append(state, changes, new)
            if manifest is None:
                return after[V]
        with self.mutex():
            # Else it is another's by now, or this very thread was interrupted in the middle of
            # using it; then it catches up.
            in_use = self._busy and state is self.state
            if state.version == position[V] and not state.changing and not in_use:
                state.changing = True  # At once: the compiled core follows without the mutex.
                if manifest is None:
                    key, (value,) = changed[0]
                    state.follow_one(key, after[END] - len(value), after)
                else:
                    apply(state, manifest, after[END] - sum(manifest[2]))
                    state.stand_at(after)
        return after[V]

    def _append_one(self, state: State, key: Any, frames: Sequence[Frame]) -> Position | None:
        """The common way, for one key; None, with nothing done, where there is more to it."""
        position = state.position
        value = frames[0]
        if (
            len(frames) > 1
            or position[END] + len(value) > state.most
            or state.live + len(value) > self.region.identity.max_size
            or 2 * state.dead > position[END] - position[BASE] + index.SPARE_BYTES
            or not position[V]
        ):
            return None
        stream = self._codec.encode_key(key)
        if key not in state.places:
            self._codec.check_keys([key])
        return self.log.append_one(stream, value, position)

    def _append(
        self, state: State, changes: Changes, new: dict[bytes, Any]
    ) -> tuple[Position, Manifest | None]:
        """Commit a delta, which is returned too; or everything as a snapshot, with what changed."""
        gone = changes[0]
        keys, sizes, lengths, values, added, patches = self._lay_out(state, changes)
        freed = self._check_fits(state, gone, keys, added, patches)
        position = state.position
        used = position[END] - position[BASE] + added
        if (
            not position[V]
            or position[END] + added > state.most
            or 2 * (state.dead + freed) > used + index.SPARE_BYTES
            or 2 * (len(state.places) - len(gone)) < state.snapshot_keys - _SPARE_KEYS
        ):
            try:
                return self._rewrite(state, changes), None
            except RegionFullError:  # No memory for a second copy, perhaps there is for a delta.
                if not position[V]:
                    raise
        manifest = (gone, keys, sizes, lengths, new)
        large = self.log.may_hold and any(sizes[number] >= holds.LARGE_BYTES for number in lengths)
        raw = self._codec.encode_key(manifest)
        after = self.log.append(raw, values, bool(lengths), position, large)
        return (self._rewrite(state, changes), None) if after is None else (after, manifest)

    def _rewrite(self, state: State, changes: Changes) -> Position:
        """Commit everything as a snapshot."""
        new = Compaction(self.log, self._map, self._codec, self.frames).commit(state, changes)
        with self.mutex():
            if not self._busy:
                self.state = new
        return new.position

    def _lay_out(self, state: State, changes: Changes) -> tuple[Any, Any, Any, Any, int, Any]:
        """What a delta says of keys, sizes and lengths (see `_store.manifest`); its values, and
        what they take; and the sizes of those that are patches, by key."""
        gone, changed, _ = changes
        keys, sizes, values, added = [], [], [], 0
        lengths: dict[int, Any] = {}
        patches: dict[Any, int] = {}
        for number, (key, frames) in enumerate(changed):
            keys.append(key)
            size = len(frames[0])
            if len(frames) == 1:
                values.append(frames[0])
            elif (found := self._patch_of(state.places.get(key), frames)) and key not in gone:
                lengths[number], parts = found
                values += parts
                patches[key] = size = sum(map(len, parts))
            else:
                lengths[number] = tuple(map(len, frames))
                size = lay_out(frames, values, added)
            sizes.append(size)
            added += size
        return keys, sizes, lengths, values, added, patches

    def _patch_of(self, place: Any, frames: Sequence[Frame]) -> Any:
        with memoryview(self._map) as view:
            return self._drafts.patch(place, frames, view)

    def _check_fits(
        self,
        state: State,
        gone: Sequence[Any],
        keys: list[Any],
        added: int,
        patches: dict[Any, int],
    ) -> int:
        """Whether the keys may come, with values of that size; the bytes that are dead then.

        A patch is dead at once, and what it is laid over lives on.
        """
        places, patched = state.places, 0
        if patches:
            patched = sum(patches.values())
            added -= patched
            keys = [key for key in keys if key not in patches]
        self._codec.check_keys([key for key in keys if key not in places])
        replaced = dict.fromkeys([*gone, *keys]) if gone else keys
        old = [places[key] for key in replaced if key in places]
        freed: int = sum(extents[-1] - extents[0] for extents in old)
        live, most = state.live - freed + added, self.region.identity.max_size
        if added > freed and live > most:
            what = f"all values together take {live:,} bytes, the ceiling is {most:,} bytes"
            raise too_large(what, live, most)
        return freed + patched

    def reserve(self, changes: Changes) -> None:
        state = self.current()
        size, position = self._size_of(state, changes), state.position
        # A new snapshot changes nothing, and there is room behind it.
        if not position[V] or not self.log.has_room(position, size):
            self._rewrite(state, ((), (), {}))
            state = self.current()
            # In another place a draft is none any more, and is stored whole.
            size = self._size_of(state, changes)
            if position[V] and not self.log.has_room(state.position, size):
                raise self.log.full(size)

    def _size_of(self, state: State, changes: Changes) -> int:
        """What a delta takes at most; RegionFullError where that is too much."""
        gone, _, needed = changes
        keys, sizes, lengths, _, added, patches = self._lay_out(state, changes)
        self._check_fits(state, gone, keys, added, patches)
        return added + len(self._codec.encode_key((gone, keys, sizes, lengths, needed))) + align(1)


def _new_to(state: State, needed: dict[bytes, Any]) -> dict[bytes, Any]:
    """Those of the definitions that the log does not have."""
    return {key: one for key, one in needed.items() if key not in state.definitions}


if not ORDERED_STORES:  # only without ordered stores
    MemoryKeyedStore.newest = lambda self, key: None  # type: ignore[method-assign]
