"""A region in a file: what it holds outlives the machine's end, and if it is durable any end.

A commit writes its record, then its slot with a check over both, then waits for the disk, and only
then stores the version word: what anybody has seen is on the disk, at the price of one barrier.
After the machine has started again the first who opens the file looks which version is whole (see
`_store.sound`). The disk that refuses a barrier has perhaps dropped what it could not write, and
says so once: from then on nothing is committed to that file any more.
"""

from __future__ import annotations

import os
from typing import Any, Final
from zlib import crc32

from ..errors import DurabilityError
from . import format as layout
from .areas import in_order
from .format import ALIGN_BYTES, DURABLE, FLAGS, LOG_KIND, POISONED, SLOT_BYTES, SLOTS, VERSION
from .region import ORDERED_STORES, Region
from .segment import Segment
from .sound import checked_slot

_COPIED_MOST: Final = 1 << 14
"""Up to so many bytes a copy takes less time than a view."""


class FileRegion(Region):
    """A region whose commits can be checked, and wait for the disk where the file is durable."""

    __slots__ = ("_is_log",)

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self._is_log = self.identity.kind == LOG_KIND
        if self.words[FLAGS] & DURABLE:
            self._spare_times()

    def publish(self, version: int, start: int, end: int, epoch: int, parts: int = 1) -> None:
        words = self.words
        flags = words[FLAGS]
        if flags & POISONED:
            raise DurabilityError(
                "a write to this share's file has failed: what the disk holds is not known, and "
                "nothing more is written. Copy the value to another file"
            )
        begin, before = start, 0
        if self._is_log and epoch != version:
            begin, before = self._content(SLOTS[1 - (version & 1)])
        if end - begin <= _COPIED_MOST:
            content = crc32(self.map[begin:end], before)
        else:
            with memoryview(self.map) as view, view[begin:end] as part:
                content = crc32(part, before)
        if not ORDERED_STORES:
            in_order()  # Who sees this slot change sees the version before, too.
        place = SLOTS[version & 1].start
        self.map[place : place + ALIGN_BYTES] = checked_slot(
            layout.pack_slot(version, start, end, epoch, parts), content
        )
        if flags & DURABLE:
            self.barrier()
        if not ORDERED_STORES:
            in_order()
        words[VERSION] = version  # The commit, for who looks.

    def _content(self, place: slice) -> tuple[int, int]:
        """Where the record of a slot ends, and its content's check."""
        raw = self.map[place.start : place.start + SLOT_BYTES + 8]
        return int.from_bytes(raw[16:24], "little"), int.from_bytes(raw[SLOT_BYTES:], "little")

    def barrier(self) -> None:
        """Wait until the disk has all that was written; DurabilityError where it refuses."""
        fd = self.segment.fd
        try:
            os.fdatasync(fd)
        except OSError as err:
            if err.errno is None:
                raise  # A signal handler's own, perhaps a TimeoutError: no word of the disk's.
            self.words[FLAGS] |= POISONED
            raise DurabilityError(
                f"the disk did not take a commit ({err.strerror}): it is not there, and nothing "
                "more is written to this share's file. Copy the value to another one"
            ) from err

    def be_durable(self) -> None:
        """From now on commits wait for the disk, those of all processes."""
        if not self.words[FLAGS] & DURABLE:
            os.fsync(self.segment.fd)
            self.words[FLAGS] |= DURABLE
            self.barrier()
        self._spare_times()

    def _spare_times(self) -> None:
        lock: Any = self.segment.process_lock  # One of a file with a name.
        lock.spare_times()
