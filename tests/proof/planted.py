"""A bug that several checks are to catch."""

from __future__ import annotations

import random
from typing import Any

from mmapshare import _lock

SELDOM = 0.05


def sometimes_no_lock() -> None:
    """Now and then the lock is taken for granted, and an update lost."""
    real = _lock.Lock._enter_process

    def broken(lock: Any, door: Any) -> None:
        real(lock, door)
        flock = lock._flock

        def granted(fd: int, operation: int) -> None:
            if operation == _lock.RELEASE or random.random() > SELDOM:
                flock(fd, operation)

        lock._flock = granted

    _lock.Lock._enter_process = broken  # type: ignore[method-assign]
