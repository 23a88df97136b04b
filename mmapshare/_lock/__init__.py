"""One owner at a time, over processes, threads, tasks and greenlets.

Knows owners, and the words that tell of them; never what the lock protects.
"""

from .deadlock import Watch
from .descriptor import Descriptor, Marked, StreamsTaken, duplicate_of, shut
from .hub import THREAD, Backend, Pause, hub
from .interrupts import (
    from_first_instruction,
    in_steps,
    is_ours,
    is_under_way,
    level_of_caller,
)
from .lock import Lock, current_owner
from .owner import ENDED, has_ended, here
from .process_lock import RELEASE as RELEASE_LOCK
from .process_lock import NamedLock, ProcessLock
from .status import HOLDER, LEASE, LOCK_WORDS, REGION_ID_WORD, alive
from .token import ClosingToken, LockToken, token_by

__all__ = [
    "ENDED",
    "HOLDER",
    "LEASE",
    "LOCK_WORDS",
    "REGION_ID_WORD",
    "RELEASE_LOCK",
    "THREAD",
    "Backend",
    "ClosingToken",
    "Descriptor",
    "Lock",
    "LockToken",
    "Marked",
    "NamedLock",
    "Pause",
    "ProcessLock",
    "StreamsTaken",
    "Watch",
    "alive",
    "current_owner",
    "duplicate_of",
    "from_first_instruction",
    "has_ended",
    "here",
    "hub",
    "in_steps",
    "is_ours",
    "is_under_way",
    "level_of_caller",
    "shut",
    "token_by",
]
