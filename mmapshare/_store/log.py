"""A log: commits that are added one behind the other in a region. It knows bytes and positions.

The first record in an area is a *snapshot*, of everything; each further one is a *delta*, of what
changed. A writer adds deltas until it finds that too much of them is dead, then writes a snapshot
into the other area and goes on there. What a record says stands in its *manifest*; the *values*
that it brings, or what blocks have changed of large ones (see `_store.patched`), stand behind that.

Readers keep their position. Up to the newest record's end nothing in an area changes while
OLDEST_READABLE lets its epoch stand (see `_store.format`), so they read what was added since, and
the bytes of any value that they know of, without a lock: they copy, and ask afterwards whether
OLDEST_READABLE has passed them.

Where values may be held (HOLDS) a snapshot goes to the first place that is free, and ends all that
was before it; deltas go on up to what is held there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from zlib import crc32

from .._bytes import Frame
from .._closed import CLOSED
from ..errors import CorruptRegionError, RegionFullError
from . import format as layout
from .areas import in_order
from .base import too_large
from .format import (
    FORMAT,
    HEADER_BYTES,
    HOLDS,
    OLDEST_READABLE,
    ONE_KEY,
    RECORD_BYTES,
    SLOTS,
    VERSION,
    pack_record_words,
    pack_word,
    unpack_record_from,
    unpack_slot_words,
)
from .region import Region

_KEEP_BYTES: Final = 256 << 10
"""Memory that an area keeps though nothing lives there."""
_PIECE_BYTES: Final = 256 << 10
"""Up to here a record is put together before it is stored."""


Position = tuple[int, int, int, int, int, int]
"""Up to where a log was read, as a plain tuple, since one is made for each commit:

- a committed version;
- its epoch, which is the version of the area's snapshot, and where that snapshot begins;
- where the version's record ends;
- up to where the next record may reach without a look at the area's memory;
- parts, which says where in its area the snapshot begins (see `_store.format`).
"""
V: Final = 0
EPOCH: Final = 1
BASE: Final = 2
END: Final = 3
EASY: Final = 4
PARTS: Final = 5

BEGIN: Final[Position] = (0, 0, 0, 0, 0, 1)

Record = tuple[bytes, int, int, bool]
"""A record's manifest, where its values begin and end, and whether the manifest is one key."""
_SMALL_BYTES: Final = 4096
_HEAD: Final = RECORD_BYTES
_WALK_BYTES: Final = 1 << 20


def _damaged(version: int) -> CorruptRegionError:
    return CorruptRegionError(f"the record of version {version} fails its check")


class Log:
    """The snapshot in a region, and the deltas since.

    `records` takes no lock and is usable only if `stands` says so afterwards.
    `append` and `rewrite` want the lock. Frames are flat bytes-like objects.
    """

    __slots__ = ("_map", "_publish", "_words", "may_hold", "region")

    def __init__(self, region: Region) -> None:
        self.region = region
        self._map = region.map
        self._words = region.words
        self._publish = region.publish
        self.may_hold = region.identity.format == FORMAT
        """A file's check goes from the area's begin: there every snapshot has to begin."""

    def close(self) -> None:
        """Let go of the memory."""
        self._map = self._words = CLOSED

    def stands(self, position: Position) -> bool:
        """Whether all that was read of the position's area until now was what had been written."""
        return bool(self._words[OLDEST_READABLE] <= position[EPOCH])

    def newest(self, known: int = 0) -> Position | None:
        """The position behind the newest record; None where a writer was faster.

        ``known``: a version that this process has seen.
        """
        slot = self.region.load_slot(known)
        if slot is None:
            return None if self._words[VERSION] else BEGIN
        areas, parts = self.region.areas, slot.parts
        area = areas.of(slot.start)
        base = areas.start(area) + (parts >> 32) * HEADER_BYTES
        easy = 0 if self._words[HOLDS] else areas.easy(area)
        return (slot.version, slot.epoch, base, slot.end, easy, parts)

    def records(self, begin: int, version: int, newest: Position) -> list[Record] | None:
        """What stands from ``begin``, where the record of ``version`` is, up to a position.

        None where a writer was faster. Nothing is returned that was not committed there.
        """
        found: list[Record] = []
        last, final = newest[V], newest[END]
        while version <= last:
            # A good piece at a time; what does not end in it begins the next one.
            raw = self._map[begin : min(begin + _WALK_BYTES, final)]
            if not self.stands(newest):
                return None
            at, most = 0, final - begin
            while version <= last and at + _HEAD <= len(raw):
                check, number, size, values_at, kind = unpack_record_from(raw, at)
                manifest_end = at + _HEAD + (kind & ~ONE_KEY)
                if number != version or not manifest_end <= at + values_at <= at + size <= most:
                    raise _damaged(version)
                if manifest_end > len(raw):
                    break
                if crc32(raw[at + 8 : manifest_end]) != check:
                    raise _damaged(version)
                end = begin + at + size
                found.append(
                    (raw[at + _HEAD : manifest_end], begin + at + values_at, end, kind >= ONE_KEY)
                )
                at += size + 7 & -8
                version += 1
            if at == 0:  # A manifest that is larger than a piece.
                record = self._large_record(begin, version, newest)
                if record is None:
                    return None
                found.append(record)
                at = record[2] - begin + 7 & -8
                version += 1
            begin += at
        return found

    def _large_record(self, begin: int, version: int, newest: Position) -> Record | None:
        raw = self._map[begin : begin + _HEAD]
        if self.stands(newest) and len(raw) == _HEAD:
            manifest_end = _HEAD + (unpack_record_from(raw)[4] & ~ONE_KEY)
            raw = self._map[begin : begin + manifest_end]
        if not self.stands(newest):
            return None
        check, number, size, values_at, kind = unpack_record_from(raw.ljust(_HEAD))
        if (
            number != version
            or not len(raw) <= values_at <= size <= newest[END] - begin
            or len(raw) != _HEAD + (kind & ~ONE_KEY)
            or crc32(raw[8:]) != check
        ):
            raise _damaged(version)
        return raw[_HEAD:], begin + values_at, begin + size, kind >= ONE_KEY

    def next_key(self, position: Position) -> tuple[bytes, int, Position] | None:
        """The one record behind ``position``, if it is small and sets one key; None else.

        The key's bytes, where its value begins, and the new position. What is found here is
        found by `newest` and `records` too; this is the way that is taken all the time.
        """
        version, epoch, base, end, easy, parts = position
        version += 1
        slot = unpack_slot_words(self._map[SLOTS[version & 1]])
        begin = end + 7 & -8
        end = slot[2]
        if slot[:2] != (version, begin) or slot[3] != epoch or not 0 < end - begin < _SMALL_BYTES:
            return None
        if slot[5] != 3 * version + 5 * begin + 7 * end + 11 * epoch + 13 * parts:
            return None
        raw = self._map[begin:end]
        if self._words[OLDEST_READABLE] > epoch or self._words[VERSION] != version:
            return None
        check, number, size, at, kind = unpack_record_from(raw)
        if number != version or size != end - begin or at - _HEAD | ONE_KEY != kind:
            return None
        if crc32(raw[8:at]) != check:
            return None
        return raw[_HEAD:at], begin + at, (version, epoch, base, end, easy, parts)

    # --- Writing: the caller holds the lock ------------------------------------------------

    def append_one(self, key: bytes, value: Frame, position: Position) -> Position | None:
        """Commit a delta that sets one key; None, with nothing done, where it has no easy place."""
        version, epoch, base, end, easy, parts = position
        version += 1
        start = end + 7 & -8
        at = _HEAD + len(key)
        size = at + len(value)
        end = start + size
        if end > easy or size > _PIECE_BYTES:
            return None
        body = pack_record_words(version, size, at, len(key) | ONE_KEY) + key
        self._map[start:end] = pack_word(crc32(body)) + body + value
        self._publish(version, start, end, epoch, parts)
        return version, epoch, base, end, easy, parts

    def append(
        self,
        manifest: bytes,
        values: Sequence[Frame],
        aligned: bool,
        position: Position,
        large: bool = False,
    ) -> Position | None:
        """Commit a delta behind ``position``, the newest; None, with nothing done, if it is full.

        ``aligned``: the values begin at a multiple of 64. ``large``: one of them may be held.
        """
        version, epoch, base, end, easy, parts = position
        version += 1
        start = end + 7 & -8
        values_at = RECORD_BYTES + len(manifest)
        if aligned:
            values_at = layout.align(start + values_at) - start
        size = values_at + sum(map(len, values))
        end = start + size
        if end > easy:
            easy = self._room(position, end)
            if end > easy:
                return None
        self._put(start, version, manifest, values_at, size, values)
        if large:
            self._words[HOLDS] = 1
        self._publish(version, start, end, epoch, parts)
        return version, epoch, base, end, easy, parts

    def _room(self, position: Position, end: int) -> int:
        """Up to where deltas may go behind ``position``; up to ``end`` if that can be."""
        areas = self.region.areas
        easy = areas.room(position[BASE], end, position[END])
        if self._words[HOLDS]:
            self._words[OLDEST_READABLE] = position[EPOCH]  # Before anybody is asked for holds.
            in_order()
            easy = areas.free_until(position[END], easy)
        return easy

    def rewrite(
        self,
        manifest: bytes,
        values: Iterable[Frame],
        values_bytes: int,
        position: Position,
        large: bool = False,
    ) -> Position:
        """Commit a snapshot, in the other area, as the version after ``position``.

        The values begin at a multiple of 64. ``large``: one of them may be held. What the area
        before it has far above the need is given back.
        """
        areas, words, version = self.region.areas, self._words, position[V] + 1
        values_at = layout.align(RECORD_BYTES + len(manifest))
        size = values_at + values_bytes
        held, parts = self.may_hold and words[HOLDS], 1
        if held:
            _, epoch, base, last, *_ = position
            start = areas.free_place(size, epoch, base, last, size + _KEEP_BYTES)
            parts += (start - areas.start(areas.of(start))) // HEADER_BYTES << 32
        elif position[V]:
            # What the other area says of versions before this epoch ends here.
            start = areas.turn(position[BASE], position[EPOCH])
        else:
            start = areas.start(0)
        end = start + size
        easy = areas.room(start, end)
        if end > easy:
            raise self.full(size)
        self._put(start, version, manifest, values_at, size, values)
        if large:
            words[HOLDS] = 1
        here, keep = areas.of(start), size + _KEEP_BYTES
        if not held:  # Before anybody reads there up to where it has memory.
            areas.trim(here, keep, keep + size + _KEEP_BYTES, None)
            easy = min(easy, areas.easy(here))
        self._publish(version, start, end, version, parts)
        if held:
            words[OLDEST_READABLE] = version
            in_order()
            areas.trim_past_holds(_KEEP_BYTES, version, (start, end + _KEEP_BYTES))
            if not large and areas.is_free_of_holds():
                words[HOLDS] = 0
            easy = areas.free_until(end, areas.allocated(here))
        else:
            areas.trim(1 - here, _KEEP_BYTES, 2 * _KEEP_BYTES, version)  # Who reads comes over.
        return version, version, start, end, easy, parts

    def _put(
        self,
        start: int,
        version: int,
        manifest: bytes,
        values_at: int,
        size: int,
        values: Iterable[Frame],
    ) -> None:
        head = layout.pack_record(version, size, values_at, len(manifest), manifest)
        gap = bytes(values_at - RECORD_BYTES - len(manifest))
        if size <= _PIECE_BYTES:
            self._map[start : start + size] = b"".join((head, gap, *values))
            return
        at = start + values_at
        self._map[start:at] = head + gap
        for value in values:
            self._map[at : at + len(value)] = value
            at += len(value)

    def has_room(self, position: Position, size: int) -> bool:
        """Whether a delta of this size finds memory behind ``position``; it has it from then on."""
        start = layout.align(position[END])
        end = layout.align(start + _HEAD + size)
        return end <= self._room(position, end)

    def full(self, size: int) -> RegionFullError:
        what = f"everything together, keys included, takes {size:,} bytes"
        has = f"an area has {self.region.areas.bytes:,} bytes"
        return too_large(f"{what}, {has}", size, self.region.identity.max_size)

    def used_bytes(self) -> int:
        """Bytes that the snapshot and the deltas since take."""
        newest = self.newest()
        return 0 if newest is None else newest[END] - newest[BASE]
