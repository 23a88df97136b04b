"""The lock: one among the threads of a process, then one among the processes.

Who waits for the first stands in a queue, see `_lock.queue`; the second is `_lock.process_lock`.

Robust mutexes, POSIX record locks and polling were measured and left out: the first turn a
co-owner's stray write into a crash, the second are dropped silently when any duplicate is
closed, the third starves.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import Any, Final
from weakref import ref

from .._closed import CLOSED, let_go
from .._late import importing
from ..errors import DeadlockError, LockTimeout, TransactionError
from . import deadlock, status
from .deadlock import Watch
from .hub import THREAD, Backend, Pause, hub
from .interrupts import from_first_instruction, level_of_caller
from .owner import ENDED, has_ended, here, in_trio, running_task
from .process_lock import RELEASE, TRY, ProcessLock, attend
from .queue import Queue
from .status import CONTENDED, FOUND_DEAD, HOLDER, LEASE, SINCE, WAITS_ID, count
from .token import ClosingToken, LockToken

_modules = sys.modules
logger = logging.getLogger("mmapshare")
logger.addHandler(logging.NullHandler())

_LOOK_NS: Final = 1_000_000
"""For how long the descriptor's mark is not looked at again."""


def current_owner() -> object:
    """The caller's identity: its task where one runs, else its greenlet, else its thread.

    asyncio, trio and greenlet are never imported for this: where nobody has, none can be running.
    A task comes first, since it may go on in a greenlet of its own for a while.
    """
    if "asyncio.tasks" in _modules:
        task = running_task()
        if task is not None:
            return ref(task)
    if "trio" in _modules and in_trio():
        return here.owner, ref(_modules["trio"].lowlevel.current_task())
    if "greenlet._greenlet" in _modules:
        greenlet = _modules["greenlet._greenlet"].getcurrent()
        if greenlet.parent is not None:  # Else it is the thread itself.
            return ref(greenlet)
    return here.owner


class Lock:
    """Mutual exclusion over the threads, tasks and processes that share a region.

    ``words`` are the lock's own words of the shared header: who holds it, since when, two
    counters, whether somebody sleeps until the version changes, and what the holder waits for.
    They inform; exclusion never depends on them. ``version_offset``: of the version in the mapping.
    ``region_id``: see `_lock.deadlock`.

    Without the GIL: the thread lock changes hands by one ``setdefault`` and one ``del`` or ``pop``
    of a dict, which are atomic there.
    """

    __slots__ = (
        "__weakref__", "_clearing", "_fd", "_flock", "_look_ns", "_queue", "_version_offset",
        "known", "pid", "process_lock", "region_id", "thread_lock", "words",
    )  # fmt: skip

    def __init__(
        self, process_lock: ProcessLock, words: memoryview, version_offset: int, region_id: int
    ) -> None:
        self.process_lock = process_lock
        self.words = words
        self._version_offset = version_offset
        self.region_id = region_id
        self._enter_process()
        deadlock.locks.add(self)

    def _enter_process(self) -> None:
        self._flock: Callable[[int, int], object] = self.process_lock.flock
        self._fd = self.process_lock.fd
        self._look_ns = 0  # From when on the descriptor's mark is looked at again.
        self.pid = os.getpid()
        """The process that this thread lock belongs to."""
        self.thread_lock: dict[int, LockToken] = {}
        """At most one entry: the token that has it; setdefault is atomic."""
        self._queue = Queue()
        self._clearing: dict[int, list[object]] = {}  # Likewise; see `_clear`.
        self.known: Any = None
        """What a recorder knows of it (see `_trace.hooks`), where one runs."""

    def after_fork_in_child(self) -> None:
        """Make the thread lock and the description anew; the parent's token is void here."""
        inherited = self.token
        self.process_lock.after_fork_in_child()
        self._enter_process()
        if inherited is not None:
            for token in inherited._with_inner():
                token._owner = None

    @property
    def token(self) -> LockToken | None:
        """The token that has the lock in this process, or is about to."""
        return self.thread_lock.get(0)

    def acquire(self, token: LockToken, timeout_s: float | None) -> bool:
        """Take the lock for ``token``, waiting at most ``timeout_s`` seconds, None for ever.

        False, with nothing taken, where the token's own owner has it. Raises LockTimeout, or
        DeadlockError where a task of the caller's thread has it. After any exception `abandon`
        is still owed.
        """
        if not self._queue and self.thread_lock.setdefault(0, token) is token:
            now_ns = monotonic_ns()
            if now_ns > self._look_ns:
                self._look(now_ns)
            try:
                self._flock(self._fd, TRY)
            except BlockingIOError:
                pass
            except (OSError, ValueError):  # Perhaps it was closed just now, and has no number.
                self.process_lock.checked()
                raise
            else:
                words = self.words
                if words[HOLDER]:
                    self._report_dead()
                words[SINCE] = now_ns
                words[HOLDER] = self.pid
                return True
        for wait, seconds in self._steps(token, timeout_s, hub() or THREAD):
            wait(seconds)
        return self.thread_lock.get(0) is token

    def _look(self, now_ns: int) -> None:
        """See that the descriptor is ours, and need not be looked at for a while.

        A look at each turn costs a block 4 %. It is not needed: what closes our descriptor
        leaves its number empty (see `_lock.descriptor`), and flock fails. Only ``dup2`` onto that
        very number goes unseen, until the next look.
        """
        self.process_lock.checked()
        self._look_ns = now_ns + _LOOK_NS

    def check_held(self) -> None:
        """ClosedError where the holder has lost the lock, because its descriptor was closed."""
        self.process_lock.checked()

    async def acquire_async(self, token: LockToken, timeout_s: float | None) -> bool:
        """As `acquire`, in an event loop that runs on meanwhile.

        DeadlockError only where the holder is what this event loop itself runs in. For the process
        lock one tries again with pauses, since no event loop can wait for a ``flock``.
        """
        with importing:
            from .loop import TASK

        if not self._queue:
            self.thread_lock.setdefault(0, token)
        for wait, seconds in self._steps(token, timeout_s, TASK):
            await wait(seconds)
        return self.thread_lock.get(0) is token

    def _steps(
        self, token: LockToken, timeout_s: float | None, backend: Backend
    ) -> Iterator[Pause]:
        """Take the lock, unless the token's own owner has it; yields the pauses until then."""
        self.clear_ended()
        held = self.thread_lock.get(0)
        if held is not None and held is not token and held._owner == token._owner:
            return
        del held  # A view that is kept here could not be found to be over.
        watch = Watch(self, token._owner, backend.stuck, timeout_s)
        try:
            watch.begin()
            if self.thread_lock.get(0) is not token:
                yield from self._queue.wait_turn(self, token, watch, backend)
                if self.thread_lock.get(0) is not token:
                    return
            waited = yield from self.process_lock.take(self.words, watch, backend)
        finally:
            watch.over()
        if waited:
            count(self.words, CONTENDED)
        if self.words[HOLDER]:
            self._report_dead()
        self.words[SINCE] = monotonic_ns()
        self.words[HOLDER] = self.pid

    def try_acquire(self, token: LockToken) -> bool:
        """Take the lock if that needs no waiting."""
        try:
            return self.acquire(token, 0)
        except (LockTimeout, DeadlockError):
            self.abandon(token)
            return False

    def release(self) -> None:
        """Let go; the caller's token has the lock for certain. After an exception, `abandon`."""
        # Before the lock is free: a holder found later is one that died.
        self.words[HOLDER] = 0
        try:
            self._flock(self._fd, RELEASE)
        except OSError:
            if not self.process_lock.closed:  # In garbage that may go first, and the lock with it.
                self.process_lock.checked()
                raise
        del self.thread_lock[0]
        if self._queue:
            self._queue.wake_first()
        if self.words[LEASE]:
            attend(self.words, self._version_offset)

    @from_first_instruction
    def abandon(self, token: LockToken) -> None:
        """Let go of whatever ``token`` has, maybe nothing, however far it came."""
        try:
            if self.thread_lock.get(0) is token:
                self._take_out(token)
        except BaseException:
            if self.thread_lock.get(0) is token:
                self._take_out(token)
            raise

    def _take_out(self, token: LockToken) -> None:
        if has_ended(token._owner):
            self._clear(token, [current_owner()])
        else:
            self._let_go()

    def _let_go(self) -> None:
        # While a thread of ours has the thread lock, our pid stands there only if it has all of it.
        if not self.process_lock.closed:  # In garbage that may go first: its number is anybody's.
            if self.words[HOLDER] == self.pid:
                self.words[HOLDER] = 0
            if self.process_lock.stands():
                self._flock(self._fd, RELEASE)
        self.thread_lock.pop(0, None)
        self._queue.wake_first()
        if not self.process_lock.closed and self.words[LEASE]:
            attend(self.words, self._version_offset)

    def clear_ended(self) -> None:
        """Take the lock from an owner that has ended, with a RuntimeWarning; else do nothing.

        It owns nothing, as it can let go of nothing. What its block had changed is dropped.
        """
        held = self.thread_lock.get(0)
        if held is None or not has_ended(held._owner):
            return
        if self._clear(held, [current_owner()]):
            warnings.warn(
                "a thread, task or greenlet that had the lock of a share has ended without letting "
                "go; the lock was taken from it, and what its block had not committed is dropped. "
                "Use `with share.locked()`, or call unlock() where lock() was called",
                RuntimeWarning,
                stacklevel=level_of_caller(),
            )

    @from_first_instruction
    def _clear(self, token: LockToken, turn: list[object]) -> bool:
        """Take out the token of an owner that has ended; False where another is at it, or was.

        That token is anybody's to clear, and its own finaliser's: by turns, or the second one
        would release what a third has taken since. ``turn`` names the caller.
        """
        try:
            return self._clear_at(token, turn)
        except BaseException:
            self._clear_at(token, turn)
            raise

    def _clear_at(self, token: LockToken, turn: list[object]) -> bool:
        first = self._clearing.setdefault(0, turn)
        if first is not turn:
            if first[0] == turn[0]:
                raise DeadlockError(
                    "a signal handler or a finaliser asked for a lock just as this thread was "
                    "taking it from an owner that had ended; let it leave a note, to be acted upon "
                    "later"
                )
            return False
        found = self.thread_lock.get(0) is token
        if found:
            token._owner = ENDED
            self._let_go()
        self._clearing.pop(0)
        return found

    def holds_own(self) -> bool:
        """Whether the caller itself has the lock."""
        held = self.thread_lock.get(0)
        return held is not None and held._owner == current_owner()

    def is_held_by(self, owner: object, stuck: Callable[[object], bool]) -> bool:
        """Whether this owner has the lock, or one who is ``stuck`` while this one waits."""
        held = self.thread_lock.get(0)
        holder = None if held is None or isinstance(held, ClosingToken) else held._owner
        if holder is None or self.words[HOLDER] != self.pid:
            return False
        return holder == owner or stuck(holder)

    def holder(self) -> tuple[int, float] | None:
        """The holder's pid and the seconds it has had the lock; None where it is free."""
        return status.holder(self.words)

    def timed_out(self) -> LockTimeout:
        """What a wait ends with whose time is over."""
        return status.timed_out(self.words)

    @property
    def contended(self) -> int:
        return int(self.words[CONTENDED])

    @property
    def found_dead(self) -> int:
        return int(self.words[FOUND_DEAD])

    def acquire_to_close(self, token: LockToken) -> bool:
        """Give the thread lock to who is about to close; False where another thread is doing that.

        Until `abandon` nobody in this process can come by the lock. TransactionError where
        somebody has it.
        """
        other = self.thread_lock.setdefault(0, token)
        if not isinstance(other, ClosingToken):
            raise TransactionError("close() while a block of this process runs; leave it first")
        return other is token

    def close(self) -> None:
        deadlock.locks.discard(self)
        words, self.words = self.words, CLOSED
        let_go(words)
        self.process_lock.close()
        self._fd = self.process_lock.fd

    def _report_dead(self) -> None:
        self.process_lock.checked()  # Is it we who are in somebody's block?
        count(self.words, FOUND_DEAD)
        self.words[WAITS_ID] = 0
        logger.warning(
            "pid %d died holding the lock; its unfinished change is dropped, the value is whole",
            self.words[HOLDER],
        )
