"""The format of a region's bytes, numbers 1 and 2. This docstring is its one description.

All integers are unsigned, 8 bytes, little-endian, 8-byte aligned; all sizes are in bytes.

::

    0                 HEADER_BYTES           HEADER_BYTES + area_bytes
    | header, slots   | area 0               | area 1               |

Header, by words:

==========  =============================================================================
words       meaning, and what protects it
==========  =============================================================================
0 - 6       identity: magic, format, region id (2 words), max_size, area_bytes, kind (0: the
            newest record is the whole value; 1: a log).
            Written once, before anybody else can open the region.
7           CRC-32 of words 0 - 6.
8           VERSION, the commit word: the newest committed version, 0 while empty.
            Storing it *is* the commit. Written by the lock's holder.
9           OLDEST_READABLE: every version from it up to VERSION is still whole. Written by the
            lock's holder before it overwrites or gives back what an older version names.
10          UNLINKED: 1 where `Share.unlink` has taken the region's name away. Only of a region with
            a name, as are:
11          INODE: the number of the file that the region was made in. In another one it is a copy.
            Written by who makes the region, or makes the copy one of its own.
12, 13      BOOT: the id of the machine's boot in which it was made, or made sound. Likewise.
14          FLAGS, of a file: 1: a commit waits for the disk; 2: the disk has refused one.
15          HOLDS: 1 where records may be held (see `_store.holds`). Written by the holder, before
            it commits one that is large enough, and 0 again by who finds none.
16, 17      HOLDER, SINCE: pid of the lock's holder (0: free) and the monotonic clock's
            nanoseconds when it took it. Written by the holder.
            A HOLDER found by the next holder names a process that died holding the lock.
18, 19      CONTENDED, FOUND_DEAD: counters. Written by the holder.
20          LEASE: until when, by the monotonic clock's nanoseconds, somebody may be asleep on the
            low half of VERSION. Written by who goes to sleep; 0 again by who finds it over.
            1 where only BLOCKED asks for attention.
21 - 23     WAITS: half of the id of the region that the holder waits for, 0 if for none; pid and
            descriptor through which that can be reached. Written by the holder.
24          BLOCKED: since when, by the monotonic clock's nanoseconds, somebody may be blocked in
            flock. Written by who blocks and by who was let in; 0 again by who made way.
26, 27      ALLOCATED: up to where area 0 and area 1 have memory. Written by the holder.
28 - 30     LAG: the version whose changes are noted; where the record of the version before it
            begins; how many runs of bytes were changed, plus 2 ** 32 x the CRC-32 of that begin
            and of the runs. These stand behind the record, as pairs of offsets from its begin.
            Written by the holder. They count only while that version is the newest: LAG is 0 again
            before any record is written anywhere.
==========  =============================================================================

Slots: two, of 64 bytes, at byte 256 and 320. Slot ``version & 1`` says where the record is that
VERSION names, so a writer of version g + 1 never touches the slot of version g. It holds:

- version;
- start and end of the record, as offsets from the region's begin;
- epoch: the first version that lies in this area since the writers came to it;
- parts: how many frames there are, plus 2 ** 32 x the CRC-32 of the table (0 without one);
- check: 3 x version + 5 x start + 7 x end + 11 x epoch + 13 x parts, modulo 2 ** 64. An odd factor
  lets no change of a single word pass, nor two words that change places. (A CRC-32 says less
  and takes twice as long to compute from Python.)

Record: what one commit stores, 64-byte aligned, wholly inside one area::

    | table: count x 8, padded to 64 | frame 0 | pad | frame 1 | pad | ... | last frame |

The table of frame lengths is left out where there is one frame. Frames begin 64-byte aligned.

In a log (identity's kind 1) records stand one behind the other, 8-byte aligned, from the begin of
their area to the end that the newest slot names; parts is 1. Where the area's begin was held, the
log begins further behind, and parts is 1 + 2 ** 32 x the pages of 4096 bytes that lie between. Such
a record begins with the words

- check: CRC-32 of the four words that follow and of the manifest;
- version, one more than that of the record before it; the first one's is the area's epoch;
- size of the record, this word and the one before it included;
- values_at: where its values begin, from the record's begin;
- manifest_bytes, plus 2 ** 63 where the manifest is one key, whose value is all the rest;

and goes on with the manifest and the values::

    | head | manifest | pad | value | value | ... |

What the manifest says of the values stands in `_store.manifest`. A value of one frame is its bytes;
of several each begins 64-byte aligned. Of a value that was patched there stand one behind the
other, without padding: the new first frame, where it is another one; and the bytes of each run that
was changed in the later frames, in order. All else of it is where the records before say. A
snapshot has every value whole. What a patch brings, and what it stands for, is never changed.

Format 2 is that of files, which outlive the machine. Its slots have two words more, for which see
`_store.sound`; all else is the same.

The payload has no checksum else: in memory it costs seven times the copy, and the version already
says that it is whole.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple
from zlib import crc32

from .._lock import LOCK_WORDS
from ..errors import CorruptRegionError

FORMAT: Final = 1
FILE_FORMAT: Final = 2
MAGIC: Final = int.from_bytes(b"MMAPSHR\x00", "little")
HEADER_BYTES: Final = 4096
ALIGN_BYTES: Final = 64
IDENTITY_BYTES: Final = 64
VALUE_KIND: Final = 0
LOG_KIND: Final = 1
CONTENTS: Final = ("Share", "SharedDict")
"""What has a region of either kind."""
SLOT_BYTES: Final = 48
RECORD_BYTES: Final = 40
"""Size of the head of a record in a log."""
ONE_KEY: Final = 1 << 63
"""Marks a record that sets one key."""
SLOTS: Final = (slice(256, 256 + SLOT_BYTES), slice(320, 320 + SLOT_BYTES))
"""Where the slots of even and of odd versions stand."""

LOCK: Final = LOCK_WORDS
"""The header's words that are the lock's own."""

# Indices of header words.
VERSION: Final = 8
OLDEST_READABLE: Final = 9
UNLINKED: Final = 10
INODE: Final = 11
BOOT: Final = (12, 13)
FLAGS: Final = 14
DURABLE, POISONED = 1, 2
"""Its bits."""
HOLDS: Final = 15
ALLOCATED: Final = (26, 27)
LAG: Final = 28
LAG_START: Final = 29
LAG_RUNS: Final = 30
RUNS_BYTES: Final = 64 << 10
"""What is kept free for runs, behind each record that can be held."""

_identity = struct.Struct("<QQ16sQQQ")
_slot = struct.Struct("<6Q")
_record = struct.Struct("<5Q")
_word = struct.Struct("<Q")
_WORD_MASK: Final = 2**64 - 1

pack_slot_words = _slot.pack
unpack_slot_words = _slot.unpack
"""The six words of a slot, for the places that are too hot to call `pack_slot` and the like."""
pack_record_words = struct.Struct("<4Q").pack
unpack_record_from = _record.unpack_from
pack_word = _word.pack

assert _identity.size + _word.size == IDENTITY_BYTES <= VERSION * 8
assert _record.size == RECORD_BYTES
assert _slot.size == SLOT_BYTES <= ALIGN_BYTES
assert FLAGS < HOLDS < LOCK_WORDS.start < LOCK_WORDS.stop <= ALLOCATED[0]
assert max(ALLOCATED) < LAG < LAG_RUNS
assert SLOTS[0].start >= (LAG_RUNS + 1) * 8
assert SLOTS[0].start + ALIGN_BYTES == SLOTS[1].start <= HEADER_BYTES - ALIGN_BYTES
assert HEADER_BYTES % ALIGN_BYTES == 0


class Identity(NamedTuple):
    """The words that are written once: which region this is and how it is laid out."""

    region_id: bytes
    max_size: int
    area_bytes: int
    kind: int
    format: int = FORMAT

    def pack(self) -> bytes:
        """The identity's 64 bytes, check included."""
        raw = _identity.pack(MAGIC, self.format, *self[:-1])
        return raw + _word.pack(crc32(raw))

    @classmethod
    def unpack(cls, raw: bytes) -> Identity:
        """Check and read the first 64 bytes of a region; CorruptRegionError where they are none."""
        body, check = raw[: _identity.size], raw[_identity.size : IDENTITY_BYTES]
        if _word.pack(crc32(body)) != check:
            raise CorruptRegionError("this is no mmapshare region, or its header was overwritten")
        magic, fmt, *rest = _identity.unpack(body)
        if magic != MAGIC or fmt not in {FORMAT, FILE_FORMAT}:
            raise CorruptRegionError(
                f"the region has format {fmt}, this mmapshare reads formats {FORMAT} and "
                f"{FILE_FORMAT}; let all processes use one version of mmapshare"
            )
        region_id, max_size, area_bytes, kind = rest
        return cls(region_id, max_size, area_bytes, kind, fmt)

    @property
    def region_bytes(self) -> int:
        return HEADER_BYTES + 2 * self.area_bytes


class Slot(NamedTuple):
    """A checked slot; see the module's docstring for the fields."""

    version: int
    start: int
    end: int
    epoch: int
    parts: int

    @property
    def frames(self) -> int:
        """How many frames the record has."""
        return self.parts & 0xFFFFFFFF


def pack_record(version: int, size_bytes: int, values_at: int, kind: int, manifest: bytes) -> bytes:
    """The head of a record in a log and its manifest."""
    body = pack_record_words(version, size_bytes, values_at, kind) + manifest
    return pack_word(crc32(body)) + body


def align(offset: int) -> int:
    """The next multiple of 64 at or above ``offset``."""
    return (offset + 63) & -64


def pack_slot(version: int, start: int, end: int, epoch: int, parts: int) -> bytes:
    """A slot, its check included."""
    return _slot.pack(version, start, end, epoch, parts, _check(version, start, end, epoch, parts))


def _check(version: int, start: int, end: int, epoch: int, parts: int) -> int:
    return (3 * version + 5 * start + 7 * end + 11 * epoch + 13 * parts) & _WORD_MASK


def unpack_slot(raw: bytes, version: int, area_bytes: int) -> Slot | None:
    """Read a slot; None unless it is whole, names ``version`` and stays inside one area."""
    *fields, check = _slot.unpack(raw)
    slot = Slot._make(fields)
    if check != _check(*slot) or slot.version != version:
        return None
    first = HEADER_BYTES + area_of(slot.start, area_bytes) * area_bytes
    inside = first <= slot.start <= slot.end <= first + area_bytes
    return slot if inside and slot.frames else None


def area_of(offset: int, area_bytes: int) -> int:
    """Which area, 0 or 1, an offset lies in."""
    return 1 if offset >= HEADER_BYTES + area_bytes else 0


def pack_table(lengths: list[int]) -> tuple[bytes, int]:
    """The table of frame lengths, padded to the alignment, and the slot's ``parts``."""
    raw = struct.pack(f"<{len(lengths)}Q", *lengths)
    table = raw + bytes(align(len(raw)) - len(raw))
    return table, len(lengths) | crc32(table) << 32


def table_bytes(count: int) -> int:
    """Size of the table for ``count`` frames; a single frame needs none."""
    return 0 if count == 1 else align(8 * count)


def frame_extents(slot: Slot, table: bytes) -> list[tuple[int, int]]:
    """Where each frame begins and ends in the region; CorruptRegionError where that cannot be."""
    if slot.frames == 1:
        return [(slot.start, slot.end)]
    if crc32(table) != slot.parts >> 32:
        raise CorruptRegionError(f"the frame table of version {slot.version} fails its check")
    extents = []
    begin = slot.start + len(table)
    for length in struct.unpack_from(f"<{slot.frames}Q", table):
        extents.append((begin, begin + length))
        begin = align(begin + length)
    if extents[-1][1] != slot.end:
        raise CorruptRegionError(f"the frames of version {slot.version} do not fill its record")
    return extents
