"""Values that are large enough to be held, and what is held of them."""

from __future__ import annotations

from typing import Any

from . import inside
from .wanted import Wanted

numpy = Wanted("numpy")

COUNT = (4 << 20) // 8 + 1024
"""So many numbers take a little more than what is held from."""


def filled(number: float) -> Any:
    """An array with that number all over."""
    return numpy.full(COUNT, float(number))


def is_filled(array: Any, number: float) -> bool:
    """Whether that is what it was."""
    return len(array) == COUNT and bool((array == number).all())


def is_held(array: Any) -> bool:
    """Whether an array has its memory from elsewhere, and may be written to."""
    return bool(array.flags.writeable and not array.flags.owndata)


def extents_held(share: Any) -> list[tuple[int, int]]:
    """What is held of a region, in whichever process."""
    segment = inside.segment_of(share)
    return sorted(inside.all_held(segment.fd, 0, segment.size_bytes))
