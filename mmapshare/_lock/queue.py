"""The line of this process's threads, tasks and greenlets that wait for a lock."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final
from weakref import ref

from ..errors import DeadlockError
from .deadlock import Watch
from .hub import THREAD, Pause, Way
from .owner import has_ended, here

if TYPE_CHECKING:
    from .lock import Claim, Lock

_RECHECK_S: Final = 0.05
_PATIENCE_S: Final = 2e-3
_SLEEPY_S: Final = 10e-3

_OWN_THREAD: Final = (
    "this thread holds the lock already, in another block, task or greenlet, and cannot let go "
    "while it waits here; leave that block first, or wait with  async with"
)


class Waiter:
    """One thread or task in line at the gate; ``ring`` wakes it."""

    __slots__ = ("__weakref__", "ring", "rung_s", "since_s", "thread")

    def __init__(self, ring: Callable[[], object]) -> None:
        self.since_s = time.monotonic()
        self.ring = ring
        self.rung_s: float | None = None
        """When it was rung, until it has woken up."""
        self.thread = here.owner


class Queue(deque["ref[Waiter]"]):
    """Waiters in order, weakly: an interrupt may have kept one from leaving the line.

    Without the GIL: it changes by one ``append`` and ``remove`` of a deque, which are atomic.
    """

    __slots__ = ()

    def line_up(self, lock: Lock, claim: Claim, watch: Watch, way: Way) -> Iterator[Pause]:
        """Stand in line at the lock's gate; done when the claim has it, or its own owner does.

        DeadlockError where the one who has it is stuck while one waits.
        """
        # Else a thread that asks again at once would always be faster than one that must wake up.
        # But what waits in this very thread, a task, cannot wake up while the thread stands here.
        overtakes = not self.somebody_waits_long(way is THREAD)
        bell = way.bell()
        waiter = Waiter(bell.ring)
        try:
            # 1. Stand in line. 2. Look once more. A release between the two finds us.
            self.append(ref(waiter))
            while True:
                lock.clear_ended()
                if overtakes:
                    other = lock.gate.setdefault(0, claim)
                    if other is claim or other._owner == claim._owner:
                        return
                    # None: the holder is just leaving.
                    owner = other._owner
                    if owner is not None and not has_ended(owner) and way.stuck(owner):
                        raise DeadlockError(_OWN_THREAD)
                overtakes = True
                yield bell.wait, watch.at_most(_RECHECK_S)
                waiter.rung_s = None
        finally:
            with contextlib.suppress(ValueError):
                self.remove(ref(waiter))
            if not lock.gate:  # Who gave up may have got the ring that was meant for the next.
                self.wake_first()

    def somebody_waits_long(self, blocks_thread: bool) -> bool:
        """Whether the first in line who can wake up has been there for long."""
        now = time.monotonic()
        for waiter in self._waiters():
            if blocks_thread and waiter.thread is here.owner:
                continue
            if waiter.rung_s is None or now - waiter.rung_s < _SLEEPY_S:
                return now - waiter.since_s > _PATIENCE_S
        return False

    def wake_first(self) -> None:
        """Ring for the first in line, who leaves the line by itself once it has the gate.

        And for the next, where the first has been rung before: its event loop may be busy with
        something else, or at rest.
        """
        for waiter in self._waiters():
            with contextlib.suppress(RuntimeError):  # Awake already; or its loop has ended.
                waiter.ring()
            if waiter.rung_s is None:
                waiter.rung_s = time.monotonic()
                return

    def _waiters(self) -> Iterator[Waiter]:
        while True:
            with contextlib.suppress(RuntimeError):  # Another thread joined or left meanwhile.
                line = tuple(self)
                break
        for place in line:
            waiter = place()
            if waiter is not None:
                yield waiter
                continue
            with contextlib.suppress(ValueError):
                self.remove(place)
