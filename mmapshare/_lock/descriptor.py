"""A descriptor of our own, told from whatever else may come to stand at its number.

A descriptor's number is no promise. A daemon closes all that it finds, and the files that it
opens next get the same numbers; ``dup2`` puts one file in another's place. What we did to "our"
number would then be done to a stranger's file. Hence:

- A description bears a *mark*: its offset, which we use for nothing else, is a number drawn by
  lot. One ``lseek`` tells it from every other description, also from another one of the same
  file. Nothing is done to a number whose mark was not seen just before.
- Numbers are taken from far above those that others come by, each time the next one, so that one
  that was closed over stays empty: whatever we ask of it fails at once (EBADF), without a look
  at the mark. Never below 3: those are the standard streams, also where a program was started
  without them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
from typing import Final

from .._closed import CLOSED_HERE
from ..errors import ClosedError

_FIRST, _NUMBERS = 512, 488
"""From where on numbers are looked for, and in how many: most programs may have 1024."""
_counted: Final = itertools.count()
"""Without the GIL two threads may count the same: then the kernel tells their numbers apart. (A
``cycle`` would be in danger of its own memory there.)"""
_ELSE: Final = (512, 128, 3)
"""From where on a number is looked for, where the next one is not to be had."""
_STREAMS: Final = 3
_MARK_BITS: Final = 40
"""Few enough for every file system that a temporary file may be on."""


class Marked:
    """A number, and the mark of the description that stood there."""

    fd = -1

    def __init__(self, fd: int, mark: int) -> None:
        self.fd = fd
        self._mark = mark

    def stands(self) -> bool:
        """Whether the number still leads to the description."""
        return self.fd >= 0 and offset(self.fd) == self._mark


class Descriptor(Marked):
    """A number that is ours to close.

    Owns ``opened``, a descriptor of a description that nobody else has, and moves it to a number
    of its own. What fails leaves nothing open.
    """

    def __init__(self, opened: int) -> None:
        self.fd = _lifted(opened)
        try:
            self._mark = mark(self.fd)
        except BaseException:
            fd, self.fd = self.fd, -1
            shut(fd)
            raise

    @property
    def closed(self) -> bool:
        """Whether we have closed it ourselves."""
        return self.fd < 0

    def checked(self) -> int:
        """The number; ClosedError where somebody has closed it, or put another file there."""
        if not self.stands():
            if self.closed:
                raise ClosedError(CLOSED_HERE)
            raise ClosedError(
                "something in this process has closed this share's file descriptors, or put other "
                "files in their place, as a daemon does that closes all files (os.closerange, "
                "dup2). The value can still be read here, but not locked, changed or handed on. "
                "Make or load the share after that, or leave its descriptors open"
            )
        return self.fd

    def replace_by(self, other: Descriptor) -> None:
        """Close the description and take over another one's."""
        inherited = Marked(self.fd, self._mark)
        self.fd, self._mark, other.fd = other.fd, other._mark, -1
        if inherited.stands():
            shut(inherited.fd)

    def close(self) -> None:
        """Close the description, if it is still there; twice is harmless."""
        stands, fd, self.fd = self.stands(), self.fd, -1
        if stands:
            shut(fd)

    def __del__(self) -> None:
        self.close()


def shut(fd: int) -> None:
    """Close a descriptor; where that reports a disk's error, it is closed all the same."""
    try:  # noqa: SIM105  # A context manager takes as long as the closing.
        os.close(fd)
    except OSError:
        pass


def mark(fd: int) -> int:
    """Give a description a mark of its own; returns it."""
    return os.lseek(fd, 1 << _MARK_BITS - 1 | int.from_bytes(os.urandom(5)) >> 1, os.SEEK_SET)


def is_mark(at: int) -> bool:
    """Whether an offset may be a mark: other files are not read from so far on."""
    return at >> _MARK_BITS - 1 == 1


def offset(fd: int) -> int:
    """A description's offset; -2 where there is none."""
    try:
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError as err:
        if err.errno is None:
            raise  # A signal handler's own, perhaps a TimeoutError.
        return -2


def _lifted(fd: int) -> int:
    """The same description at a number out of others' reach; ``fd`` is closed, or kept."""
    try:
        for least in (_FIRST + next(_counted) % _NUMBERS, *_ELSE):
            with contextlib.suppress(OSError):  # Beyond the limit, or none is free from there on.
                lifted = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)
                break
        else:
            if fd >= _STREAMS:
                return fd
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    except BaseException:
        shut(fd)
        raise
    shut(fd)
    return lifted


class StreamsTaken:
    """While it runs no new descriptor is a standard stream; gives the number that comes next."""

    def __init__(self) -> None:
        self._taken: list[int] = []

    def __enter__(self) -> int:
        taken = self._taken
        try:
            while not taken or taken[-1] < _STREAMS:
                # Who prints into it meanwhile fails, as without it.
                taken.append(os.open("/", os.O_RDONLY | os.O_CLOEXEC))
        except BaseException:
            self.__exit__()
            raise
        likely = taken.pop()
        shut(likely)
        return likely

    def __exit__(self, *_: object) -> None:
        for fd in self._taken:
            shut(fd)


def duplicate_of(fd: int, likely: int) -> Marked:
    """The other descriptor of the description at ``fd``, which gets a mark by that.

    Where there is none any more: one that does not stand.
    """
    marked = mark(fd)
    if likely != fd and offset(likely) == marked:
        return Marked(likely, marked)
    for found in map(int, os.listdir("/dev/fd")):
        if found != fd and offset(found) == marked:
            return Marked(found, marked)
    return Marked(-1, marked)
