"""The door: the lock among processes, ``flock`` on a description that is this process's alone.

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

import fcntl
import os
from typing import Final

from ..errors import ClosedError
from .descriptor import Descriptor

# What flock is asked for.
TRY: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
WAIT: Final = fcntl.LOCK_EX
RELEASE: Final = fcntl.LOCK_UN

_OPEN: Final = "/proc/self/fd/"


class Door(Descriptor):
    """The lock among processes: ``flock`` on a description of one's own.

    ``path`` leads to the file: ``/proc/self/fd/N`` for a memfd that this process has open. Once
    the door is there, it is itself what leads to a memfd.
    """

    flock = staticmethod(fcntl.flock)
    """Called with ``fd`` and TRY (BlockingIOError where it is taken), WAIT or RELEASE."""

    def __init__(self, path: str) -> None:
        self._name = "" if path.startswith(_OPEN) else path
        super().__init__(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    @property
    def _path(self) -> str:
        return self._name or f"{_OPEN}{self.fd}"

    def reopened(self) -> Door:
        """This door through a new description, the old one closed; as it was where that fails."""
        self.checked()
        try:
            other = Door(self._path)
        except FileNotFoundError as err:
            if not self._name:
                raise  # No /proc, through which a memfd is opened.
            raise ClosedError(f"{self._path} is gone: the region's folder was removed") from err
        self.replace_by(other)
        return self
