"""Flat bytes, whose ever they are: compared and copied in pieces."""

from __future__ import annotations

import contextlib
import mmap
from typing import Final

Frame = bytes | bytearray | memoryview

_COMPARED_BYTES: Final = 256 << 10
_HUGE_LEAST: Final = 4 << 20
"""Two huge pages: from here on numpy asks for them too."""


def same_bytes(stored: memoryview, frame: Frame) -> bool:
    """Whether a piece of memory and a frame are equal; without a copy of either."""
    # A bytearray is compared by memcmp, a memoryview item by item: copy piece by piece.
    with memoryview(frame) as given:
        return stored.nbytes == given.nbytes and all(
            bytearray(stored[at : at + _COMPARED_BYTES]) == given[at : at + _COMPARED_BYTES]
            for at in range(0, stored.nbytes, _COMPARED_BYTES)
        )


def private_copy(source: memoryview) -> bytearray | memoryview:
    """A writeable copy of flat bytes, in memory of this process alone.

    Of large ones most of the time goes into the page faults of fresh memory, so they are put
    where the kernel may give out huge pages. numpy does the same for its own arrays.
    """
    if source.nbytes < _HUGE_LEAST or not hasattr(mmap, "MADV_HUGEPAGE"):
        return bytearray(source)
    try:
        copy = mmap.mmap(-1, source.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:  # Perhaps there is as much elsewhere; else it is a MemoryError.
        return bytearray(source)
    with contextlib.suppress(OSError):  # A kernel without huge pages.
        copy.madvise(mmap.MADV_HUGEPAGE)
    copy[:] = source
    return memoryview(copy)
