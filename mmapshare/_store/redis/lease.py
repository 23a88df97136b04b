"""The lock among processes and hosts: a lease on the server, in the place of a ``flock``.

`Lease` is what `Lock` calls its process lock. Taking it brings what was committed since; a commit
that is a block's last may let go of it. It has a token for each time it is taken, which begins with
a number of this process. Only one thread of a process stands before it at a time, so a lease with
such a token that is not the current one is a ghost: it was taken by a command whose answer an
interrupt has kept from us. It is broken when it is met.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
import weakref
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from ..._closed import CLOSED_HERE
from ..._lock import HOLDER, LOCK_WORDS, RELEASE_LOCK, THREAD, Backend, Lock, Pause, Watch
from ...errors import ClosedError, LockTimeout, MmapShareError
from .holder import Holder, this_process
from .resp import Refused, packed
from .scripts import BREAK, RELEASE

if TYPE_CHECKING:
    from .remote import RemoteStore

logger = logging.getLogger("mmapshare")

_CHUNK_S: Final = 0.5
"""So long one waits in line until one asks again."""
_TURN_S: Final = 3e-3
"""As in `scripts`."""
_PAUSE_S: Final = 0.01
_LOOK_S: Final = 0.2
"""Who has held the lock for so long may be looked at by his connection."""


@attrs.frozen
class Blocked:
    """Who has the lock, as one was told who wanted it."""

    token: bytes
    holder: Holder | None
    """None while the lock is only kept for who waits in line."""
    held_s: float
    left_s: float
    client_id: bytes
    turn_s: float
    """How long that process has had it, perhaps again and again."""
    at_s: float = attrs.field(factory=time.monotonic)


class Lease:
    """A share's lock on the server; see `_lock.process_lock.ProcessLock`, whose place it takes."""

    fd = 0
    closed = False

    def __init__(self, store: RemoteStore) -> None:
        # Weakly: with the last reference to the store its connections end.
        self._store: Any = weakref.proxy(store)
        self.blocked: Blocked | None = None
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Have nothing of the parent's."""
        self._prefix = os.urandom(8)
        self._numbers = itertools.count(1)
        self.token = b""
        """Of the lease that this process has, or has asked for; empty for none."""
        self.fence = b""
        self.who = this_process()
        self._who = self.who.packed()

    def checked(self) -> int:
        """The lock can be asked for."""
        if self.closed:
            raise ClosedError(CLOSED_HERE)
        return self.fd

    def stands(self) -> bool:
        try:
            return not (self.closed or self._store.wire.closed)
        except ReferenceError:  # In garbage that may go first.
            return False

    def close(self) -> None:
        self.closed = True

    # --- Taking and letting go -------------------------------------------------------------

    def flock(self, fd: int, operation: int) -> None:
        """One attempt, or release; BlockingIOError where another has it."""
        store = self._store
        if operation == RELEASE_LOCK:
            self._release()
        elif not store.is_unborn:
            if not store.wire.client_id:
                for wait, seconds in store.wire.anchoring(THREAD):
                    wait(seconds)
            arguments = self._arguments()
            self._understand(store.wire.run(store.take_script, store.names, *arguments))

    def _release(self) -> None:
        token = self.token
        if token:
            store = self._store
            if store.wire.has_given_up():  # Just now: the lease ends by itself, or as a ghost.
                self.token = b""
                return
            try:
                store.wire.run(RELEASE, store.names, store.region_id, token)
            except MmapShareError:
                self.token = b""
                raise
            self.token = b""  # Not after an interrupt: who was interrupted asks once more.

    def let_go(self) -> None:
        """It was given back together with a commit."""
        self.token = b""

    def _arguments(self) -> tuple[bytes, ...]:
        store = self._store
        if not self.token:
            self.token = self._prefix + next(self._numbers).to_bytes(8, "little")
        return (
            store.region_id,
            self.token,
            store.lease_us,
            self._who,
            store.wire.client_id,
            *store.take_arguments(),
        )

    def _understand(self, reply: list[Any]) -> None:
        what = reply[0]
        store = self._store
        if what == b"took":
            _, self.fence, died, *rest = reply
            self.blocked = None
            store.taken(rest)
            if died:
                self._report_dead(Holder.unpacked(died))
            return
        if what != b"held":
            store.refuse(reply)
        _, token, who, held_us, left_us, client_id, turn_us = reply
        self.blocked = Blocked(
            token,
            Holder.unpacked(who) if token else None,
            int(held_us) / 1e6,
            int(left_us) / 1e6,
            client_id,
            int(turn_us) / 1e6,
        )
        if token.startswith(self._prefix):
            self._break(token)
        raise BlockingIOError

    def _break(self, token: bytes) -> None:
        store = self._store
        store.wire.run(BREAK, store.names, store.region_id, token)

    # --- Waiting ---------------------------------------------------------------------------

    def take(
        self, words: memoryview, watch: Watch, backend: Backend
    ) -> Generator[Pause, None, bool]:
        """Take the lock; yields the pauses until then, and returns whether there were any."""
        store = self._store
        waited = False
        # A moment ago somebody had it: that need not be asked again.
        known = self.blocked is not None and time.monotonic() - self.blocked.at_s < 1e-3
        while True:
            if not known:
                yield from store.wire.anchoring(backend)
                arguments = self._arguments()
                try:
                    running = store.wire.running(
                        backend, store.take_script, store.names, *arguments
                    )
                    self._understand((yield from running))
                except BlockingIOError:
                    pass
                else:
                    return waited
            known, waited = False, True
            if (yield from self._freeing_from_dead(backend)):
                continue
            most_s = watch.at_most(_CHUNK_S)
            yield from self._wait_in_line(most_s, backend)

    def _freeing_from_dead(self, backend: Backend) -> Generator[Pause, None, bool]:
        """Whether the holder was gone, and its lease has been broken; by steps."""
        blocked = self.blocked
        assert blocked is not None
        if blocked.holder is None or not (yield from self._looking(blocked, backend)):
            return False
        self._break(blocked.token)
        self._report_dead(blocked.holder)
        return True

    def _report_dead(self, holder: Holder) -> None:
        logger.warning(
            "%s died holding the lock; its unfinished change is dropped, the value is whole", holder
        )

    def _wait_in_line(self, most_s: float, backend: Backend) -> Generator[Pause, None, None]:
        """Until somebody lets go, or the holder has ended; or so long."""
        blocked = self.blocked
        assert blocked is not None
        if blocked.holder is None:
            yield backend.sleep, min(most_s, blocked.left_s)
            return
        wire = self._store.wire
        if blocked.turn_s < _TURN_S:  # It may let go, and take it again, without a word to us.
            most_s = min(most_s, _TURN_S + 2e-3)
        wait_s = max(1e-3, min(most_s, blocked.left_s + 1e-3))
        pidfd = blocked.holder.watch()
        conn = None
        try:
            conn = yield from wire.taking(backend)
            conn.send(packed((b"BLPOP", self._store.names[1], b"%.3f" % wait_s)))
            end = time.monotonic() + wait_s + wire.reply_s
            fds = [conn.sock.fileno(), *([pidfd] if pidfd >= 0 else [])]
            while not conn.can_read() and time.monotonic() < end:
                yield partial(backend.readable, fds), end - time.monotonic()
                if pidfd >= 0 and blocked.holder.has_ended():
                    break
            else:
                refused = isinstance(conn.read(), Refused)
                wire.give_back(conn)
                conn = None
                if refused:
                    yield backend.sleep, _PAUSE_S
        except BaseException as err:
            if not wire.is_lost(err):
                raise
        finally:
            if conn is not None:
                conn.close()  # Whatever it pops, who is in line looks again soon.
            if pidfd >= 0:
                os.close(pidfd)

    def _looking(self, blocked: Blocked, backend: Backend) -> Generator[Pause, None, bool]:
        """Whether the holder is gone for certain, or the server has its connection no more."""
        holder = blocked.holder
        assert holder is not None
        if holder.is_beside_us():
            return holder.has_ended()
        if blocked.held_s < _LOOK_S or not blocked.client_id:
            return False
        with contextlib.suppress(MmapShareError):
            ask = (b"CLIENT", b"LIST", b"ID", blocked.client_id)
            found: bytes = yield from self._store.wire.calling(backend, *ask)
            return not found.strip()
        return False


class LeaseLock(Lock):
    """`Lock`, whose words are this process's alone: what they tell of all stands on the server."""

    __slots__ = ("_store",)

    def __init__(self, store: RemoteStore) -> None:
        self._store: Any = weakref.proxy(store)
        words = memoryview(bytearray(8 * (LOCK_WORDS.stop - LOCK_WORDS.start))).cast("Q")
        lease: Any = Lease(store)
        super().__init__(lease, words, 0, int.from_bytes(store.region_id[:8], "little"))

    @property
    def store(self) -> Any:
        """What it is the lock of."""
        return self._store

    @property
    def lease(self) -> Lease:
        lease: Any = self.process_lock
        return lease  # type: ignore[no-any-return]

    def after_fork_in_child(self) -> None:
        for word in range(len(self.words)):
            self.words[word] = 0
        super().after_fork_in_child()

    def _let_go(self) -> None:
        try:
            super()._let_go()
        except MmapShareError:  # What is on its way already says more; the lease ends by itself.
            super()._let_go()

    def timed_out(self) -> LockTimeout:
        blocked, lease = self.lease.blocked, self.lease
        if self.words[HOLDER] == self.pid:
            return super().timed_out()
        if blocked is None or blocked.holder is None:
            return LockTimeout(
                "the lock was not free in time; others stand in line for it",
                holder_pid=None,
                held_s=None,
            )
        here = ", this process" if blocked.holder == lease.who else ""
        return LockTimeout(
            f"the lock was not free in time: held {blocked.held_s:.1f} s by {blocked.holder}{here}"
            f", whose lease ends in {blocked.left_s:.1f} s; pass a longer timeout, or None to wait "
            "for as long as it takes",
            holder_pid=blocked.holder.pid,
            held_s=blocked.held_s,
        )

    def holder(self) -> tuple[int, float] | None:
        found = self.holding()
        return found and (found[0].pid, found[1])

    def holding(self) -> tuple[Holder, float] | None:
        """The same with all that is known of the holder."""
        token, *found = self._store.fields(b"lt", b"lh", b"lu", b"ls")
        if not token:
            return None
        seconds, micros = self._store.wire.call(b"TIME")
        now_us = 1_000_000 * int(seconds) + int(micros)
        holder = Holder.unpacked(found[0])
        if int(found[1]) <= now_us or (holder.is_beside_us() and holder.has_ended()):
            return None
        return holder, max(0.0, (now_us - int(found[2])) / 1e6)

    @property
    def contended(self) -> int:
        return int(self._store.fields(b"cw")[0] or 0)

    @property
    def found_dead(self) -> int:
        return int(self._store.fields(b"fd")[0] or 0)
