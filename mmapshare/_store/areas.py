"""The areas: where in a region records go, how their memory grows and shrinks.

A region has two. Records are laid one behind the other in one of them; when the next does not fit,
writing *turns* to the begin of the other one, whose versions end with that: OLDEST_READABLE says so
to who still reads there. What nothing lives in any more is given back.

Where records may be held (HOLDS, see `_store.holds`) any place may be taken for as long as somebody
likes. Then only the newest version stays readable while the next one is written, and that goes to
the first place that is free. Nobody waits for a hold.
"""

from __future__ import annotations

from _thread import allocate_lock
from typing import Final

from .._closed import CLOSED
from ..errors import RegionFullError
from . import holds
from .format import ALLOCATED, HEADER_BYTES, OLDEST_READABLE, Identity
from .segment import Segment

_TRIMMED_EACH: Final = 16
"""In so many versions memory is given back once while something is held."""


def in_order() -> None:
    """What was loaded and stored before comes before what is loaded and stored from now on.

    Nothing from before comes later than letting go of a lock, and nothing from after sooner than
    taking it then. (An x86-64 keeps stores in order in any case.)
    """
    lock = allocate_lock()
    lock.acquire()
    lock.release()
    lock.acquire()


class Areas:
    """The two areas of one region; all but `start` and `of` want the lock."""

    __slots__ = ("_max_size", "_segment", "_words", "bytes")

    def __init__(self, segment: Segment, words: memoryview, identity: Identity) -> None:
        self._segment = segment
        self._words = words
        self._max_size = identity.max_size
        self.bytes = identity.area_bytes
        """Size of one area."""

    def close(self) -> None:
        """Let go of the memory."""
        self._words = CLOSED

    def start(self, area: int) -> int:
        """Where an area begins."""
        return HEADER_BYTES + area * self.bytes

    def of(self, offset: int) -> int:
        """Which area, 0 or 1, an offset lies in."""
        return 1 if offset >= HEADER_BYTES + self.bytes else 0

    def turn(self, offset: int, epoch: int) -> int:
        """Leave the area of ``offset``, whose versions from ``epoch`` on stay whole; those of the
        other one end here. Where that begins."""
        self._words[OLDEST_READABLE] = epoch
        in_order()
        return self.start(1 - self.of(offset))

    def free_place(self, size: int, newest: int, begin: int, end: int, wish: int = 0) -> int:
        """Where so many bytes are free, with ``wish`` more if possible; RegionFullError if nowhere.

        ``newest`` is the version, or epoch, that stays whole, in [begin, end). Older ones end here.
        """
        self._words[OLDEST_READABLE] = newest  # Before anybody is asked for holds.
        in_order()
        first = 1 - self.of(begin) if newest else 0
        for wanted in (size + wish, size) if wish else (size,):
            for area in (first, 1 - first):
                start, limit = self.start(area), self.start(area) + self.bytes
                while start + wanted <= limit:
                    taken: tuple[int, int] | None = (begin, end)
                    if not (newest and start < end and begin < start + wanted):
                        taken = holds.held(self._segment.fd, start, start + wanted)
                    if taken is None:
                        return start
                    start = -(-max(taken[1], start + 1) // holds.PAGE) * holds.PAGE
        raise self._full_of_holds(size)

    def free_until(self, start: int, end: int) -> int:
        """Up to where nothing is held in [start, end)."""
        while (found := holds.held(self._segment.fd, start, end)) is not None:
            end = max(found[0], start)
        return end

    def is_free_of_holds(self) -> bool:
        """Whether nothing is held; for good, if nothing large is readable any more."""
        segment = self._segment
        return holds.held(segment.fd, HEADER_BYTES, segment.size_bytes) is None

    def _full_of_holds(self, size: int) -> RegionFullError:
        fd = self._segment.fd
        held, by = holds.held_bytes(fd, self._segment.size_bytes), holds.holders(fd)
        return RegionFullError(
            f"{size:,} bytes find no room beside what is stored and the {held:,} bytes that "
            f"{by or 'some'} process{' holds' if by == 1 else 'es hold'}, which got them with "
            "copy=False and use them. Drop such values earlier, or make it with a larger "
            "max_size. What is stored is as it was",
            needed_bytes=size,
            max_size_bytes=self._max_size,
            held_bytes=held,
            held_by=by,
        )

    def room(self, start: int, end: int, stored: int = 0) -> int:
        """Up to where the area of ``start`` has memory; more if ``end`` asks for that and may.

        RegionFullError where the machine has none. ``stored``: up to where the area has something
        that stays; by default ``start``.
        """
        area = self.of(start)
        has, limit = self.allocated(area), self.start(area) + self.bytes
        if has < end <= limit:
            # Memory first, then the word: a kill between the two allocates twice, never too little.
            until = self._segment.allocate(has, end, stored or start)
            self._words[ALLOCATED[area]] = has = min(until, limit)
        return has

    def allocated(self, area: int) -> int:
        """Up to where an area has memory; its begin where the word says what cannot be."""
        begin, word = self.start(area), self._words[ALLOCATED[area]]
        return word if begin <= word <= begin + self.bytes else begin

    def easy(self, area: int) -> int:
        """As `allocated`, without the lock: nothing relies on it but who asks again."""
        return min(self._words[ALLOCATED[area]], self.start(area) + self.bytes)

    def trim(self, area: int, keep: int, most: int, version: int | None) -> None:
        """Give back what an area has past its first ``keep`` bytes, if it has more than ``most``.

        ``version``: the newest one, where it lies in the other area: who reads here comes over.
        """
        begin, allocated = self.start(area), self.allocated(area)  # Never the other one's memory.
        if allocated > begin + most:
            if version is not None:
                self._words[OLDEST_READABLE] = version
                in_order()
            self._give_back(area, begin + keep, allocated)

    def trim_past_holds(self, keep: int, newest: int, *spared: tuple[int, int]) -> None:
        """The same to both areas, but for what is held, and for extents that are spared.

        ``newest``: the version, or epoch, that stays readable. Where something is held that is done
        now and then only: to give memory back and take it again costs as much as the commit.
        """
        if newest % _TRIMMED_EACH and not self.is_free_of_holds():
            return
        for area in (0, 1):
            ends = [end for begin, end in spared if self.of(begin) == area]
            limit, allocated = max(self.start(area) + keep, *ends, 0), self.allocated(area)
            if allocated > limit:
                self._words[OLDEST_READABLE] = newest
                in_order()
                while (found := holds.held(self._segment.fd, limit, allocated)) is not None:
                    limit = max(found[1], limit + 1)
                if allocated > limit:
                    self._give_back(area, limit, allocated)

    def _give_back(self, area: int, limit: int, allocated: int) -> None:
        self._words[ALLOCATED[area]] = limit
        self._segment.give_back(limit, allocated)
