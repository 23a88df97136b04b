"""Finding out that a wait can never end, across threads and processes.

Who has to wait for a lock while holding others writes into the header of each one that it holds
which region it waits for, and how to get at that. So from any lock one can follow: its holder
waits for that lock, whose holder waits for that one, and so on. If that leads to a lock that
one holds oneself, all of them wait for ever, and who finds it out gives up: a DeadlockError.

No false alarm: 1. I hold A and wait for B. 2. B's header says that its holder waits for A, or for
C, whose header says so. 3. Read a second time, all of it stands as it stood, each holder having
the lock since the same moment. As I hold A all the while, whoever waits for it goes on doing so,
but for one who waits with a timeout: that counts as a circle too.
What a killed process left in a header belongs to a holder that is not alive.

Who holds nothing else cannot be part of a circle, and blocks in the kernel without any of this.
"""

from __future__ import annotations

import os
import stat
import struct
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from .._weak import members
from ..errors import ClosedError, DeadlockError
from .interrupts import from_first_instruction
from .status import (
    HOLDER,
    LOCK_WORDS,
    REGION_ID_WORD,
    SINCE,
    WAITS_FD,
    WAITS_ID,
    WAITS_PID,
    alive,
)

_LOOK_S: Final = 5e-3
"""How often one looks whether a wait can still end."""
_LONGEST: Final = 64
"""Links that are followed."""
_words = struct.Struct(f"<{LOCK_WORDS.stop}Q")

locks: weakref.WeakSet[Any] = weakref.WeakSet()
"""All locks that this process has open."""


class Link(NamedTuple):
    """A lock, who holds it since when, and what that one waits for."""

    region_id: int
    pid: int
    since: int
    waits_id: int
    waits_pid: int
    waits_fd: int


class Watch:
    """One owner's wait for a lock. Where it holds others, these say so from `begin` to `over`.

    What it holds includes what those hold who cannot go on while it waits, as ``stuck`` tells:
    the thread that its event loop runs in, or tasks of a loop that it holds up. The wait lasts
    ``timeout_s`` seconds, None for ever.
    """

    __slots__ = ("_deadline", "_held", "_lock")

    def __init__(
        self,
        lock: Any,
        owner: object,
        stuck: Callable[[object], bool],
        timeout_s: float | None,
    ) -> None:
        self._lock = lock
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._held: list[Any] = [
            other for other in all_locks() if other is not lock and other.is_held_by(owner, stuck)
        ]

    def begin(self) -> None:
        """From now on `over` is owed."""
        lock = self._lock
        for other in self._held:
            words = other.words
            words[WAITS_PID], words[WAITS_FD] = os.getpid(), lock.process_lock.fd
            words[WAITS_ID] = lock.region_id

    @property
    def may_block(self) -> bool:
        """Whether the wait needs no look at anything until it is over."""
        return self._deadline is None and not self._held

    def at_most(self, seconds: float) -> float:
        """So long, or shorter, until one has to look again.

        DeadlockError where the wait can never end, LockTimeout where its time is over.
        """
        if self._held:
            circle = self._circle()
            if circle is not None and circle == self._circle():
                raise self._error(circle)
            seconds = min(seconds, _LOOK_S)
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - time.monotonic())
            if seconds <= 0:
                raise self._lock.timed_out()
        return seconds

    def over(self) -> None:
        """The wait has ended, one way or another."""
        try:
            for other in self._held:
                other.words[WAITS_ID] = 0
        except BaseException:
            for other in self._held:
                other.words[WAITS_ID] = 0
            raise

    def _circle(self) -> list[Link] | None:
        mine = {other.region_id for other in self._held}
        region_id, pid, fd = self._lock.region_id, os.getpid(), self._lock.process_lock.fd
        links: list[Link] = []
        while len(links) < _LONGEST:
            link = _read(region_id, pid, fd)
            if link is None or not link.pid or not link.waits_id or not alive(link.pid):
                return None
            links.append(link)
            if link.waits_id in mine:
                return links
            region_id, pid, fd = link.waits_id, link.waits_pid, link.waits_fd
        return None

    def _error(self, circle: list[Link]) -> DeadlockError:
        held = circle[-1].waits_id
        chain = "; ".join(
            f"share {name_of(link.region_id)} is held by pid {link.pid}, which waits for "
            f"share {name_of(link.waits_id)}"
            for link in circle
        )
        return DeadlockError(
            f"this wait could never end: {chain}, which this one holds (pid {os.getpid()}). "
            "Take shares together with mmapshare.locked(a, b), or in one order everywhere",
            waits_for=name_of(circle[0].region_id),
            holds=name_of(held),
            pids=(os.getpid(), *(link.pid for link in circle)),
        )


Watch.over = from_first_instruction(Watch.over)  # type: ignore[method-assign]


def all_locks() -> list[Any]:
    """Those of now; other threads may open and close some meanwhile."""
    return members(locks)


def name_of(region_id: int) -> str:
    """A region's name as ``repr`` of a share shows it."""
    return region_id.to_bytes(8, "little").hex()[:8]


def _read(region_id: int, pid: int, fd: int) -> Link | None:
    """What a region's header says; None where it cannot be reached from here."""
    for lock in all_locks():
        if lock.region_id == region_id:
            words = lock.words
            try:
                return Link(region_id, *(words[i] for i in (HOLDER, SINCE, *_WAITS)))
            except (ValueError, ClosedError):  # Another thread has closed it.
                return None
    raw = _header(f"/proc/{pid}/fd/{fd}")
    if len(raw) < _words.size:
        return None
    found = _words.unpack(raw)
    if found[REGION_ID_WORD] != region_id:
        return None
    words = found[LOCK_WORDS]
    return Link(region_id, *(words[i] for i in (HOLDER, SINCE, *_WAITS)))


def _header(path: str) -> bytes:
    """The first bytes of a file; nothing where it cannot be read, or is no plain file.

    The words that lead there may be damaged: opening a FIFO could block, or disturb a device.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.pread(opened, _words.size, 0)
        finally:
            os.close(opened)
    except OSError:
        return b""


_WAITS: Final = (WAITS_ID, WAITS_PID, WAITS_FD)
