"""The lock's words in a region's header: who holds it, who waits. They inform, and exclude nobody.

What each of them means, and who writes it, is told where the format of a region is.
"""

from __future__ import annotations

import os
import time
from typing import Final

from .. import _proc
from ..errors import LockTimeout

HOLDER, SINCE, CONTENDED, FOUND_DEAD, LEASE = range(5)
WAITS_ID, WAITS_PID, WAITS_FD = 5, 6, 7
BLOCKED: Final = 8
"""Indices among the lock's words."""

REGION_ID_WORD: Final = 2
"""Where the first half of the region's id stands in the header; enough to tell two apart."""
LOCK_WORDS: Final = slice(16, 25)
"""Where the lock's words stand in it."""
_WORD_MASK: Final = 2**64 - 1

_PERHAPS_WAITS: Final = (
    ". Should that one be waiting for this one to end (join, result), it must leave its block first"
)


def count(words: memoryview, word: int) -> None:
    """One more."""
    words[word] = words[word] + 1 & _WORD_MASK  # It may say anything.


def holder(words: memoryview) -> tuple[int, float] | None:
    """The holder's pid and the seconds it has had the lock; None where it is free."""
    pid, since_ns = words[HOLDER], words[SINCE]
    if not pid or not alive(pid):
        return None
    return pid, max(0.0, (time.monotonic_ns() - since_ns) / 1e9)


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def timed_out(words: memoryview) -> LockTimeout:
    """What a wait ends with whose time is over."""
    found = holder(words)
    if found is None:
        return LockTimeout(
            "the lock was not free in time; who held it is gone already",
            holder_pid=None,
            held_s=None,
        )
    pid, held_s = found
    whose = f"pid {pid}, a thread of this process" if pid == os.getpid() else _proc.called(pid)
    waits = _PERHAPS_WAITS if pid in {os.getpid(), os.getppid()} else ""
    return LockTimeout(
        f"the lock was not free in time: held {held_s:.1f} s by {whose}; "
        f"pass a longer timeout, or None to wait for as long as it takes{waits}",
        holder_pid=pid,
        held_s=held_s,
    )
