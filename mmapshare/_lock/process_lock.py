"""The lock among processes: ``flock`` on a description that is this process's alone.

flock locks belong to the *description*, not to the descriptor: a description that is inherited,
mapped or handed on keeps the lock for as long as any process has it. Hence three rules:

- The lock's description is opened anew (through /proc/self/fd) and never mapped: a mapping keeps
  the description that it was made from, which would hold a killed holder's lock through every
  child that inherited the mapping.
- It is never passed on: a received descriptor is the sender's description.
- A forked child closes the inherited one and opens its own (`after_fork_in_child`). Between the
  fork and that hook: 1. thread A holds the lock. 2. thread B forks. 3. the process is killed.
  4. the lock stays taken until the child's hook has run, some microseconds. Code that forks in
  C without calling Python's hooks leaves step 4 open until that child ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Generator
from itertools import chain, repeat
from time import monotonic_ns
from typing import Any, Final

from .. import _proc
from .._late import importing
from ..errors import (
    ClosedError,
    CorruptRegionError,
    HandleError,
    MmapShareError,
    ShareNotFoundError,
)
from .deadlock import Watch
from .descriptor import Descriptor
from .hub import THREAD, Backend, Pause
from .status import BLOCKED, HOLDER, LEASE

# What flock is asked for.
TRY: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
WAIT: Final = fcntl.LOCK_EX
RELEASE: Final = fcntl.LOCK_UN

_OPEN: Final = "/proc/self/fd/"
_NAPS_S: Final = (50e-6,) * 10
_BACKOFF_S: Final = (50e-6, 100e-6, 200e-6, 400e-6, 800e-6)
_BACKOFF_LAST_S: Final = 1e-3
_PATIENCE_NS: Final = 2_000_000
"""Who has waited for longer than that comes first."""
_WAY_S: Final = (100e-6, 200e-6, 400e-6, 800e-6, 1600e-6)
"""For how long one stays away, at most, until somebody is in who has been blocked for long."""
_LEASE_MOST_NS: Final = 2_000_000_000
"""Nobody takes a lease for as long as that; see `_shared.wait`."""


class ProcessLock(Descriptor):
    """The lock among processes: ``flock`` on a description of one's own.

    ``path`` leads to the file: ``/proc/self/fd/N`` for a memfd that this process has open. Once
    this lock is there, it is itself what leads to a memfd.
    """

    def __init__(self, path: str) -> None:
        self._name = "" if path.startswith(_OPEN) else path
        self.flock: Callable[[int, int], object] = fcntl.flock
        """Called with ``fd`` and TRY (BlockingIOError where it is taken), WAIT or RELEASE."""
        super().__init__(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    @property
    def is_open_through_proc(self) -> bool:
        """Whether it is a new description of the very file that a descriptor led to."""
        return not self._name

    @property
    def _path(self) -> str:
        return self._name or f"{_OPEN}{self.fd}"

    def reopen(self) -> None:
        """Have a new description, the old one closed; as it was where that fails."""
        self.checked()
        try:
            other = ProcessLock(self._path)
        except FileNotFoundError as err:
            if not self._name:
                raise  # No /proc, through which a memfd is opened.
            raise ClosedError(f"{self._path} is gone: the region's folder was removed") from err
        self.replace_by(other)
        self.flock = fcntl.flock

    def after_fork_in_child(self) -> None:
        """Leave the parent's description to it."""
        try:
            self.reopen()
        except (OSError, MmapShareError):  # None to be had, or it is gone: again when it is wanted.
            self.flock = self._reopen_and_flock

    def _reopen_and_flock(self, fd: int, operation: int) -> None:
        inherited = self.flock == self._reopen_and_flock
        if inherited and operation == RELEASE:
            return
        try:
            if inherited:
                self.reopen()
        except PermissionError as err:
            raise HandleError(
                f"the share can be read, but not locked here: it was made by another user than "
                f"this process's ({os.geteuid()}), which was forked after its parent had given "
                "up privileges. Make the share after that, or fork before"
            ) from err
        except FileNotFoundError as err:
            raise HandleError(
                "the share can be read, but not locked here: this process was forked after its "
                f"parent had lost sight of {_proc.PROC} (chroot does that). Fork before, or "
                "mount it there"
            ) from err
        self.flock(self.fd, operation)

    def take(
        self, words: memoryview, watch: Watch, backend: Backend
    ) -> Generator[Pause, None, bool]:
        """Take the lock; yields the pauses until then, and returns whether there were any.

        A thread that may do so blocks after some naps. Blocking at once would make the holder wake
        us, in the middle of its own work, each time it lets go for a moment.
        """
        blocks = backend is THREAD and watch.may_block
        pauses = _NAPS_S if blocks else chain(_BACKOFF_S, repeat(_BACKOFF_LAST_S))
        for tries, pause_s in enumerate(pauses):
            try:
                self.flock(self.checked(), TRY)
            except BlockingIOError:
                pass
            else:
                return tries > 0
            yield backend.sleep, watch.at_most(pause_s)
        if words[BLOCKED]:
            _ask_attention(words)
        else:
            say_blocked(words)
        self.flock(self.checked(), WAIT)
        self.checked()  # If it was closed meanwhile, the lock went with it.
        say_blocked(words)  # There may be others, who cannot say so.
        return True


def _links_and_size(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_nlink, found.st_size


class NamedLock(ProcessLock):
    """The lock of a file that has a name, or is to get one; others may remove it, or cut it off."""

    size_bytes: int
    """How large the file is."""
    _address: Any = None
    """Of the name, once it has it; ``str`` is for people."""
    _is_unlinked: Callable[[], object]
    _look: Callable[[int], tuple[int, int]] = staticmethod(_links_and_size)

    def named(self, address: Any, is_unlinked: Callable[[], object]) -> None:
        """It has its name now; ``is_unlinked`` tells whether `Share.unlink` took that away."""
        if self._name:
            self._name = address.path
        self._is_unlinked = is_unlinked
        self._address = address

    def spare_times(self) -> None:
        """From now on look at the file without its times, if the system can (see `_lock.statx`)."""
        with importing:
            from .statx import by_statx

        # An old kernel or C library, or a sandbox, has no such call.
        with contextlib.suppress(OSError, AttributeError):
            by_statx(self.fd)
            self._look = by_statx

    def checked(self) -> int:
        """The number; an error too where the file is not what it was.

        ShareNotFoundError where its name was taken away in another way: who opens that name from
        then on has another share. CorruptRegionError where it was cut off.
        """
        fd = super().checked()
        links, size = self._look(fd)
        if self._address is not None and not links and not self._is_unlinked():
            raise ShareNotFoundError(
                f"the file of share {self._address} has been removed: who opens that name from now "
                "on has another share. This one can still be read here, but not changed. Close it "
                "and open the name again; to remove a share call its unlink()"
            )
        if size != self.size_bytes:
            raise CorruptRegionError(
                f"the file of share {self._address} has {size:,} bytes, and had "
                f"{self.size_bytes:,}: something has cut it off"
            )
        return fd


# --- Who waits in the kernel: for the lock, and for a version ------------------------------------


def say_blocked(words: memoryview) -> None:
    """Say that somebody may be blocked, from now on."""
    words[BLOCKED] = monotonic_ns()
    _ask_attention(words)


def _ask_attention(words: memoryview) -> None:
    words[LEASE] = words[LEASE] or 1


def attend(words: memoryview, version_offset: int) -> None:
    """After letting go: make way for who is blocked, wake who is asleep."""
    now_ns, blocked = monotonic_ns(), words[BLOCKED]
    # A moment that lies far ahead is damage, and goes as one that is long over does.
    if blocked and abs(now_ns - blocked) > _PATIENCE_NS:
        # flock hands nothing over: who is woken finds the lock taken again, if the one who
        # let go comes back faster, and that for as long as it goes on.
        words[BLOCKED] = 0
        for pause_s in _WAY_S:
            time.sleep(pause_s)
            if words[HOLDER]:
                break
    lease = words[LEASE]
    if lease > now_ns:
        with importing:
            from .futex import wake

        wake(words, version_offset)
        if lease > now_ns + _LEASE_MOST_NS:
            words[LEASE] = 0
    elif lease:
        # Who takes a lease this very moment may be woken late, by the longest sleep.
        words[LEASE] = 0
        if words[BLOCKED]:  # Asked for afterwards: it may be new.
            words[LEASE] = 1
