"""The areas: where in a region records go, how their memory grows and shrinks.

A region has two. Records are laid one behind the other in one of them; when the next does not fit,
writing *turns* to the begin of the other one, whose versions end with that: OLDEST_READABLE says so
to who still reads there. What nothing lives in any more is given back.
"""

from __future__ import annotations

from .._closed import CLOSED
from .format import ALLOCATED, HEADER_BYTES, OLDEST_READABLE
from .segment import Segment


class Areas:
    """The two areas of one region; all but `start` and `of` want the lock."""

    __slots__ = ("_segment", "_words", "bytes")

    def __init__(self, segment: Segment, words: memoryview, area_bytes: int) -> None:
        self._segment = segment
        self._words = words
        self.bytes = area_bytes
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
        return self.start(1 - self.of(offset))

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
            self._words[ALLOCATED[area]] = begin + keep
            self._segment.give_back(begin + keep, allocated)
