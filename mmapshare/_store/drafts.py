"""Blocks on a large value: the draft is held, and the commit writes the pages that were touched.

A block's draft is a private mapping of the newest record. The pages that have become this
process's own are what the block may have changed. What differs there from the newest version v is
written over the record of version v - 1, together with what v had changed since then, which v's
writer has noted (LAG). So each version stays one record in one piece. Where there is no note, or
somebody holds that record, the newest one is copied to a free place first. The note is void (LAG is
0) before any record is written, and made again after the commit, so a writer that is killed leaves
none that is not true.

A draft that was changed all over is stored whole, and the next drafts are copies (see
`_store.held`).
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

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
from .held import Copies, Held, union
from .memory import MemoryStore, undisturbed
from .region import Region
from .touched import Ranges

_RUN: Final = 16


class DraftStore(MemoryStore):
    """What the value store does about drafts of large values. The caller holds the lock."""

    __slots__ = ("_copies", "_draft", "_seen")

    _seen: Any
    """Where the newest version lies, for readers of this process."""

    def __init__(self, region: Region) -> None:
        super().__init__(region)
        self._draft: Any = None
        """The draft of the block that runs, weakly: it is the block's."""
        self._copies = Copies()

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
        if not self._is_large(self.region.load_slot()) or self._copies.is_next():
            return None
        (held,) = undisturbed(self._try_hold)
        if held is None:
            return None
        held.copies = self._copies
        self._draft = weakref.ref(held)
        version, start, end, epoch, _ = held.of
        return (version, held, start, end, epoch, 0, held)

    def _draft_of(self, frames: Sequence[Frame]) -> Held | None:
        """The block's draft with its changes, if that is what these are; else None."""
        held: Held | None = self._draft and self._draft()
        if held is None or held.of.version != self._words[VERSION]:
            return None
        if layout.align(len(frames[0])) != layout.align(len(held[0])):
            return None  # The first one does not fit into its place.
        with memoryview(self._map) as stored:
            return held if held.is_base_of(frames, lambda at, end: stored[at:end]) else None

    def _patches(self, frames: Sequence[Frame]) -> int | None:
        """Commit the block's draft by what it has changed; None where it has to be stored whole."""
        held = self._draft_of(frames)
        if held is None or not held.is_small or len(held.changes) > RUNS_BYTES // _RUN:
            return None
        held.looked_at = None  # It may be committed again, and differently.
        return self._patch(frames, held)

    def _has_place(self, frames: Sequence[Frame]) -> bool:
        """Whether `_patches` needs no room, since it writes over the record before the newest."""
        held = self._draft_of(frames)
        return held is not None and self._lagging(held.of) is not None

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
        slot: Slot = held.of
        changes = held.changes
        start, end = slot.start, slot.end
        size, version, words = end - start, slot.version + 1, self._words
        own = [(first - start, last - start) for first, last in changes]
        lagging = self._lagging(slot)
        words[LAG] = 0
        if lagging is not None:
            place, runs = lagging[0], union(lagging[1], own)
        else:
            place, _ = self._place((slot.version, (), start, end, slot.epoch, 0), size)
            begin, runs = held.later[0][0], own
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
        extents = [(begin, last), *[(one + shift, two + shift) for one, two in held.later]]
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
