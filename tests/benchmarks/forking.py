"""Forked children that talk with their parent over two pipes, and end when it does."""

from __future__ import annotations

import json
import os
import select
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

CORES = sorted(os.sched_getaffinity(0))


class Line:
    """One end of a conversation: JSON, a line each."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read, self._write = os.fdopen(read_fd), os.fdopen(write_fd, "w")

    def send(self, message: Any = None) -> None:
        self._write.write(json.dumps(message) + "\n")
        self._write.flush()

    def receive(self) -> Any:
        """The other side's next message; EOFError once it is gone."""
        line = self._read.readline()
        if not line:
            raise EOFError("the other process has ended")
        return json.loads(line)

    def has_news(self) -> bool:
        """Whether a message, or the other side's end, waits to be received."""
        return bool(select.select([self._read], [], [], 0)[0])

    def close(self) -> None:
        self._read.close()
        self._write.close()


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """Run the block on one core, counted round and round.

    Processes that wake each other through a pipe are put on one core by the scheduler, and may
    stay there: they then take turns of milliseconds and never meet.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CORES[number % len(CORES)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def forked(job: Callable[[Line], None], core: int | None = None) -> Iterator[Line]:
    """Run ``job`` in a child for the time of the block, on one core or wherever it is put.

    A job that receives, or asks `Line.has_news`, cannot outlive its parent. Children that were
    forked later hold this one's pipe open too; they end first, the last one at once.
    """
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(from_child)
        os.close(to_child)
        _run(job, Line(from_parent, to_parent), core)
    os.close(from_parent)
    os.close(to_parent)
    line = Line(from_child, to_child)
    try:
        yield line
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        line.close()
        os.waitpid(pid, 0)


def _run(job: Callable[[Line], None], line: Line, core: int | None) -> None:
    try:
        with nullcontext() if core is None else on_core(core):
            job(line)
    except (EOFError, BrokenPipeError):
        pass  # The parent has seen enough.
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
