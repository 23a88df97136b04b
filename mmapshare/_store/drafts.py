"""Blocks on a large value: the draft is held, and the commit writes the pages that were touched.

A block's draft is a private mapping of the newest record. The pages that have become this
process's own are what the block may have changed. What differs there from the newest version v is
written over the record of version v - 1, together with what v had changed since then, which v's
writer has noted (LAG). So each version stays one record in one piece. Where there is no note, or
somebody holds that record, the newest one is copied to a free place first. The note is void (LAG is
0) before any record is written, and made again after the commit, so a writer that is killed leaves
none that is not true.

A draft that was changed all over is stored whole, and the next drafts are copies: to make each page
this process's own costs more than that. Now and then it is tried again.
"""

from __future__ import annotations

import mmap
import struct
import weakref
from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

import attrs

from .._bytes import Frame
from . import format as layout
from . import holds
from .areas import in_order
from .base import Base
from .format import (
    DURABLE,
    FLAGS,
    LAG,
    LAG_RUNS,
    LAG_START,
    OLDEST_READABLE,
    RUNS_BYTES,
    VERSION,
    Slot,
)
from .memory import MemoryStore, undisturbed
from .region import Region
from .touched import Ranges, touched

_WHOLE_PART: Final = 4
"""From this part of it on a changed record is stored whole."""
_COPIES_LEAST, _COPIES_MOST = 8, 128
"""So many drafts in a row are copies then; twice as many each time that it was in vain."""
_COMPARED_BYTES: Final = 256 << 10
_RUN: Final = 16

Extents = Sequence[tuple[int, int]]


@attrs.define(eq=False)
class Held:
    """The record of one version, mapped privately; unchanged for as long as anything uses it."""

    slot: Slot
    extents: Extents
    frames: list[Frame]
    mapping: mmap.mmap
    at: int
    """The offset in the region at which the mapping begins."""
    looked_at: Any = None
    """The frames of a draft for which ``changes`` say what is not as stored."""
    changes: Ranges = attrs.field(factory=list)

    @classmethod
    def of(cls, slot: Slot, extents: Extents, first: bytes, mapping: mmap.mmap, at: int) -> Held:
        """``first``: the first frame, which is small and copied."""
        with memoryview(mapping) as view:
            later = [view[begin - at : end - at] for begin, end in extents[1:]]
        return cls(slot, extents, [first, *later], mapping, at)

    def is_base_of(self, frames: Sequence[Frame]) -> bool:
        """Whether the later frames lie where these lie, and the first one fits into its place."""
        if len(frames) != len(self.frames):
            return False
        if layout.align(len(frames[0])) != layout.align(len(self.frames[0])):
            return False
        base = holds.address_of(self.mapping) - self.at
        return all(
            len(frame) == end - begin and _address(frame) == base + begin
            for frame, (begin, end) in zip(frames[1:], self.extents[1:], strict=True)
        )

    def look(self, stored: memoryview) -> Ranges | None:
        """Where it differs from what is stored, as offsets in the region; None if nobody knows."""
        begin, end = self.extents[1][0], self.extents[-1][1]
        first = begin - begin % holds.PAGE
        found = touched(holds.address_of(self.mapping) + first - self.at, end - first)
        if found is None:
            return None
        changes: Ranges = []
        with memoryview(self.mapping) as own:
            for start, stop in found:
                last = min(first + stop, end)
                for at in range(max(first + start, begin), last, _COMPARED_BYTES):
                    until = min(at + _COMPARED_BYTES, last)
                    # A bytearray is compared by memcmp, a memoryview item by item.
                    if bytearray(own[at - self.at : until - self.at]) != stored[at:until]:
                        changes.append((at, until))
        return changes


def _address(frame: Any) -> int:
    """Where a frame lies; 0, which is nowhere, for one that cannot be written to."""
    return 0 if memoryview(frame).readonly else holds.address_of(frame)


class DraftStore(MemoryStore):
    """What the value store does about drafts of large values. The caller holds the lock."""

    __slots__ = ("_copies_left", "_copies_next", "_draft", "_seen")

    _seen: Any
    """Where the newest version lies, for readers of this process."""

    def __init__(self, region: Region) -> None:
        super().__init__(region)
        self._draft: Any = None
        """The draft of the block that runs, weakly: it is the block's."""
        self._copies_left = 0
        self._copies_next = _COPIES_LEAST

    def _try_hold(self) -> tuple[Held | None] | None:
        raise NotImplementedError

    def _place(self, base: Any, size: int) -> tuple[int, int]:
        raise NotImplementedError

    def _is_large(self, slot: Slot | None) -> bool:
        """Whether a record can be held; a durable file's are not."""
        return (
            slot is not None
            and slot.frames > 1
            and slot.end - slot.start >= holds.LARGE_BYTES
            and not self._words[FLAGS] & DURABLE
        )

    def _begin_draft(self) -> Base | None:
        """The newest commit, held; None where it has to be copied."""
        if not self._is_large(self.region.load_slot()):
            return None
        if self._copies_left:
            self._copies_left -= 1
            return None
        (held,) = undisturbed(self._try_hold)
        if held is None:
            return None
        self._draft = weakref.ref(held)
        version, start, end, epoch, _ = held.slot
        return (version, held.frames, start, end, epoch, 0, held)

    def _draft_of(self, frames: Sequence[Frame]) -> Held | None:
        """The block's draft with its changes, if that is what these are; else None."""
        held: Held | None = self._draft and self._draft()
        if held is None or held.slot.version != self._words[VERSION]:
            return None
        if held.looked_at is not frames:
            if not held.is_base_of(frames):
                return None
            with memoryview(self._map) as stored:
                changes = held.look(stored)
            if changes is None:
                return None
            held.looked_at, held.changes = frames, changes
        return held

    def _is_worth_a_patch(self, held: Held) -> bool:
        """Whether few enough pages were touched; else the next drafts are copies."""
        slot, changes = held.slot, held.changes
        if sum(end - begin for begin, end in changes) > (slot.end - slot.start) // _WHOLE_PART:
            self._copies_left = self._copies_next
            self._copies_next = min(2 * self._copies_next, _COPIES_MOST)
            return False
        self._copies_next = _COPIES_LEAST
        return len(changes) <= RUNS_BYTES // _RUN

    def _patches(self, frames: Sequence[Frame]) -> int | None:
        """Commit the block's draft by what it has changed; None where it has to be stored whole."""
        held = self._draft_of(frames)
        if held is None or not self._is_worth_a_patch(held):
            return None
        held.looked_at = None  # It may be committed again, and differently.
        return self._patch(frames, held)

    def _has_place(self, frames: Sequence[Frame]) -> bool:
        """Whether `_patches` needs no room, since it writes over the record before the newest."""
        held = self._draft_of(frames)
        return held is not None and self._lagging(held.slot) is not None

    def _lagging(self, slot: Slot) -> tuple[int, Ranges] | None:
        """The record before the newest, and in what it differs; None where that is not to be had.

        It may be written over then: no older version is readable any more, and nobody holds it.
        """
        words = self._words
        start, size, count = words[LAG_START], slot.end - slot.start, words[LAG_RUNS] & 0xFFFFFFFF
        if words[LAG] != slot.version or count > RUNS_BYTES // _RUN:
            return None
        at = layout.align(slot.end)
        raw = self._map[at : at + _RUN * count]
        if _check(start, raw) != words[LAG_RUNS] >> 32:
            return None
        words[OLDEST_READABLE] = slot.version  # Before anybody is asked for holds.
        in_order()
        if holds.held(self.region.segment.fd, start, start + size) is not None:
            return None
        flat = struct.unpack(f"<{2 * count}Q", raw)
        return start, list(zip(flat[::2], flat[1::2], strict=True))

    def _patch(self, frames: Sequence[Frame], held: Held) -> int:
        """Commit a draft by what it has changed."""
        slot, changes = held.slot, held.changes
        start, end = slot.start, slot.end
        size, version, words = end - start, slot.version + 1, self._words
        own = [(first - start, last - start) for first, last in changes]
        lagging = self._lagging(slot)
        words[LAG] = 0
        if lagging is not None:
            place, runs = lagging[0], _union(lagging[1], own)
        else:
            place, _ = self._place((slot.version, (), start, end, slot.epoch, 0), size)
            begin, runs = held.extents[1][0], own
            with memoryview(self._map) as stored:
                self._map[place + begin - start : place + size] = stored[begin:end]
        with memoryview(held.mapping) as draft:
            base = start - held.at
            for first, last in runs:
                self._map[place + first : place + last] = draft[base + first : base + last]
        table, parts = layout.pack_table([len(frame) for frame in frames])
        begin = place + len(table)
        last = begin + len(frames[0])
        self._map[place:last] = table + frames[0]
        self._publish(version, place, place + size, version, parts)
        if lagging is None:
            spared = ((start, end + RUNS_BYTES), (place, place + size + RUNS_BYTES))
            self.region.areas.trim_past_holds(size, version, *spared)
        shift = place - start
        extents = [(begin, last), *[(one + shift, two + shift) for one, two in held.extents[1:]]]
        self._seen = (version, extents, (place, place + size, version, 0))
        self._note_lag(version, start, place + size, own)
        return version

    def _note_lag(self, version: int, before: int, end: int, runs: Ranges) -> None:
        """Note, behind the newest record, in what it differs from the one before it."""
        raw = struct.pack(f"<{2 * len(runs)}Q", *[offset for run in runs for offset in run])
        at, words = layout.align(end), self._words
        self._map[at : at + len(raw)] = raw
        words[LAG_START], words[LAG_RUNS] = before, len(runs) | _check(before, raw) << 32
        words[LAG] = version


def _check(before: int, raw: bytes) -> int:
    return crc32(raw, crc32(layout.pack_word(before)))


def _union(some: Ranges, others: Ranges) -> Ranges:
    """All of the ranges, in order, none of them overlapping."""
    together: Ranges = []
    for run in sorted(some + others):
        if together and run[0] <= together[-1][1]:
            first, last = together.pop()
            together.append((first, max(last, run[1])))
        else:
            together.append(run)
    return together
