"""The lock: a gate among the threads of a process, then one among the processes.

Between processes it is a door: see `_lock.process_lock`.

Robust mutexes, POSIX record locks and polling were measured and left out: the first turn a
co-owner's stray write into a crash, the second are dropped silently when any duplicate is
closed, the third starves.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import Final
from weakref import ref

from .. import _proc
from .._closed import CLOSED, let_go
from .._late import importing
from ..errors import ClosedError, DeadlockError, HandleError, LockTimeout, TransactionError
from . import deadlock
from .deadlock import Watch, alive
from .hub import Eventlet, Gevent, ThreadBell, hub
from .interrupts import from_first_instruction
from .owner import (
    ENDED,
    Claim,
    current_owner,
    has_ended,
    here,
    is_ours,
    shares_thread,
    stands_still,
)
from .process_lock import RELEASE, TRY, WAIT, Door
from .status import CONTENDED, FOUND_DEAD, HOLDER, LEASE, QUEUED, SINCE, WAITS_ID

logger = logging.getLogger("mmapshare")
logger.addHandler(logging.NullHandler())

_WORD_MASK: Final = 2**64 - 1
_LOOK_NS: Final = 100_000
"""For how long the descriptor's mark is not looked at again."""
_NAPS: Final = 10
_NAP_S: Final = 50e-6
_BACKOFF_FIRST_S: Final = 50e-6
_BACKOFF_LAST_S: Final = 1e-3
_LEASE_MOST_NS: Final = 2_000_000_000
"""Nobody takes a lease for as long as that; see `_shared.wait`."""
_GATE_RECHECK_S: Final = 0.05
_PATIENCE_S: Final = 2e-3
_PATIENCE_NS: Final = int(_PATIENCE_S * 1e9)
_WAY_S: Final = (100e-6, 200e-6, 400e-6, 800e-6, 1600e-6)
"""For how long one stays away, at most, until somebody is in who has been blocked for long."""
_WATCH_S: Final = 5e-3
"""How often one looks whether a wait can still end."""
_SLEEPY_S: Final = 10e-3

_OWN_THREAD: Final = (
    "this thread holds the lock already, in another block, task or greenlet, and cannot let go "
    "while it waits here; leave that block first, or wait with  async with"
)

_PERHAPS_WAITS: Final = (
    ". Should that one be waiting for this one to end (join, result), it must leave its block first"
)
_HAD_ENDED: Final = (
    "a thread, task or greenlet that had the lock of a share has ended without letting go; the "
    "lock was taken from it, and what its block had not committed is dropped. Use "
    "`with share.locked()`, or call unlock() where lock() was called"
)
_WHILE_CLEARING: Final = (
    "a signal handler or a finaliser asked for a lock just as this thread was taking it from an "
    "owner that had ended; let it leave a note, to be acted upon later"
)


class _Waiter:
    """One thread or task in line at the gate; ``ring`` wakes it."""

    __slots__ = ("__weakref__", "ring", "rung_s", "since_s", "thread")

    def __init__(self, ring: Callable[[], object]) -> None:
        self.since_s = time.monotonic()
        self.ring = ring
        self.rung_s: float | None = None
        """When it was rung, until it has woken up."""
        self.thread = here.owner


class Closing(Claim):
    """The claim of who closes a lock, so that nobody is in it meanwhile."""

    __slots__ = ()

    def __init__(self, owner: object) -> None:
        self._owner = owner
        self._inner = None
        self._busy = True


class Lock:
    """Mutual exclusion over the threads, tasks and processes that share a region.

    ``words`` are the lock's own words of the shared header: who holds it, since when, two
    counters, whether somebody sleeps until the version changes, and what the holder waits for.
    They inform; exclusion never depends on them. ``version_offset`` is where the version stands
    in the mapping. ``region_id``: see `_lock.deadlock`.

    Without the GIL: the gate changes hands by one ``setdefault`` and one ``del`` or ``pop`` of a
    dict, and the line by one ``append`` and ``remove`` of a deque, which are atomic there.
    """

    __slots__ = (
        "__weakref__", "_clearing", "_door", "_fd", "_flock", "_gate", "_look_ns",
        "_version_offset", "_waiters", "pid", "region_id", "words",
    )  # fmt: skip

    def __init__(
        self,
        door: Door,
        words: memoryview,
        version_offset: int,
        region_id: int,
    ) -> None:
        self.words = words
        self._version_offset = version_offset
        self.region_id = region_id
        self._enter_process(door)
        deadlock.locks.add(self)

    def _enter_process(self, door: Door) -> None:
        self._door = door
        self._flock: Callable[[int, int], object] = door.flock
        self._fd = door.fd
        self._look_ns = 0  # From when on the descriptor's mark is looked at again.
        self.pid = os.getpid()
        """The process that this lock's gate belongs to."""
        self._gate: dict[int, Claim] = {}  # At most one entry; setdefault is atomic.
        self._waiters: deque[ref[_Waiter]] = deque()
        """Weakly: an interrupt may have kept one from leaving the line."""
        self._clearing: dict[int, list[object]] = {}  # Likewise; see `_clear`.

    def after_fork_in_child(self) -> Claim | None:
        """Make the gate and the description anew; returns the parent's claim, void here."""
        inherited = self._gate.get(0)
        try:
            self._enter_process(self._door.reopened())
        except (OSError, ClosedError):  # None to be had, or it is gone: again when it is wanted.
            self._enter_process(self._door)
            self._flock = self._reopen_and_flock
        return inherited

    def _reopen_and_flock(self, fd: int, operation: int) -> None:
        if operation != RELEASE:
            try:
                self._door = door = self._door.reopened()
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
            self._fd, self._flock = door.fd, door.flock
            self._flock(self._fd, operation)

    @property
    def claim(self) -> Claim | None:
        """The claim that has the lock in this process, or is about to."""
        return self._gate.get(0)

    def acquire(self, claim: Claim, timeout_s: float | None) -> bool:
        """Take the lock for ``claim``, waiting at most ``timeout_s`` seconds, None for ever.

        False, with nothing taken, where the claim's own owner has it. Raises LockTimeout, or
        DeadlockError where a task of the caller's thread has it. After any exception `abandon`
        is still owed.
        """
        if not self._waiters and self._gate.setdefault(0, claim) is claim:
            now_ns = monotonic_ns()
            if now_ns > self._look_ns:
                self._look(now_ns)
            try:
                self._flock(self._fd, TRY)
            except BlockingIOError:
                self._wait(claim, _deadline(timeout_s))
                now_ns = monotonic_ns()
            except OSError:
                self._door.checked()
                raise
        elif self._wait(claim, _deadline(timeout_s)):
            now_ns = monotonic_ns()
        else:
            return False
        words = self.words
        if words[HOLDER]:
            self._report_dead()
        words[SINCE] = now_ns
        words[HOLDER] = self.pid
        return True

    def _look(self, now_ns: int) -> None:
        """See that the descriptor is ours, and need not be looked at for a while.

        A look at each turn costs a block 4 %. It is not needed: what closes our descriptor
        leaves its number empty (see `_lock.descriptor`), and flock fails. Only ``dup2`` onto that
        very number goes unseen, until the next look.
        """
        self._door.checked()
        self._look_ns = now_ns + _LOOK_NS

    def check_held(self) -> None:
        """ClosedError where the holder has lost the lock, because its descriptor was closed."""
        self._door.checked()

    async def acquire_async(self, claim: Claim, timeout_s: float | None) -> bool:
        """As `acquire`, in an event loop that runs on meanwhile.

        DeadlockError only where the holder is what this event loop itself runs in. Among the
        tasks and threads of the process one stands in line; at the door one tries again with
        pauses, since no event loop can wait for a ``flock``.
        """
        with importing:
            from .loop import Bell, pause, stands_below

        self.clear_ended()
        if self._is_own(claim):
            return False
        deadline = _deadline(timeout_s)
        watch = Watch(self, claim._owner, stands_below)
        try:
            watch.begin()
            if self._waiters or self._gate.setdefault(0, claim) is not claim:
                bell = Bell()
                for left in self._line_up(claim, deadline, bell.ring, stands_below, watch):
                    await bell.wait(left)
                if self._gate.get(0) is not claim:
                    return False
            waited = False
            for pause_s in self._try_door(deadline, watch):
                waited = True
                await pause(pause_s)
        finally:
            watch.over()
        if waited:
            self._count(CONTENDED)
        if self.words[HOLDER]:
            self._report_dead()
        self.words[SINCE] = monotonic_ns()
        self.words[HOLDER] = self.pid
        return True

    def try_acquire(self, claim: Claim) -> bool:
        """Take the lock if that needs no waiting."""
        try:
            return self.acquire(claim, 0)
        except (LockTimeout, DeadlockError):
            self.abandon(claim)
            return False

    def release(self) -> None:
        """Let go; the caller's claim has the lock for certain. After an exception, `abandon`."""
        # Before the lock is free: a holder found later is one that died.
        self.words[HOLDER] = 0
        try:
            self._flock(self._fd, RELEASE)
        except OSError:
            if not self._door.closed:  # In garbage the door may go first, and the lock with it.
                self._door.checked()
                raise
        del self._gate[0]
        if self._waiters:
            self._wake_first()
        if self.words[LEASE]:
            self._attend()

    @from_first_instruction
    def abandon(self, claim: Claim) -> None:
        """Let go of whatever ``claim`` has, maybe nothing, however far it came."""
        try:
            if self._gate.get(0) is claim:
                self._take_out(claim)
        except BaseException:
            if self._gate.get(0) is claim:
                self._take_out(claim)
            raise

    def _take_out(self, claim: Claim) -> None:
        if claim._owner is not None and has_ended(claim._owner):
            self._clear(claim, [current_owner()])
        else:
            self._let_go()

    def _let_go(self) -> None:
        # While this process has the gate, its pid stands there only if it has the lock too.
        if not self._door.closed:  # In garbage the door may go first, and its number is anybody's.
            if self.words[HOLDER] == self.pid:
                self.words[HOLDER] = 0
            if self._door.stands():
                self._flock(self._fd, RELEASE)
        self._gate.pop(0, None)
        self._wake_first()
        if not self._door.closed and self.words[LEASE]:
            self._attend()

    def clear_ended(self) -> None:
        """Take the lock from an owner that has ended, with a RuntimeWarning; else do nothing.

        It owns nothing, as it can let go of nothing. What its block had changed is dropped.
        """
        held = self._gate.get(0)
        owner = None if held is None else held._owner
        if held is None or owner is None or not has_ended(owner):
            return
        if self._clear(held, [current_owner()]):
            warnings.warn(_HAD_ENDED, RuntimeWarning, stacklevel=_callers_level())

    @from_first_instruction
    def _clear(self, claim: Claim, turn: list[object]) -> bool:
        """Take out the claim of an owner that has ended; False where another is at it, or was.

        That claim is anybody's to clear, and its own finaliser's: by turns, or the second one
        would open the door that a third has come in by. ``turn`` names the caller.
        """
        try:
            return self._clear_at(claim, turn)
        except BaseException:
            self._clear_at(claim, turn)
            raise

    def _clear_at(self, claim: Claim, turn: list[object]) -> bool:
        first = self._clearing.setdefault(0, turn)
        if first is not turn:
            if first[0] == turn[0]:
                raise DeadlockError(_WHILE_CLEARING)
            return False
        found = self._gate.get(0) is claim
        if found:
            claim._owner = ENDED
            self._let_go()
        self._clearing.pop(0)
        return found

    def holds_own(self) -> bool:
        """Whether the caller itself has the lock."""
        held = self._gate.get(0)
        return held is not None and held._owner == current_owner()

    def is_held_by(self, owner: object, stuck: Callable[[object], bool]) -> bool:
        """Whether this owner has the lock, or one who is ``stuck`` while this one waits."""
        held = self._gate.get(0)
        holder = None if held is None or isinstance(held, Closing) else held._owner
        if holder is None or self.words[HOLDER] != self.pid:
            return False
        return holder == owner or stuck(holder)

    def take_lease(self, until_ns: int) -> None:
        """Say until when somebody may be asleep on the version; see `_shared.wait`."""
        self.words[LEASE] = until_ns

    def _attend(self) -> None:
        """After letting go: make way for who is blocked at the door, wake who is asleep."""
        words, now_ns = self.words, monotonic_ns()
        queued = words[QUEUED]
        # A moment that lies far ahead is damage, and goes as one that is long over does.
        if queued and abs(now_ns - queued) > _PATIENCE_NS:
            # flock hands nothing over: who is woken finds the lock taken again, if the one who
            # let go comes back faster, and that for as long as it goes on.
            words[QUEUED] = 0
            for pause_s in _WAY_S:
                time.sleep(pause_s)
                if words[HOLDER]:
                    break
        lease = words[LEASE]
        if lease > now_ns:
            with importing:
                from .futex import wake

            wake(words, self._version_offset)
            if lease > now_ns + _LEASE_MOST_NS:
                words[LEASE] = 0
        elif lease:
            # Who takes a lease this very moment may be woken late, by the longest sleep.
            words[LEASE] = 0
            if words[QUEUED]:  # Asked for afterwards: it may be new.
                words[LEASE] = 1

    def _queue(self) -> None:
        """Say that somebody may be blocked at the door, from now on."""
        self.words[QUEUED] = monotonic_ns()
        self._ask_attention()

    def _ask_attention(self) -> None:
        self.words[LEASE] = self.words[LEASE] or 1

    def holder(self) -> tuple[int, float] | None:
        """The holder's pid and the seconds it has had the lock; None where it is free."""
        pid, since_ns = self.words[HOLDER], self.words[SINCE]
        if not pid or not alive(pid):
            return None
        return pid, max(0.0, (time.monotonic_ns() - since_ns) / 1e9)

    @property
    def region_fd(self) -> int:
        """Where others find the region in this process, as long as it has it open."""
        return self._door.fd

    @property
    def contended(self) -> int:
        return int(self.words[CONTENDED])

    @property
    def found_dead(self) -> int:
        return int(self.words[FOUND_DEAD])

    def keep_out(self, claim: Closing) -> bool:
        """Give the gate to who is about to close; False where another thread is doing that.

        Until `abandon` nobody in this process can come by the lock. TransactionError where
        somebody has it.
        """
        other = self._gate.setdefault(0, claim)
        if not isinstance(other, Closing):
            raise TransactionError("close() while a block of this process runs; leave it first")
        return other is claim

    def close(self) -> None:
        deadlock.locks.discard(self)
        words, self.words = self.words, CLOSED
        let_go(words)
        self._door.close()
        self._fd = self._door.fd

    # --- The slow ways ---------------------------------------------------------------------

    def _wait(self, claim: Claim, deadline: float | None) -> bool:
        """Wait at the gate, if the claim has not got it, then at the door.

        False where the claim's own owner has the lock.
        """
        self.clear_ended()
        if self._is_own(claim):
            return False
        through = hub()
        stuck = shares_thread if through is None else stands_still
        watch = Watch(self, claim._owner, stuck)
        try:
            watch.begin()
            if self._gate.get(0) is not claim:
                bell = ThreadBell() if through is None else through.bell()
                for left in self._line_up(claim, deadline, bell.ring, stuck, watch):
                    bell.wait(left)
                if self._gate.get(0) is not claim:
                    return False
            self._wait_for_door(deadline, watch, through)
        finally:
            watch.over()
        return True

    def _is_own(self, claim: Claim) -> bool:
        """Whether another claim of the same owner has the gate."""
        held = self._gate.get(0)
        return held is not None and held is not claim and held._owner == claim._owner

    def _line_up(
        self,
        claim: Claim,
        deadline: float | None,
        ring: Callable[[], object],
        hopeless: Callable[[object], bool],
        watch: Watch,
    ) -> Iterator[float]:
        """Stand in line at the gate; done when the claim has it, or its own owner does.

        Yields the seconds to wait for the ring at most. DeadlockError where the one who has it
        is a ``hopeless`` one to wait for.
        """
        # Else a thread that asks again at once would always be faster than one that must wake up.
        # But what waits in this very thread, a task, cannot wake up while the thread stands here.
        overtakes = not self._somebody_waits_long(hopeless is shares_thread)
        waiter = _Waiter(ring)
        try:
            # 1. Stand in line. 2. Look once more. A release between the two finds us.
            self._waiters.append(ref(waiter))
            while True:
                self.clear_ended()
                if overtakes:
                    other = self._gate.setdefault(0, claim)
                    if other is claim or other._owner == claim._owner:
                        return
                    # None: the holder is just leaving.
                    owner = other._owner
                    if owner is not None and not has_ended(owner) and hopeless(owner):
                        raise DeadlockError(_OWN_THREAD)
                overtakes = True
                watch.check()
                left = _WATCH_S if watch.needed else _GATE_RECHECK_S
                if deadline is not None:
                    left = min(left, deadline - time.monotonic())
                    if left <= 0:
                        raise self._timed_out()
                yield left
                waiter.rung_s = None
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(ref(waiter))
            if not self._gate:  # Who gave up may have got the ring that was meant for the next.
                self._wake_first()

    def _somebody_waits_long(self, blocks_thread: bool) -> bool:
        """Whether the first in line who can wake up has been there for long."""
        now = time.monotonic()
        for waiter in self._line():
            if blocks_thread and waiter.thread is here.owner:
                continue
            if waiter.rung_s is None or now - waiter.rung_s < _SLEEPY_S:
                return now - waiter.since_s > _PATIENCE_S
        return False

    def _wake_first(self) -> None:
        """Ring for the first in line, who leaves the line by itself once it has the gate.

        And for the next, where the first has been rung before: its event loop may be busy with
        something else, or at rest.
        """
        for waiter in self._line():
            with contextlib.suppress(RuntimeError):  # Awake already; or its loop has ended.
                waiter.ring()
            if waiter.rung_s is None:
                waiter.rung_s = time.monotonic()
                return

    def _line(self) -> Iterator[_Waiter]:
        while True:
            with contextlib.suppress(RuntimeError):  # Another thread joined or left meanwhile.
                line = tuple(self._waiters)
                break
        for place in line:
            waiter = place()
            if waiter is not None:
                yield waiter
                continue
            with contextlib.suppress(ValueError):
                self._waiters.remove(place)

    def _wait_for_door(
        self, deadline: float | None, watch: Watch, through: Gevent | Eventlet | None
    ) -> None:
        try:
            if through is not None:
                contended = self._poll_door(deadline, watch, through.sleep)
            elif deadline is None and not watch.needed:
                contended = self._nap_or_wait()
            else:
                contended = self._poll_door(deadline, watch, time.sleep)
            if contended:
                self._count(CONTENDED)
        except BaseException as err:
            err.__suppress_context__ = True  # That the first try failed is no part of the story.
            raise

    def _nap_or_wait(self) -> bool:
        """Try a few times with short naps, then block; whether it had to wait at all.

        Blocking at once would make the holder wake us, in the middle of its own work, each time
        it lets go for a moment.
        """
        for nap in range(_NAPS):
            try:
                self._try()
            except BlockingIOError:
                time.sleep(_NAP_S)
            else:
                return nap > 0
        if self.words[QUEUED]:
            self._ask_attention()
        else:
            self._queue()
        self._flock(self._door.checked(), WAIT)
        self._door.checked()  # If it was closed meanwhile, the lock went with it.
        self._queue()  # There may be others, who cannot say so.
        return True

    def _try(self) -> None:
        self._door.checked()
        self._flock(self._fd, TRY)

    def _poll_door(
        self, deadline: float | None, watch: Watch, sleep: Callable[[float], object]
    ) -> bool:
        """Try again with longer and longer pauses; whether it had to wait at all."""
        waited = False
        for pause_s in self._try_door(deadline, watch):
            waited = True
            sleep(pause_s)
        return waited

    def _try_door(self, deadline: float | None, watch: Watch) -> Iterator[float]:
        """Try until the door opens; yields the seconds to pause between two tries."""
        pause_s = _BACKOFF_FIRST_S
        while True:
            try:
                self._try()
            except BlockingIOError:
                pass
            else:
                return
            watch.check()
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._timed_out()
                pause_s = min(pause_s, left)
            yield pause_s
            pause_s = min(2 * pause_s, _BACKOFF_LAST_S)

    def _timed_out(self) -> LockTimeout:
        holder = self.holder()
        if holder is None:
            return LockTimeout(
                "the lock was not free in time; who held it is gone already",
                holder_pid=None,
                held_s=None,
            )
        pid, held_s = holder
        whose = f"pid {pid}, a thread of this process" if pid == self.pid else _called(pid)
        waits = _PERHAPS_WAITS if pid in {self.pid, os.getppid()} else ""
        return LockTimeout(
            f"the lock was not free in time: held {held_s:.1f} s by {whose}; "
            f"pass a longer timeout, or None to wait for as long as it takes{waits}",
            holder_pid=pid,
            held_s=held_s,
        )

    def _count(self, word: int) -> None:
        self.words[word] = self.words[word] + 1 & _WORD_MASK  # It may say anything.

    def _report_dead(self) -> None:
        self._door.checked()  # Is it we who are in somebody's block?
        self._count(FOUND_DEAD)
        self.words[WAITS_ID] = 0
        logger.warning(
            "pid %d died holding the lock; its unfinished change is dropped, the value is whole",
            self.words[HOLDER],
        )


def _called(pid: int) -> str:
    """A process with its command's name, where that can be told."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
            return f"pid {pid} ({name.read().strip()})"
    except OSError:
        return f"pid {pid}"


def _callers_level() -> int:
    """For a warning: how far up the one is who called this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and is_ours(frame):
        level, frame = level + 1, frame.f_back
    return level


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s
