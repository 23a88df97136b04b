"""What a region's bytes say of things outside of it: how long its file is, and where locks are."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attended import Progress, attended
from lean import Events
from mutants_planted import PLANTED
from regions import REGIONS, outcome
from support import inside
from support.inside import (
    HEADER_BYTES,
    HOLDER,
    IDENTITY_BYTES,
    SINCE,
    TRY,
    WAITS,
    WAITS_FD,
    WAITS_ID,
    WAITS_PID,
    ProcessLock,
)

from mmapshare import CorruptRegionError, DeadlockError, LockTimeout, Share


def files(events: Events, count: int, planted: str | None = None) -> int:
    """Open files that were cut off anywhere, or grew; how many were refused."""

    def work(progress: Progress) -> int:
        damaged = REGIONS["small"]("file")
        if planted is not None:
            PLANTED[planted]()
        path = Path(inside.segment_of(damaged.share).folder or "") / "region"
        whole = path.stat().st_size
        refused = 0
        for number in events(range(count)):
            progress.at(number)
            rng = events.rng()
            near = rng.choice((0, 8, IDENTITY_BYTES, HEADER_BYTES, whole // 2, whole, 2 * whole))
            length = max(0, near + rng.choice((-1, 0, 1, rng.randrange(-4096, 4096))))
            damaged.put_back(3, None)
            os.truncate(path, length)
            opened = outcome(lambda share: damaged.opened_anew(), None)
            if isinstance(opened, Exception):
                assert type(opened) is CorruptRegionError and length != whole, (length, opened)
                refused += 1
            else:
                # The map of a file that was cut off afterwards is nobody's to save; not here.
                assert opened.get()["n"] == 2 and length == whole, length
                damaged.close_again(opened)
            os.truncate(path, whole)
            progress.over()
        inside.register_open(damaged.share)
        return refused

    return attended(events, work)


def waits(events: Events, count: int, planted: str | None = None, most_s: float = 20) -> int:
    """Wait for a lock with another one in hand, where the words that lead on say anything.

    I hold ``mine`` and want ``wanted``, which is taken; its holder waits for ``third``, which is
    found through the descriptor that stands beside. How many of the waits were refused as circles.
    """

    def work(progress: Progress) -> int:
        if planted is not None:
            PLANTED[planted]()
        mine, wanted, third = (Share(1, kind="memfd") for _ in range(3))
        inside.deadlock_locks.discard(
            inside.lock_of(third)
        )  # So that it is looked up as a stranger's.
        held = [inside.lock_words_of(inside.lock_of(share)) for share in (wanted, third)]
        taken = ProcessLock(f"/proc/self/fd/{inside.segment_of(wanted).fd}")
        taken.flock(taken.fd, TRY)
        with _odd_descriptors() as odd:
            words = _leading_on(wanted, third), _leading_on(third, third)
            values = [0, 1, 1 << 31, 1 << 63, (1 << 64) - 1, os.getpid(), os.getppid(), *odd]
            mine.lock()
            circles = 0
            for number in events(range(count)):
                progress.at(number)
                for where, good in zip(held, words, strict=True):
                    where[:] = good
                rng = events.rng()
                for _ in range(rng.randrange(1, 4)):
                    where = rng.choice(held)
                    value = rng.choice((*values, *held[1], rng.getrandbits(64)))
                    where[rng.choice((HOLDER, *WAITS, *WAITS, rng.randrange(9)))] = value
                found = outcome(lambda share: share.lock(timeout=0), wanted)
                assert type(found) in {LockTimeout, DeadlockError}, repr(found)
                circles += type(found) is DeadlockError
                progress.over()
        return circles

    return attended(events, work, most_s)


def _leading_on(share: Any, to: Any) -> memoryview:
    """The lock's words where its holder, who is alive, waits for another share."""
    words = memoryview(array("Q", inside.lock_words_of(inside.lock_of(share))))
    words[HOLDER], words[SINCE] = os.getppid(), 1
    words[WAITS_ID] = inside.lock_of(to).region_id
    words[WAITS_PID], words[WAITS_FD] = os.getpid(), inside.segment_of(to).fd
    return words


@contextlib.contextmanager
def _odd_descriptors() -> Iterator[list[int]]:
    """A FIFO that nobody writes to, a socket, a folder and a device."""
    with socket.socket(socket.AF_UNIX) as unconnected, tempfile.TemporaryDirectory() as folder:
        fifo = os.path.join(folder, "fifo")
        os.mkfifo(fifo)
        fds = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in (fifo, "/", "/dev/zero")]
        yield [*fds, unconnected.fileno()]
        for fd in fds:
            os.close(fd)
