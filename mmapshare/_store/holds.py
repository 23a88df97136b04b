"""Holds: what keeps writers from an extent of a region for as long as anybody maps it.

A hold is an open-file-description lock (for reading) on the extent's bytes, on a description of
its own, from which the extent is then mapped privately. The mapping keeps the description, and the
kernel drops the lock with it: in whichever process the last mapping goes, and however that ends.
So there is no view without a hold and no hold without a view, nothing to count, and nothing that a
killed process could leave behind; forked children have both. What is written to such a mapping is
this process's own, page by page; all else are the region's own pages.

Who takes a hold asks *afterwards* whether OLDEST_READABLE lets the version stand. Who writes raises
OLDEST_READABLE, and asks *afterwards* for holds. Both go through the one list of locks that the
kernel has for the file, so that one of the two sees the other:

1. Reader A reads the slot of version g. 2. Writer B wants to write over g: it raises
OLDEST_READABLE past it, and finds no hold. 3. A takes its hold, too late: it finds g gone, and lets
go. Had A come before 2, B would have found the hold, and another place.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import io
import mmap
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any, Final

from .. import _proc
from .._late import importing
from .segment import Segment

LARGE_BYTES: Final = 4 << 20
"""Records of this size and more are held; of smaller ones a copy takes less time."""
PAGE: Final = mmap.PAGESIZE

_GETLK: Final[Any] = getattr(fcntl, "F_OFD_GETLK", None) if sys.platform == "linux" else None
_SETLK: Final[Any] = getattr(fcntl, "F_OFD_SETLK", None)
_lock: Final = struct.Struct("hhqqi0q")
_PRIVATE: Final = getattr(mmap, "MAP_PRIVATE", 2) | getattr(mmap, "MAP_NORESERVE", 0)
_WRITEABLE: Final = 3
_FIXED: Final = 0x10
_END: Final = 1 << 62


def hold(segment: Segment, start: int, end: int) -> tuple[mmap.mmap, int] | None:
    """Hold [start, end), and map it privately; the mapping, and the offset at which it begins.

    It begins at a page. None where no hold is to be had: no such locks here, no descriptor or
    address space to spare, no right to the file any more, no /proc.
    """
    lock = segment.process_lock
    if _GETLK is None or not lock.stands():
        return None
    try:
        # An object from the first on: interrupted anywhere, it is closed, and the lock gone.
        with io.FileIO(f"{_proc.PROC}/self/fd/{lock.fd}") as file:
            if not lock.stands():
                return None
            fcntl.fcntl(file, _SETLK, _lock.pack(fcntl.F_RDLCK, os.SEEK_SET, start, end - start, 0))
            at = start - start % PAGE
            return _mapped(file.fileno(), at, end - at), at
    except OSError as err:
        if err.errno is None:
            raise  # A signal handler's own, perhaps a TimeoutError.
        return None


def held(fd: int, start: int, end: int) -> tuple[int, int] | None:
    """One hold, of whichever process, that meets [start, end); None where there is none."""
    if _GETLK is None or start >= end:
        return None
    asked = _lock.pack(fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0)
    try:
        kind, _, at, length, _ = _lock.unpack(fcntl.fcntl(fd, _GETLK, asked))
    except OSError as err:
        if err.errno == errno.EINVAL:  # The kernel has no such locks, so nobody has any.
            return None
        raise
    return None if kind == fcntl.F_UNLCK else (at, at + length if length else _END)


def all_held(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The extents in [start, end) that are held, each byte once."""
    left = [(start, end)]
    while left:
        start, end = left.pop()
        found = held(fd, start, end)
        if found is not None:
            at, until = max(found[0], start), min(found[1], end)
            yield at, until
            left += [(start, at), (until, end)]


def held_bytes(fd: int, size_bytes: int) -> int:
    """Bytes of a region's file that are held, by however many."""
    extents = all_held(fd, 0, size_bytes)
    return sum(until - at for at, until in extents)


def holders(fd: int) -> int:
    """Processes that hold something of it, among those that one may look into."""
    try:
        file = os.fstat(fd)
        return _proc.private_mappers(file.st_dev, file.st_ino)
    except OSError:  # No descriptor to spare: it is told without.
        return 0


# --- Mapping: mmap must keep no descriptor, whose number may be another file's by its end ---------

if sys.version_info >= (3, 13):  # only with trackfd

    def _mapped(fd: int, offset: int, size_bytes: int) -> mmap.mmap:
        return mmap.mmap(fd, size_bytes, _PRIVATE, _WRITEABLE, offset=offset, trackfd=False)

else:  # only without trackfd

    def _mapped(fd: int, offset: int, size_bytes: int) -> mmap.mmap:
        """Memory of this process's own, in whose place the file is put then."""
        mapping = mmap.mmap(-1, size_bytes, _PRIVATE | mmap.MAP_ANONYMOUS, _WRITEABLE)
        address, put = address_of(mapping), _system_mmap()
        if put(address, size_bytes, _WRITEABLE, _PRIVATE | _FIXED, fd, offset) != address:
            raise OSError(errno.ENOMEM, "mmap")
        return mapping

    @functools.cache
    def _system_mmap() -> Any:
        with importing:
            import ctypes  # As slow as all the rest, for those who hold something.

        put: Any = ctypes.CDLL(None).mmap
        put.restype = ctypes.c_void_p
        put.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_ssize_t]
        return put


def address_of(memory: Any) -> int:
    """Where writeable memory lies."""
    addressof, from_buffer = _ways_to_addresses()
    address: int = addressof(from_buffer(memory))
    return address


@functools.cache
def _ways_to_addresses() -> tuple[Any, Any]:
    with importing:
        import ctypes

    return ctypes.addressof, ctypes.c_char.from_buffer
