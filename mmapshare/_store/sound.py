"""Which version of a file is whole: what is asked after a power cut, and of a copy.

A file's slots have two words more than those in memory: a CRC-32 of the content, and one of the
slot and that. The content of a value is its record; of a log it is all from the begin of its area,
since a delta needs what stands before it.

The writer of version g + 1 touches neither the slot nor the content of g, and g was on the disk,
where the file is durable, before anybody could begin g + 1. So whatever part of the writes since
then has reached the disk, g passes its checks; and if g + 1 does, then the whole of it is there.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Final
from zlib import crc32

from ..errors import CorruptRegionError
from . import format as layout
from .format import (
    ALIGN_BYTES,
    ALLOCATED,
    DURABLE,
    FLAGS,
    HEADER_BYTES,
    INODE,
    LOCK,
    LOG_KIND,
    OLDEST_READABLE,
    SLOT_BYTES,
    SLOTS,
    VERSION,
    Identity,
    Slot,
)

_PIECE: Final = 1 << 20
_PAGE: Final = 4096
_words = struct.Struct("<2Q")

Read = Callable[[int, int], bytes]
"""What stands from one offset up to another."""


def checked_slot(slot: bytes, content: int) -> bytes:
    """A file's slot: that, the CRC-32 of its content, and that of both."""
    raw = slot + content.to_bytes(8, "little")
    return raw + crc32(raw).to_bytes(8, "little")


def newest(read: Read, identity: Identity, durable: bool) -> Slot | None:
    """The slot of the newest version that is whole; None where the share is empty.

    CorruptRegionError where there is none; of a durable file also where a version that somebody
    has seen is not there any more.
    """
    header = read(0, HEADER_BYTES)
    found = [_sound(read, header, identity, place) for place in SLOTS]
    best = max((slot for slot in found if slot is not None), key=lambda s: s.version, default=None)
    (committed,) = struct.unpack_from("<Q", header, 8 * VERSION)
    # An unfinished first commit leaves its slot, and nothing in the other one.
    begun = [struct.unpack_from("<Q", header, place.start)[0] for place in SLOTS]
    lost = durable and (best.version if best else 0) < committed
    if lost or (best is None and begun not in _FIRST):
        raise CorruptRegionError(
            "neither of the two newest versions is whole: the machine lost power, or the file was "
            "copied in mid-commit; with durable=True a commit outlives a power cut"
        )
    return best


_FIRST: Final = ([0, 0], [0, 1])


def _sound(read: Read, header: bytes, identity: Identity, place: slice) -> Slot | None:
    raw = header[place.start : place.start + SLOT_BYTES]
    content, check = _words.unpack_from(header, place.start + SLOT_BYTES)
    (version,) = struct.unpack_from("<Q", raw)
    if not version or SLOTS[version & 1] != place:
        return None
    if check != crc32(raw + content.to_bytes(8, "little")):
        return None
    slot = layout.unpack_slot(raw, version, identity.area_bytes)
    if slot is None:
        return None
    begin = slot.start
    if identity.kind == LOG_KIND:
        begin = HEADER_BYTES + layout.area_of(begin, identity.area_bytes) * identity.area_bytes
    found = 0
    for at in range(begin, slot.end, _PIECE):
        found = crc32(read(at, min(at + _PIECE, slot.end)), found)
    return slot if found == content else None


def make_sound(fd: int, identity: Identity, boot: tuple[int, ...]) -> None:
    """Make a file's header true after a boot, and for a copy; the lock among processes is held.

    Killed in between, it is done again by the next one: BOOT and INODE are written last.
    """

    def read(begin: int, end: int) -> bytes:
        return os.pread(fd, end - begin, begin)

    def write(word: int, *values: int) -> None:
        os.pwrite(fd, struct.pack(f"<{len(values)}Q", *values), 8 * word)

    (flags,) = struct.unpack("<Q", read(8 * FLAGS, 8 * FLAGS + 8))
    (inode,) = struct.unpack("<Q", read(8 * INODE, 8 * INODE + 8))
    here = os.fstat(fd).st_ino
    # A copy may have been made in mid-commit, of whatever was there at that moment.
    best = newest(read, identity, bool(flags & DURABLE) and inode == here)
    for number, place in enumerate(SLOTS):
        if best is None or best.version & 1 != number:
            os.pwrite(fd, bytes(ALIGN_BYTES), place.start)
    starts = [HEADER_BYTES + area * identity.area_bytes for area in (0, 1)]
    if best is not None:
        area = layout.area_of(best.start, identity.area_bytes)
        # What is stored has memory; what comes behind is asked for again.
        starts[area] = max(starts[area], best.end & -_PAGE)
    write(ALLOCATED[0], *starts)
    write(OLDEST_READABLE, best.epoch if best else 0)
    write(VERSION, best.version if best else 0)
    write(LOCK.start, *[0] * (LOCK.stop - LOCK.start))
    write(FLAGS, flags & DURABLE)
    if flags & DURABLE:
        os.fdatasync(fd)
    write(INODE, here, *boot)
