"""The value store over memory: one committed version of some frames at a time.

Small values rotate through a window of many versions in an area before they move to the other
one, so that readers almost never meet a writer; large ones, from a window's size on, alternate
between two places, or go to where nothing is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from .._bytes import Frame, private_copy, same_bytes
from ..errors import CorruptRegionError
from . import format as layout
from . import holds
from .base import Base, ValueStore, too_large
from .drafts import DraftStore
from .format import (
    HEADER_BYTES,
    HOLDS,
    LAG,
    OLDEST_READABLE,
    RUNS_BYTES,
    VALUE_KIND,
    VERSION,
    Slot,
)
from .held import Held
from .memory import WINDOW_MOST, create_region, undisturbed
from .region import Region, oldest_ahead
from .segment import Segment, memory_of

_WINDOW_RECORDS: Final = 16
_WINDOW_LEAST: Final = 64 << 10
_KEEP_BYTES: Final = 8 << 20
"""Memory that an area keeps though nothing lives there."""
_CACHED_BYTES: Final = 64 << 10
"""Frames up to this size are kept in the process until the version changes."""

_FOR_HELD: Final = 3
"""An area has room for so many values of the largest size, where such values can be held."""

assert WINDOW_MOST <= _KEEP_BYTES
assert WINDOW_MOST <= holds.LARGE_BYTES  # What may be held goes to a place of its own.

Commit = tuple[int, Sequence[Frame], int, int, int, int]
"""One committed version, as a plain tuple, since one is made for each commit:

- its version, 0 for none;
- private copies of its frames (none, where only its place was asked for);
- start and end of its record, and its epoch (see `_store.format`);
- up to where the next record may reach without a look at area, window or memory.
"""
V: Final = 0
START: Final = 2
END: Final = 3
EPOCH: Final = 4

_EMPTY: Final[Commit] = (0, (), 0, 0, 0, 0)
_UNREAD: Final[Commit] = (-1, (), 0, 0, 0, 0)
"""Stands where this process has seen none yet, not even that there is none."""

Seen = tuple[int, Sequence[tuple[int, int]], tuple[int, int, int, int]]
"""Where a version lies: its number, begin and end of each frame, and what a Commit ends with."""
_NOTHING: Final[Seen] = (-1, (), (0, 0, 0, 0))


class MemoryValueStore(DraftStore, ValueStore):
    """Shared memory that holds one value; see `_store.base`. What it does about drafts of large
    values is in `_store.drafts`.

    Without the GIL: ``_commit`` and ``_seen`` are tuples that never change, each swapped whole by
    one store; which of two threads swapped last does not matter, as each names its own version.
    """

    __slots__ = ("_commit", "_easy_most")

    def __init__(self, region: Region) -> None:
        super().__init__(region)
        # No record that fits in the window can be too large; if one could, none is easy.
        self._easy_most = WINDOW_MOST if region.identity.max_size >= WINDOW_MOST else 0
        self._seen: Seen = _NOTHING
        self._commit = _UNREAD
        """The last commit seen, kept while it is small and its frames are nobody's memory."""

    @classmethod
    def create(cls, kind: str | None, max_size: int) -> MemoryValueStore:
        """A new, empty one; RegionFullError where the machine cannot map its ceiling."""
        return cls.create_in(memory_of(kind), max_size)

    @classmethod
    def create_in(cls, memory: Callable[[int], Segment], max_size: int) -> MemoryValueStore:
        """The same in what ``memory`` makes of a size."""
        # A record needs a head and a table beside the value, and a small area some window.
        times = _FOR_HELD if max_size >= holds.LARGE_BYTES else 1
        spare = WINDOW_MOST + max_size // 32
        return cls(create_region(memory, max_size, VALUE_KIND, spare, times))

    # --- Reading ---------------------------------------------------------------------------

    def read(self) -> Commit:
        commit = self._commit
        if self._words[VERSION] == commit[V]:
            return commit
        return self.read_or_lock(self.try_read)

    def try_read(self) -> Commit | None:
        """One attempt at copying the newest commit; None where a writer overtook it."""
        seen = self._seen
        if seen[0] != self._words[VERSION]:
            slot = self._load_slot()
            if slot is None:
                return None if self._words[VERSION] else _EMPTY
            found = self._extents(slot)
            if found is None:
                return None
            # Where a version lies does not change: large ones are copied without asking again.
            self._seen = seen = (slot.version, found, self._extent(slot))
        version, extents, extent = seen
        frames = self._copy(extents)
        oldest = self._words[OLDEST_READABLE]
        if oldest > version:
            if oldest > self._words[VERSION]:
                raise oldest_ahead()
            return None
        commit = (version, frames, *extent)
        if _cacheable(len(extents), extent[1] - extent[0]):
            self._commit = commit
        return commit

    def _load_slot(self) -> Slot | None:
        return self.region.load_slot(max(self._commit[V], self._seen[V]))

    def _extent(self, slot: Slot) -> tuple[int, int, int, int]:
        return slot.start, slot.end, slot.epoch, self._easy(slot.start, slot.end)

    def _easy(self, start: int, end: int) -> int:
        if self._words[HOLDS]:
            return 0
        areas = self.region.areas
        area = areas.of(start)
        window = min(_window(end - start), self._easy_most)
        return min(areas.start(area) + window, areas.easy(area))

    def _copy(self, extents: Sequence[tuple[int, int]]) -> Sequence[Frame]:
        begin, end = extents[0]
        if len(extents) == 1:
            return (self._map[begin:end],)
        # Nobody may take memory that belongs to user objects for what was committed: as a list
        # it equals no frames that `commit` is given.
        with memoryview(self._map) as view:
            return [
                self._map[begin:end],
                *[private_copy(view[begin:end]) for begin, end in extents[1:]],
            ]

    def _extents(self, slot: Slot) -> list[tuple[int, int]] | None:
        table = self._map[slot.start : slot.start + layout.table_bytes(slot.frames)]
        try:
            return layout.frame_extents(slot, table)
        except CorruptRegionError:
            if self._words[OLDEST_READABLE] > slot.version:
                return None
            raise

    def hold(self) -> tuple[int, Sequence[Frame]] | None:
        (held,) = self.read_or_lock(self._try_hold)
        return None if held is None else (held.of.version, held)

    def _try_hold(self) -> tuple[Held | None] | None:
        slot = self._load_slot()
        if slot is None:
            return None if self._words[VERSION] else (None,)
        if not self._is_large(slot):
            return (None,)
        found = holds.hold(self.region.segment, slot.start, slot.end)
        # From here on whoever comes to this place finds it held; was somebody there before?
        if self._words[OLDEST_READABLE] > slot.version:
            if self._words[OLDEST_READABLE] > self._words[VERSION]:
                raise oldest_ahead()
            return None
        if found is None or not self._words[HOLDS]:
            return (None,)
        # Held, it stays what it is: nobody can overtake what is read of it.
        table = self._map[slot.start : slot.start + layout.table_bytes(slot.frames)]
        extents = layout.frame_extents(slot, table)
        return (Held(slot, self._map[slice(*extents[0])], extents[1:], *found),)

    # --- Writing: the caller holds the lock ------------------------------------------------

    def current(self) -> Base:
        commit = self._commit
        if self._words[VERSION] == commit[V]:
            return commit
        draft = self._begin_draft() if self._words[HOLDS] else None
        return draft or undisturbed(self.try_read)

    def newest(self) -> Commit:
        """The newest commit, perhaps without its frames."""
        commit = self._commit
        if self._words[VERSION] == commit[V]:
            return commit
        if self._words[VERSION] == self._seen[V]:
            return (self._seen[V], (), *self._seen[2])
        slot = self._load_slot()
        if slot is None:
            return _EMPTY
        return (slot.version, (), *self._extent(slot))

    def holds(self, frames: Sequence[Frame]) -> bool:
        draft = self._draft_of(frames)
        if draft is not None:
            return not draft.changes and draft[0] == frames[0]
        slot = self._load_slot()
        if slot is None or slot.frames != len(frames):
            return False
        extents = self._extents(slot)
        with memoryview(self._map) as view:
            return extents is not None and all(
                same_bytes(view[begin:end], frame)
                for (begin, end), frame in zip(extents, frames, strict=True)
            )

    def commit(self, frames: Sequence[Frame]) -> int:
        base = self._commit
        if self._words[VERSION] != base[V]:
            base = self.newest()
        if len(frames) > 1:
            return self._commit_with_care(frames, base)
        version, _, _, end, epoch, easy = base
        (frame,) = frames
        start = end + 63 & -64
        end = start + len(frame)
        if end > easy:
            return self._commit_with_care(frames, base)
        version += 1
        self._map[start:end] = frame
        self._publish(version, start, end, epoch)
        self._commit = (version, frames, start, end, epoch, easy)
        return version

    _put = commit  # type: ignore[assignment]  # What `put` does all the time, without a call between.

    def _commit_with_care(self, frames: Sequence[Frame], base: Commit) -> int:
        if self._draft is not None:
            patched = self._patches(frames)
            if patched is not None:
                return patched
        version, lengths = base[V] + 1, [len(frame) for frame in frames]
        table, parts = layout.pack_table(lengths) if len(frames) > 1 else (b"", 1)
        size = self._size(lengths)
        start, epoch = self._place(base, size)
        begin = start + len(table)
        if table:
            self._map[start:begin] = table
        extents = []
        for frame, length in zip(frames, lengths, strict=True):
            self._map[begin : begin + length] = frame
            extents.append((begin, begin + length))
            begin = layout.align(begin + length)
        end = start + size
        self._publish(version, start, end, epoch, parts)
        extent = (start, end, epoch, self._easy(start, end))
        self._seen = (version, extents, extent)
        if _cacheable(len(frames), size):
            self._commit = (version, frames, *extent)
        if self._words[HOLDS]:
            spared = (start, end + RUNS_BYTES)
            self.region.areas.trim_past_holds(max(_KEEP_BYTES, size), version, spared)
        elif epoch == version:  # It came to this area.
            areas, keep = self.region.areas, max(_KEEP_BYTES, 2 * size)
            here = areas.of(start)
            areas.trim(here, keep, keep, None)
            areas.trim(1 - here, keep, keep, version)
        return version

    def reserve(self, frames: Sequence[Frame]) -> None:
        size = self._size([len(frame) for frame in frames])
        if not self._has_place(frames):
            self._place(self.newest(), size)

    def _size(self, lengths: list[int]) -> int:
        """What a record of such frames takes; RegionFullError where it cannot fit."""
        payload, count, max_size = sum(lengths), len(lengths), self.region.identity.max_size
        size = layout.table_bytes(count) + sum(map(layout.align, lengths[:-1])) + lengths[-1]
        if payload > max_size:
            why = f"the value takes {payload:,} bytes, the ceiling is {max_size:,} bytes"
        elif size + RUNS_BYTES > self.region.areas.bytes:
            why = f"the value's {count:,} parts, aligned, take {size:,} bytes"
        else:
            return size
        raise too_large(why, payload, max_size)

    def _place(self, base: Commit, size: int) -> tuple[int, int]:
        """Where the next record goes: (start, epoch). It has memory, and no reader's claim."""
        areas, words = self.region.areas, self._words
        if size >= holds.LARGE_BYTES or words[HOLDS]:
            words[LAG] = 0  # From here on nothing is as it was noted.
            version, _, begin, end, *_ = base
            large, was_large = size >= holds.LARGE_BYTES, end - begin >= holds.LARGE_BYTES
            size += RUNS_BYTES if large else 0
            start = areas.free_place(size, version, begin, end + RUNS_BYTES if was_large else end)
            areas.room(start, start + size)
            if self.region.identity.format != layout.FORMAT:
                # A copied file has holes where the original had what was left of others.
                self.region.segment.allocate(start, start + size)
            if large:
                words[HOLDS] = 1
            elif not was_large and areas.is_free_of_holds():
                words[HOLDS] = 0
            return start, version + 1
        start, epoch = HEADER_BYTES, 1
        if base[V]:
            start, epoch = layout.align(base[END]), base[EPOCH]
            if start + size > areas.start(areas.of(base[START])) + _window(size):
                start, epoch = areas.turn(base[START], epoch), base[V] + 1
        areas.room(start, start + size)
        return start, epoch

    # --- To be looked at -------------------------------------------------------------------

    def used_bytes(self) -> int:
        """Bytes of the newest commit's frames."""
        slot = self._load_slot()
        return 0 if slot is None else slot.end - slot.start

    def glimpse(self, most: int) -> bytes:
        slot = self._load_slot()
        if slot is None:
            return b""
        begin = slot.start + layout.table_bytes(slot.frames)
        return self._map[begin : min(begin + most, slot.end)]


def _window(size: int) -> int:
    """How far records of this size go into an area before they move to the other one."""
    return min(max(_WINDOW_RECORDS * size, _WINDOW_LEAST), WINDOW_MOST)


def _cacheable(count: int, size: int) -> bool:
    # Later frames are the memory of somebody's objects: they change under our hands.
    return count == 1 and size <= _CACHED_BYTES
