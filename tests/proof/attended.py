"""Runs a check in a child that may crash or hang, and says at which of its events that was."""

from __future__ import annotations

import mmap
import os
import pickle
import select
import signal
import traceback
from collections.abc import Callable
from typing import Any

from lean import Events


class HangsError(BaseException):
    """An event took longer than any can. (No `Exception`: nobody is to catch it on the way.)"""


class Progress:
    """Which event the child is at, where its parent can read it after the child's death."""

    def __init__(self, most_s: float) -> None:
        self.most_s = most_s
        self._map = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def event(self) -> int | None:
        number = int.from_bytes(self._map[:8], "little")
        return number - 1 if number else None

    def at(self, number: int) -> None:
        """An event begins; HangsError is raised in it if it does not end in time."""
        self._map[:8] = (number + 1).to_bytes(8, "little")
        signal.setitimer(signal.ITIMER_REAL, self.most_s)

    def over(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


def attended(events: Events, check: Callable[[Progress], Any], most_s: float = 20) -> Any:
    """What ``check(progress)`` returns in a child; AssertionError, at its event, where it fails.

    ``most_s``: how long one event may take.
    """
    progress = Progress(most_s)
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        _serve(events, check, progress, ours)
    os.close(ours)
    answer = _heard(theirs, progress)
    if answer is None:  # Not even a signal handler runs there.
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(theirs)
    what, result, events.current, events.count = (
        pickle.loads(answer) if answer else (_ended(status), None, progress.event, events.count)
    )
    if what is not None:
        raise AssertionError(what)
    return result


def _heard(pipe: int, progress: Progress) -> bytes | None:
    """All that the child says; None where it stays for too long at one event."""
    said = []
    while True:
        before = progress.event
        if not select.select([pipe], [], [], 3 * progress.most_s)[0]:
            if before is not None and progress.event == before:
                return None
        elif piece := os.read(pipe, 1 << 16):
            said.append(piece)
        else:
            return b"".join(said)


def _ended(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"ended with {status} without an answer"
    name = signal.Signals(os.WTERMSIG(status)).name
    return "hangs" if name == "SIGKILL" else f"crashed: {name}"


def _serve(events: Events, check: Callable[[Progress], Any], progress: Progress, out: int) -> None:
    def hangs(signum: int, frame: object) -> None:
        raise HangsError(f"hangs: more than {progress.most_s} s")

    what = result = None
    try:
        signal.signal(signal.SIGALRM, hangs)
        result = check(progress)
    except BaseException:
        what = traceback.format_exc()
    finally:
        progress.over()
        answer = pickle.dumps((what, result, events.current, events.count))
        with open(out, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
