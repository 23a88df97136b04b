"""Held values: the newest one of a place, mapped privately, and what a block has changed of it.

The pages of the mapping that have become this process's own are what may have been changed (see
`_store.touched`). A draft that was changed all over is stored whole, and the next drafts are
copies: to make each page this process's own costs more than that. Now and then it is tried again.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from .._bytes import Frame
from . import holds
from .touched import Ranges, touched

_WHOLE_PART: Final = 4
"""From this part of it on a changed value is stored whole."""
_COPIES_LEAST, _COPIES_MOST = 8, 128
"""So many drafts in a row are copies then; twice as many each time that it was in vain."""
_COMPARED_BYTES: Final = 256 << 10


class Copies:
    """How many of a value's next drafts are copies."""

    __slots__ = ("_left", "_next")

    def __init__(self) -> None:
        self._left = 0
        self._next = _COPIES_LEAST

    def is_next(self) -> bool:
        """Whether the next draft, which is taken now, is one."""
        if self._left:
            self._left -= 1
            return True
        return False

    def note(self, is_small: bool) -> None:
        """What was changed of a draft that was held was a small part of it, or not."""
        if is_small:
            self._next = _COPIES_LEAST
        else:
            self._left = self._next
            self._next = min(2 * self._next, _COPIES_MOST)


class Held(list[Frame]):
    """The frames of one version's value: the first one copied, the others mapped privately.

    Unchanged for as long as anything uses them, but by this process itself.

    Attributes:
        of: where in the region the value is, as its store says it.
        later: begin and end in the region of each frame but the first.
        mapping: what holds it, from offset ``at`` of the region on.
        looked_at: the frames of a draft for which ``changes`` say what is not as stored, as
            extents of the region; ``is_small`` whether that is worth to be written alone.
        is_laid_over: pages are this process's own that nobody has changed: those beside them, which
            somebody has, are told from them.
        copies: takes note of that; None where this is no draft.
    """

    __slots__ = (
        "__weakref__",
        "at",
        "changes",
        "copies",
        "is_laid_over",
        "is_small",
        "later",
        "looked_at",
        "mapping",
        "of",
    )

    def __init__(
        self,
        of: Any,
        first: bytes,
        later: Sequence[tuple[int, int]],
        mapping: mmap.mmap,
        at: int,
    ) -> None:
        with memoryview(mapping) as view:
            super().__init__([first, *[view[begin - at : end - at] for begin, end in later]])
        self.of = of
        self.later = later
        self.mapping = mapping
        self.at = at
        self.looked_at: Any = None
        self.changes: Ranges = []
        self.is_small = True
        self.is_laid_over = False
        self.copies: Copies | None = None

    def is_base_of(self, frames: Sequence[Frame], stored: Callable[[int, int], Frame]) -> bool:
        """Whether these are its frames, perhaps changed; then ``changes`` say where.

        The first frame may be any. ``stored`` gives the bytes of an extent as they are stored.
        """
        if self.looked_at is frames:
            return True
        changes = self._look(stored) if self._lies_under(frames) else None
        if changes is None:
            return False
        begin, end = self.later[0][0], self.later[-1][1]
        changed = sum(until - at for at, until in changes)
        self.is_small = changed <= (end - begin) // _WHOLE_PART
        if self.copies is not None and changes:
            self.copies.note(self.is_small)
        self.changes = changes
        self.looked_at = frames  # Last: from here on what was found is believed.
        return True

    def _lies_under(self, frames: Sequence[Frame]) -> bool:
        """Whether the later frames lie where these lie."""
        base = holds.address_of(self.mapping) - self.at
        return len(frames) == len(self) and all(
            len(frame) == end - begin and _address(frame) == base + begin
            for frame, (begin, end) in zip(frames[1:], self.later, strict=True)
        )

    def _look(self, stored: Callable[[int, int], Frame]) -> Ranges | None:
        """Where it differs from what is stored; None if nobody knows."""
        begin, end = self.later[0][0], self.later[-1][1]
        first = begin - begin % holds.PAGE
        found = touched(holds.address_of(self.mapping) + first - self.at, end - first)
        if found is None:
            return None
        with memoryview(self.mapping) as own:
            return [
                extent
                for start, stop in found
                for extent in self._differing(
                    own, stored, max(first + start, begin), min(first + stop, end), _COMPARED_BYTES
                )
            ]

    def _differing(
        self,
        own: memoryview,
        stored: Callable[[int, int], Frame],
        begin: int,
        end: int,
        step: int,
    ) -> Iterator[tuple[int, int]]:
        for at in range(begin, end, step):
            until = min(at + step, end)
            # A bytearray is compared by memcmp, a memoryview item by item.
            if bytearray(own[at - self.at : until - self.at]) != stored(at, until):
                if self.is_laid_over and step > holds.PAGE:
                    yield from self._differing(own, stored, at, until, holds.PAGE)
                else:
                    yield at, until


def _address(frame: Any) -> int:
    """Where a frame lies; 0, which is nowhere, for one that cannot be written to."""
    return 0 if memoryview(frame).readonly else holds.address_of(frame)


def union(some: Ranges, others: Ranges) -> Ranges:
    """All of the ranges, in order, none of them overlapping."""
    together: Ranges = []
    for run in sorted(some + others):
        if together and run[0] <= together[-1][1]:
            first, last = together.pop()
            together.append((first, max(last, run[1])))
        else:
            together.append(run)
    return together
