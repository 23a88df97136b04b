"""The queue of this process's threads, tasks and greenlets that wait for a lock."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final
from weakref import ref

from ..errors import DeadlockError
from .deadlock import Watch
from .hub import THREAD, Backend, Pause
from .owner import has_ended, here

if TYPE_CHECKING:
    from .lock import Lock
    from .token import LockToken

_RECHECK_S: Final = 0.05
_PATIENCE_S: Final = 2e-3
_SLEEPY_S: Final = 10e-3

_OWN_THREAD: Final = (
    "this thread holds the lock already, in another block, task or greenlet, and cannot let go "
    "while it waits here; leave that block first, or wait with  async with"
)


class Waiter:
    """One thread or task in the queue; ``wake`` wakes it."""

    __slots__ = ("__weakref__", "since_s", "thread", "wake", "woken_s")

    def __init__(self, wake: Callable[[], object]) -> None:
        self.since_s = time.monotonic()
        self.wake = wake
        self.woken_s: float | None = None
        """When it was woken, until it has woken up."""
        self.thread = here.owner


class Queue(deque["ref[Waiter]"]):
    """Waiters in order, weakly: an interrupt may have kept one from leaving.

    Without the GIL: it changes by one ``append`` and ``remove`` of a deque, which are atomic.
    """

    __slots__ = ()

    def wait_turn(
        self, lock: Lock, token: LockToken, watch: Watch, backend: Backend
    ) -> Iterator[Pause]:
        """Wait for the thread lock; done when the token has it, or its own owner does.

        DeadlockError where the one who has it is stuck while one waits.
        """
        # Else a thread that asks again at once would always be faster than one that must wake up.
        # But what waits in this very thread, a task, cannot wake up while the thread stands here.
        overtakes = not self.somebody_waits_long(backend is THREAD)
        event = backend.event()
        waiter = Waiter(event.set)
        try:
            # 1. Join the queue. 2. Look once more. A release between the two finds us.
            self.append(ref(waiter))
            while True:
                lock.clear_ended()
                if overtakes:
                    other = lock.thread_lock.setdefault(0, token)
                    if other is token or other._owner == token._owner:
                        return
                    # None: the holder is just leaving.
                    owner = other._owner
                    if owner is not None and not has_ended(owner) and backend.stuck(owner):
                        raise DeadlockError(_OWN_THREAD)
                overtakes = True
                yield event.wait, watch.at_most(_RECHECK_S)
                waiter.woken_s = None
        finally:
            with contextlib.suppress(ValueError):
                self.remove(ref(waiter))
            if not lock.thread_lock:  # Who gave up may have been woken in the next one's place.
                self.wake_first()

    def somebody_waits_long(self, blocks_thread: bool) -> bool:
        """Whether the first in the queue who can wake up has been there for long."""
        now = time.monotonic()
        for waiter in self._waiters():
            if blocks_thread and waiter.thread is here.owner:
                continue
            if waiter.woken_s is None or now - waiter.woken_s < _SLEEPY_S:
                return now - waiter.since_s > _PATIENCE_S
        return False

    def wake_first(self) -> None:
        """Wake the first in the queue, who leaves it by itself once it has the thread lock.

        And the next, where the first has been woken before: its event loop may be busy with
        something else, or at rest.
        """
        for waiter in self._waiters():
            with contextlib.suppress(RuntimeError):  # Awake already; or its loop has ended.
                waiter.wake()
            if waiter.woken_s is None:
                waiter.woken_s = time.monotonic()
                return

    def _waiters(self) -> Iterator[Waiter]:
        while True:
            with contextlib.suppress(RuntimeError):  # Another thread joined or left meanwhile.
                waiters = tuple(self)
                break
        for place in waiters:
            waiter = place()
            if waiter is not None:
                yield waiter
                continue
            with contextlib.suppress(ValueError):
                self.remove(place)
