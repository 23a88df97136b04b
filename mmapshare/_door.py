"""The door: the lock among processes, ``flock`` on a description that is this process's alone.

flock locks belong to the *description*, not to the descriptor: a description that is inherited,
mapped or handed on keeps the lock for as long as any process has it. Hence three rules:

- The lock's description is opened anew (through /proc/self/fd) and never mapped: mmap keeps a
  hidden duplicate of its descriptor, which would hold a killed holder's lock through every
  child that inherited the mapping.
- It is never passed on: a received descriptor is the sender's description.
- A forked child closes the inherited one and opens its own (`after_fork_in_child`). Between the
  fork and that hook: 1. thread A holds the lock. 2. thread B forks. 3. the process is killed.
  4. the lock stays taken until the child's hook has run, some microseconds. Code that forks in
  C without calling Python's hooks leaves step 4 open until that child ends.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

from .errors import ClosedError

# What flock is asked for.
TRY: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
WAIT: Final = fcntl.LOCK_EX
RELEASE: Final = fcntl.LOCK_UN


class Door:
    """The lock among processes: ``flock`` on a description of one's own.

    ``path`` leads to the file: ``/proc/self/fd/N`` for a memfd that this process has open.
    """

    flock = staticmethod(fcntl.flock)
    """Called with ``fd`` and TRY (BlockingIOError where it is taken), WAIT or RELEASE."""
    can_wait = True
    """Whether WAIT blocks in the kernel, where signals and a holder's death end it at once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.fd = -1
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    @property
    def closed(self) -> bool:
        """Whether its descriptor is gone."""
        return self.fd < 0

    def reopened(self) -> Door:
        """The same door through a new description; this one is closed."""
        self.close()
        return type(self)(self._path)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class FileLockDoor:
    """The lock among processes where there is no memfd: filelock's, on a file beside the region."""

    fd = -1
    can_wait = False
    closed = False

    def __init__(self, path: str) -> None:
        from filelock import FileLock, Timeout

        self._path = path
        self._lock = FileLock(path, thread_local=False)
        self._timeout = Timeout

    def flock(self, fd: int, operation: int) -> None:
        if operation == RELEASE:
            return self._lock.release(force=True)
        if not os.path.isdir(os.path.dirname(self._path)):  # filelock would make it again.
            raise ClosedError(f"{self._path} is gone: the region's folder was removed")
        try:
            self._lock.acquire(blocking=False)
        except self._timeout as err:
            raise BlockingIOError from err

    def reopened(self) -> FileLockDoor:
        # filelock closes what a child inherits; its inherited objects refuse to work.
        return type(self)(self._path)

    def close(self) -> None:
        self._lock.release(force=True)
