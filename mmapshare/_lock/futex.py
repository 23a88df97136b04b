"""Sleeping until a word of shared memory changes: Linux's futex, through ctypes.

Imported at the first wait. ``FUTEX`` is None where the system has none that we know of; then one
looks again and again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from typing import Any, Final

_NUMBERS: Final = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
_WAIT, _WAKE = 0, 1
_ALL: Final = 2**31 - 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Futex:
    """The system call. Threads that wait in it let others run; signals end the wait."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long

    def wait(self, address: int, expected: int, timeout_s: float) -> None:
        """Sleep until woken, or for ``timeout_s``; not at all unless ``expected`` stands there.

        ``address`` is that of four aligned bytes, ``expected`` their number.
        """
        limit = _Timespec(int(timeout_s), int(timeout_s % 1 * 1e9))
        if self._call(address, _WAIT, expected, ctypes.byref(limit)):
            number = ctypes.get_errno()
            # EFAULT: another thread has closed the mapping; the next look will say so.
            if number not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.EFAULT):
                raise OSError(number, os.strerror(number))

    def wake(self, address: int) -> None:
        """Wake all who sleep there, in all processes."""
        self._call(address, _WAKE, _ALL, None)

    def _call(self, address: int, operation: int, number: int, limit: Any) -> Any:
        return self._syscall(
            ctypes.c_long(self._number),
            ctypes.c_void_p(address),
            ctypes.c_int(operation),
            ctypes.c_uint32(number),
            limit,
            None,
            ctypes.c_int(0),
        )


def sleep(words: memoryview, offset: int, expected: int, timeout_s: float) -> None:
    """Sleep on four bytes of the mapping that ``words`` is a view of; see `Futex.wait`."""
    assert FUTEX is not None
    FUTEX.wait(_address(words, offset), expected, timeout_s)


def wake(words: memoryview, offset: int) -> None:
    """Wake all who sleep there, if this system can sleep."""
    if FUTEX is not None:
        FUTEX.wake(_address(words, offset))


def _address(words: memoryview, offset: int) -> int:
    """Where a byte of the mapping is, for as long as it is mapped."""
    # Not kept: a mapping with an exported buffer could not be closed.
    mapping: Any = words.obj
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping, offset))


def _futex() -> Futex | None:
    number = _NUMBERS.get(platform.machine())
    if sys.platform != "linux" or number is None or sys.byteorder != "little":
        return None
    futex = Futex(number)
    word = ctypes.c_uint32(0)
    try:
        futex.wait(ctypes.addressof(word), 1, 0)
    except OSError:  # Forbidden here.
        return None
    return futex


FUTEX: Final = _futex()
