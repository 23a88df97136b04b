"""Patched values: what lies in a log of a large value that blocks have changed here and there.

A record may say of a key that its value was *patched*. It brings the new first frame, where that is
another one, and the runs of bytes that were changed in the later frames; all else is what was
there before. Nothing that lies in the log is changed by that: who reads such a value copies (or
maps) its *base*, which was stored whole once, and lays the runs over it.

Each read pays for all runs since then, so at some time the value has to be stored whole again. The
best time is when the runs have cost as much as that does (see `Patched.is_spent`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

from .._bytes import Frame, same_bytes
from ..errors import CorruptRegionError
from . import holds
from .held import Held, union
from .segment import Segment

Extents = tuple[int, ...]
"""Begin and end of a value's first frame, then of its second, and so on."""
Run = tuple[int, int, int]
"""Begin and end of an extent of the base, and where the bytes lie that stand there by now."""
Patch = tuple[int, tuple[int, ...]]
"""How long the new first frame is, 0 where it is the one before; and begin and end of each run, in
order, counted from the base's begin. It stands where else the lengths of a value's frames stand."""

_COMPARED_BYTES: Final = 256 << 10
_SPENT_PART: Final = 2
"""A page that is stored whole costs so much less than one, or a run, that is laid over another."""
_FIRST_PART: Final = 64
"""By this part of a value its first frame may grow; what is live does not count that."""


class Patched(tuple[int, ...]):
    """The place of a patched value. As a tuple it is the extents of the base.

    Attributes:
        first: begin and end of the newest first frame.
        runs: in order, none overlapping another.
        mark: where the newest patch lies: another place of the same base has another one.
        paid: what has been laid over until now, in pages and runs, once for each patch.
    """

    first: tuple[int, ...]
    runs: list[Run]
    mark: int
    paid: int

    @classmethod
    def of(cls, before: Extents | None, begin: int, patch: Patch) -> Patched:
        """The place of a value that was there ``before``, once a patch is laid over it whose
        values begin there."""
        if before is None or len(before) < 4:
            raise CorruptRegionError("a patch is of no value that it could be laid over")
        self = cls(before)
        runs, self.paid = (before.runs, before.paid) if type(before) is Patched else ([], 0)
        self.mark = begin
        length, ends = patch
        self.first = (begin, begin + length) if length else first_of(before)
        begin += length
        newer, base = [], before[0]
        for at, until in zip(ends[::2], ends[1::2], strict=True):
            newer.append((base + at, base + until, begin))
            begin += until - at
        self.runs = _laid_over(runs, newer)
        self.paid += len(self.runs) + sum(end - at for at, end, _ in self.runs) // holds.PAGE
        return self

    def __eq__(self, other: object) -> bool:
        return type(other) is Patched and self.mark == other.mark and tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:  # A tuple's own would look at the extents alone.
        return not self == other

    def __hash__(self) -> int:
        return hash((self.mark, tuple.__hash__(self)))

    def is_spent(self) -> bool:
        """Whether it is time to store the value whole."""
        return self.paid > (self[-1] - self[0]) // holds.PAGE // _SPENT_PART

    def piece(self, raw: Any, begin: int, end: int) -> Frame:
        """What stands by now in an extent of a later frame; ``raw`` has the region's bytes."""
        runs, found = self.runs, None
        for number in range(max(bisect_left(runs, (begin + 1,)) - 1, 0), len(runs)):
            at, until, where = runs[number]
            if at <= begin and end <= until:  # As a page mostly does.
                piece: Frame = raw[where + begin - at : where + end - at]
                return piece
            if at >= end:
                break
            if until > begin:
                found = found or bytearray(raw[begin:end])
                first, last = max(at, begin), min(until, end)
                found[first - begin : last - begin] = raw[where + first - at : where + last - at]
        return found or bytearray(raw[begin:end])

    def lay_over(self, later: Sequence[Any], raw: Any, base: int = 0) -> None:
        """Write the runs into copies of the later frames; ``raw`` begins at ``base``."""
        places = zip(later, self[2::2], self[3::2], strict=True)
        frame, begin, end = next(places)
        for at, until, where in self.runs:
            while at >= end:
                frame, begin, end = next(places)
            frame[at - begin : until - begin] = raw[where - base : where - base + until - at]


def _laid_over(runs: Sequence[Run], newer: Sequence[Run]) -> list[Run]:
    """All of the runs; where two are of the same bytes, the newer one counts."""
    merged = list(runs)
    for at, end, where in newer:
        first, last = bisect_left(merged, (at,)), bisect_left(merged, (end,))
        if first and merged[first - 1][1] > at:
            first -= 1
        between = [(at, end, where)]
        if first < last:
            begin, _, source = merged[first]
            if begin < at:
                between.insert(0, (begin, at, source))
            begin, until, source = merged[last - 1]
            if until > end:
                between.append((end, until, source + end - begin))
        merged[first:last] = between
    return merged


def is_patch(lengths: tuple[Any, ...]) -> bool:
    """Whether that is a Patch, and not the lengths of several frames."""
    return type(lengths[1]) is tuple


# --- Places of either kind ---------------------------------------------------------------------


def first_of(place: Extents) -> tuple[int, ...]:
    """Where the newest first frame begins and ends."""
    return place.first if type(place) is Patched else place[:2]


def copied(
    place: Extents, raw: Any, base: int = 0, copy: Callable[[Any], Any] = bytearray
) -> list[Frame]:
    """A value's frames, those of arrays copied; ``raw`` has the region's bytes from ``base`` on."""
    begin, end = first_of(place)
    later = [
        copy(raw[begin - base : end - base])
        for begin, end in zip(place[2::2], place[3::2], strict=True)
    ]
    if type(place) is Patched:
        place.lay_over(later, raw, base)
    return [bytes(raw[begin - base : end - base]), *later]


def held(place: Extents, segment: Segment, raw: Any, base: int = 0) -> Held | None:
    """The same for a value that is large, mapped; None where it is not, or it cannot be done."""
    start, end = place[0], place[-1]
    if len(place) == 2 or end - start < holds.LARGE_BYTES:
        return None
    found = holds.hold(segment, start, end)
    if found is None:
        return None
    begin, until = first_of(place)
    first = bytes(raw[begin - base : until - base])
    frames = Held(place, first, list(zip(place[2::2], place[3::2], strict=True)), *found)
    if type(place) is Patched:
        place.lay_over(frames[1:], raw, base)
        frames.is_laid_over = True
    return frames


def is_stored(place: Extents, frames: Sequence[Frame], raw: memoryview) -> bool:
    """Whether these are the frames that are there."""
    if 2 * len(frames) != len(place):
        return False
    begin, end = first_of(place)
    if not same_bytes(raw[begin:end], frames[0]):
        return False
    for begin, end, frame in zip(place[2::2], place[3::2], frames[1:], strict=True):
        if type(place) is not Patched:
            if not same_bytes(raw[begin:end], frame):
                return False
        elif len(frame) != end - begin or any(
            bytearray(place.piece(raw, at, until)) != frame[at - begin : until - begin]
            for at, until in pairwise([*range(begin, end, _COMPARED_BYTES), end])
        ):
            return False
    return True


def patch_of(draft: Held, frames: Sequence[Frame]) -> tuple[Patch, list[Frame]] | None:
    """What a record says and brings of the changes of a draft; None where it has to be whole."""
    place: Extents = draft.of
    length = 0 if frames[0] == draft[0] else len(frames[0])
    begin, end = place[:2]
    if not draft.is_small or length > end - begin + (place[-1] - begin) // _FIRST_PART:
        return None
    runs = list(_within(draft.later, union(draft.changes, [])))
    patch = (length, tuple(at - begin for run in runs for at in run))
    if Patched.of(place, 0, patch).is_spent():
        return None
    with memoryview(draft.mapping) as own:
        values: list[Frame] = [own[at - draft.at : until - draft.at] for at, until in runs]
    return patch, [frames[0], *values] if length else values


def _within(
    later: Sequence[tuple[int, int]], ranges: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """The parts of ranges that lie in a frame: what is between two is nobody's."""
    left = iter(later)
    begin, end = next(left)
    for first, last in ranges:
        while first >= end:
            begin, end = next(left)
        while begin < last:
            yield max(first, begin), min(last, end)
            if last <= end:
                break
            begin, end = next(left)
