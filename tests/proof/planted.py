"""A bug that several checks are to catch."""

from __future__ import annotations

import random
from typing import Any

from support import inside

SELDOM = 0.05


def sometimes_no_lock() -> None:
    """Now and then the lock is taken for granted, and an update lost."""
    real = inside.lock_enter_process

    def broken(lock: Any) -> None:
        real(lock)
        flock = inside.flock_of(lock)

        def granted(fd: int, operation: int) -> None:
            if operation == inside.RELEASE or random.random() > SELDOM:
                flock(fd, operation)

        inside.flock_of.set(lock, granted)

    inside.put("lock_enter_process", broken)
