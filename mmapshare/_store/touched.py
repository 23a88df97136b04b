"""Which pages of a private mapping this process has written to: those that are its own by now.

The kernel tells in three ways: PAGEMAP_SCAN (Linux 6.7) lists them, /proc/self/pagemap has a word
for each page, and where there is neither nobody knows.
"""

from __future__ import annotations

import errno
import fcntl
import io
import mmap
import os
import struct
from typing import Final

from .. import _proc
from .holds import address_of

Ranges = list[tuple[int, int]]

_PAGE: Final = mmap.PAGESIZE
_SCAN: Final = 0xC0606610
_IS_FILE, _IS_PRESENT, _IS_SWAPPED = 4, 8, 16
_scan: Final = struct.Struct("12Q")
_found: Final = struct.Struct("3Q")
_FOUND_MOST: Final = 1024
_WORDS_MOST: Final = 1 << 16
_OWN: Final = bytes(1 if high & 0xC0 and not high & 0x20 else 0 for high in range(256))
"""By the high byte of a pagemap's word: present or swapped, and not the file's page."""


def touched(begin: int, size: int) -> Ranges | None:
    """Ranges of bytes, counted from the page at address ``begin``; None where nobody knows."""
    try:
        with io.FileIO(f"{_proc.PROC}/self/pagemap") as file:
            fd, pages = file.fileno(), -(-size // _PAGE)
            found = _scanned(fd, begin, pages)
            return _read(fd, begin, pages) if found is None else found
    except OSError as err:
        if err.errno is None:
            raise  # A signal handler's own, perhaps a TimeoutError.
        return None


def _scanned(fd: int, begin: int, pages: int) -> Ranges | None:
    """What PAGEMAP_SCAN lists; None where the kernel has no such call."""
    ranges: Ranges = []
    at, end = begin, begin + pages * _PAGE
    found = bytearray(_FOUND_MOST * _found.size)
    where = address_of(found)
    while at < end:
        # Not the file's, and present or swapped out.
        own = (_IS_FILE, _IS_FILE, _IS_PRESENT | _IS_SWAPPED, _IS_PRESENT)
        asked = bytearray(_scan.pack(_scan.size, 0, at, end, 0, where, _FOUND_MOST, 0, *own))
        try:
            count = fcntl.ioctl(fd, _SCAN, asked, True)
        except OSError as err:
            if err.errno is None:
                raise
            return None
        for start, stop, _ in _found.iter_unpack(found[: count * _found.size]):
            _append(ranges, start - begin, stop - begin)
        at = _scan.unpack(asked)[4]
    return ranges


def _read(fd: int, begin: int, pages: int) -> Ranges:
    """What the words of the pages say."""
    ranges: Ranges = []
    for first in range(0, pages, _WORDS_MOST):
        count = min(_WORDS_MOST, pages - first)
        own = os.pread(fd, 8 * count, 8 * (begin // _PAGE + first))[7::8].translate(_OWN)
        if len(own) != count:
            raise OSError(errno.EIO, "pagemap")
        at = own.find(1)
        while at >= 0:
            end = own.find(0, at)
            end = count if end < 0 else end
            _append(ranges, (first + at) * _PAGE, (first + end) * _PAGE)
            at = own.find(1, end)
    return ranges


def _append(ranges: Ranges, start: int, stop: int) -> None:
    if ranges and ranges[-1][1] == start:
        start = ranges.pop()[0]
    ranges.append((start, stop))
