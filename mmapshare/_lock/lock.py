"""The lock: a gate among the threads of a process, then one among the processes.

Between processes it is a door: see `_lock.process_lock`.

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
from .hub import THREAD, Pause, Way, hub
from .interrupts import from_first_instruction, level_of_caller
from .owner import ENDED, has_ended, here, in_trio, running_task
from .process_lock import RELEASE, TRY, Door, attend
from .queue import Queue
from .status import CONTENDED, FOUND_DEAD, HOLDER, LEASE, SINCE, WAITS_ID, count

_modules = sys.modules
logger = logging.getLogger("mmapshare")
logger.addHandler(logging.NullHandler())

_LOOK_NS: Final = 100_000
"""For how long the descriptor's mark is not looked at again."""

_HAD_ENDED: Final = (
    "a thread, task or greenlet that had the lock of a share has ended without letting go; the "
    "lock was taken from it, and what its block had not committed is dropped. Use "
    "`with share.locked()`, or call unlock() where lock() was called"
)
_WHILE_CLEARING: Final = (
    "a signal handler or a finaliser asked for a lock just as this thread was taking it from an "
    "owner that had ended; let it leave a note, to be acted upon later"
)


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


class Claim:
    """One owner's claim on a lock, told from others by identity.

    Without the GIL: ``_owner`` is written by its owner, or by the one thread that has the claim's
    clearing for itself (see `Lock._clear`); others read it by one load.

    A gate names the claim that has it, so that an interrupt between any two steps leaves a state
    that the same claim's release puts right, from any thread. ``_owner`` is None once the claim
    is void: its block is over, or it was the parent's and this is a forked child. (The name is
    a private one since a `View` is a claim too, and gives all public names to its value.)
    """

    __slots__ = ("_busy", "_inner", "_owner")

    _owner: object
    _inner: Claim | None
    """The view of a block between `lock` and `unlock`, which this claim covers."""
    _busy: bool
    """An operation of ours is in mid-step, or was when it was stopped; a block's body is not."""

    def _with_inner(self) -> list[Claim]:
        """This one, and what it covers if that was ever set.

        Asked of the slot itself: a view without one would look among its value's attributes.
        """
        try:
            inner = _INNER.__get__(self)
        except AttributeError:
            inner = None
        return [self] if inner is None else [self, inner]


_INNER: Any = Claim.__dict__["_inner"]


class Closing(Claim):
    """The claim of who closes a lock, so that nobody is in it meanwhile."""

    __slots__ = ()


def claim_by(owner: object, kind: type[Claim] = Claim) -> Claim:
    """A new claim of ``owner``, by an operation that is under way."""
    claim = kind()
    claim._owner = owner
    claim._inner = None
    claim._busy = True
    return claim


class Lock:
    """Mutual exclusion over the threads, tasks and processes that share a region.

    ``words`` are the lock's own words of the shared header: who holds it, since when, two
    counters, whether somebody sleeps until the version changes, and what the holder waits for.
    They inform; exclusion never depends on them. ``version_offset`` is where the version stands
    in the mapping. ``region_id``: see `_lock.deadlock`.

    Without the GIL: the gate changes hands by one ``setdefault`` and one ``del`` or ``pop`` of a
    dict, which are atomic there.
    """

    __slots__ = (
        "__weakref__", "_clearing", "_fd", "_flock", "_look_ns", "_queue", "_version_offset",
        "door", "gate", "pid", "region_id", "words",
    )  # fmt: skip

    def __init__(self, door: Door, words: memoryview, version_offset: int, region_id: int) -> None:
        self.door = door
        self.words = words
        self._version_offset = version_offset
        self.region_id = region_id
        self._enter_process()
        deadlock.locks.add(self)

    def _enter_process(self) -> None:
        # At hand for what is done all the time.
        self._flock: Callable[[int, int], object] = self.door.flock
        self._fd = self.door.fd
        self._look_ns = 0  # From when on the descriptor's mark is looked at again.
        self.pid = os.getpid()
        """The process that this lock's gate belongs to."""
        self.gate: dict[int, Claim] = {}
        """At most one entry: the claim that has it; setdefault is atomic."""
        self._queue = Queue()
        self._clearing: dict[int, list[object]] = {}  # Likewise; see `_clear`.

    def after_fork_in_child(self) -> None:
        """Make the gate and the description anew; the parent's claim is void here."""
        inherited = self.claim
        self.door.after_fork_in_child()
        self._enter_process()
        if inherited is not None:
            for claim in inherited._with_inner():
                claim._owner = None

    @property
    def claim(self) -> Claim | None:
        """The claim that has the lock in this process, or is about to."""
        return self.gate.get(0)

    def acquire(self, claim: Claim, timeout_s: float | None) -> bool:
        """Take the lock for ``claim``, waiting at most ``timeout_s`` seconds, None for ever.

        False, with nothing taken, where the claim's own owner has it. Raises LockTimeout, or
        DeadlockError where a task of the caller's thread has it. After any exception `abandon`
        is still owed.
        """
        if not self._queue and self.gate.setdefault(0, claim) is claim:
            now_ns = monotonic_ns()
            if now_ns > self._look_ns:
                self._look(now_ns)
            try:
                self._flock(self._fd, TRY)
            except BlockingIOError:
                pass
            except OSError:
                self.door.checked()
                raise
            else:
                words = self.words
                if words[HOLDER]:
                    self._report_dead()
                words[SINCE] = now_ns
                words[HOLDER] = self.pid
                return True
        for wait, seconds in self._steps(claim, timeout_s, hub() or THREAD):
            wait(seconds)
        return self.gate.get(0) is claim

    def _look(self, now_ns: int) -> None:
        """See that the descriptor is ours, and need not be looked at for a while.

        A look at each turn costs a block 4 %. It is not needed: what closes our descriptor
        leaves its number empty (see `_lock.descriptor`), and flock fails. Only ``dup2`` onto that
        very number goes unseen, until the next look.
        """
        self.door.checked()
        self._look_ns = now_ns + _LOOK_NS

    def check_held(self) -> None:
        """ClosedError where the holder has lost the lock, because its descriptor was closed."""
        self.door.checked()

    async def acquire_async(self, claim: Claim, timeout_s: float | None) -> bool:
        """As `acquire`, in an event loop that runs on meanwhile.

        DeadlockError only where the holder is what this event loop itself runs in. Among the
        tasks and threads of the process one stands in line; at the door one tries again with
        pauses, since no event loop can wait for a ``flock``.
        """
        with importing:
            from .loop import TASK

        if not self._queue:
            self.gate.setdefault(0, claim)
        for wait, seconds in self._steps(claim, timeout_s, TASK):
            await wait(seconds)
        return self.gate.get(0) is claim

    def _steps(self, claim: Claim, timeout_s: float | None, way: Way) -> Iterator[Pause]:
        """Take the lock, unless the claim's own owner has it; yields the pauses until then."""
        self.clear_ended()
        held = self.gate.get(0)
        if held is not None and held is not claim and held._owner == claim._owner:
            return
        del held  # A view that is kept here could not be found to be over.
        watch = Watch(self, claim._owner, way.stuck, timeout_s)
        try:
            watch.begin()
            if self.gate.get(0) is not claim:
                yield from self._queue.line_up(self, claim, watch, way)
                if self.gate.get(0) is not claim:
                    return
            waited = yield from self.door.take(self.words, watch, way)
        finally:
            watch.over()
        if waited:
            count(self.words, CONTENDED)
        if self.words[HOLDER]:
            self._report_dead()
        self.words[SINCE] = monotonic_ns()
        self.words[HOLDER] = self.pid

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
            if not self.door.closed:  # In garbage the door may go first, and the lock with it.
                self.door.checked()
                raise
        del self.gate[0]
        if self._queue:
            self._queue.wake_first()
        if self.words[LEASE]:
            attend(self.words, self._version_offset)

    @from_first_instruction
    def abandon(self, claim: Claim) -> None:
        """Let go of whatever ``claim`` has, maybe nothing, however far it came."""
        try:
            if self.gate.get(0) is claim:
                self._take_out(claim)
        except BaseException:
            if self.gate.get(0) is claim:
                self._take_out(claim)
            raise

    def _take_out(self, claim: Claim) -> None:
        if has_ended(claim._owner):
            self._clear(claim, [current_owner()])
        else:
            self._let_go()

    def _let_go(self) -> None:
        # While this process has the gate, its pid stands there only if it has the lock too.
        if not self.door.closed:  # In garbage the door may go first, and its number is anybody's.
            if self.words[HOLDER] == self.pid:
                self.words[HOLDER] = 0
            if self.door.stands():
                self._flock(self._fd, RELEASE)
        self.gate.pop(0, None)
        self._queue.wake_first()
        if not self.door.closed and self.words[LEASE]:
            attend(self.words, self._version_offset)

    def clear_ended(self) -> None:
        """Take the lock from an owner that has ended, with a RuntimeWarning; else do nothing.

        It owns nothing, as it can let go of nothing. What its block had changed is dropped.
        """
        held = self.gate.get(0)
        if held is None or not has_ended(held._owner):
            return
        if self._clear(held, [current_owner()]):
            warnings.warn(_HAD_ENDED, RuntimeWarning, stacklevel=level_of_caller())

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
        found = self.gate.get(0) is claim
        if found:
            claim._owner = ENDED
            self._let_go()
        self._clearing.pop(0)
        return found

    def holds_own(self) -> bool:
        """Whether the caller itself has the lock."""
        held = self.gate.get(0)
        return held is not None and held._owner == current_owner()

    def is_held_by(self, owner: object, stuck: Callable[[object], bool]) -> bool:
        """Whether this owner has the lock, or one who is ``stuck`` while this one waits."""
        held = self.gate.get(0)
        holder = None if held is None or isinstance(held, Closing) else held._owner
        if holder is None or self.words[HOLDER] != self.pid:
            return False
        return holder == owner or stuck(holder)

    def take_lease(self, until_ns: int) -> None:
        """Say until when somebody may be asleep on the version; see `_shared.wait`."""
        self.words[LEASE] = until_ns

    def holder(self) -> tuple[int, float] | None:
        """The holder's pid and the seconds it has had the lock; None where it is free."""
        return status.holder(self.words)

    @property
    def contended(self) -> int:
        return int(self.words[CONTENDED])

    @property
    def found_dead(self) -> int:
        return int(self.words[FOUND_DEAD])

    def keep_out(self, claim: Claim) -> bool:
        """Give the gate to who is about to close; False where another thread is doing that.

        Until `abandon` nobody in this process can come by the lock. TransactionError where
        somebody has it.
        """
        other = self.gate.setdefault(0, claim)
        if not isinstance(other, Closing):
            raise TransactionError("close() while a block of this process runs; leave it first")
        return other is claim

    def close(self) -> None:
        deadlock.locks.discard(self)
        words, self.words = self.words, CLOSED
        let_go(words)
        self.door.close()
        self._fd = self.door.fd

    def _report_dead(self) -> None:
        self.door.checked()  # Is it we who are in somebody's block?
        count(self.words, FOUND_DEAD)
        self.words[WAITS_ID] = 0
        logger.warning(
            "pid %d died holding the lock; its unfinished change is dropped, the value is whole",
            self.words[HOLDER],
        )
