"""How many names a file has and how large it is, without a look at its times.

Since Linux 6.13 a file whose times somebody has looked at gets new ones, finer than the clock's
ticks, with the next write; they are stored with its inode, and a barrier writes that too: a third
more for a small commit. `os.fstat` looks at the times always, ``statx`` only if it is asked to.
Imported for files whose commits wait for the disk.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

_EMPTY_PATH: Final = 0x1000
_NLINK, _SIZE = 0x4, 0x200
_BYTES: Final = 256
_found: Final = struct.Struct("<I12xI20xQ")
"""Which fields there are, links, size; the rest is left out."""


def by_statx(fd: int) -> tuple[int, int]:
    """Links, and size in bytes, of a descriptor's file; OSError or AttributeError without it."""
    found = ctypes.create_string_buffer(_BYTES)
    if _libc.statx(fd, b"", _EMPTY_PATH, _NLINK | _SIZE, found):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    _, links, size = _found.unpack_from(found)
    return links, size


_libc: Final = ctypes.CDLL(None, use_errno=True)
