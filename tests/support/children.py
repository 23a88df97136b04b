"""Forked children that talk to their parent, and other processes and users."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TESTS = str(Path(__file__).resolve().parent.parent)
"""The folder from which a program that is started imports `support`."""


class Child:
    """A forked child that runs ``func(child, *args)``; `say` and `hear` talk to the other side."""

    def __init__(self, func: Callable[..., Any], *args: Any) -> None:
        to_child, to_parent = os.pipe(), os.pipe()
        self.pid = os.fork()
        self.reaped: int | None = None
        if self.pid == 0:
            os.close(to_child[1])
            os.close(to_parent[0])
            self.reads, self.writes = to_child[0], to_parent[1]
            code = 1
            try:
                self.say(("result", func(self, *args)))
                code = 0
            except BaseException as err:
                traceback.print_exc()
                try:
                    self.say(("error", err))
                except BaseException:
                    self.say(("error", RuntimeError(repr(err))))
            finally:
                os._exit(code)
        os.close(to_child[0])
        os.close(to_parent[1])
        self.reads, self.writes = to_parent[0], to_child[1]

    def say(self, message: Any = None) -> None:
        raw = pickle.dumps(message)
        os.write(self.writes, len(raw).to_bytes(4, "little") + raw)

    def hear(self) -> Any:
        size = int.from_bytes(self.read(4), "little")
        return pickle.loads(self.read(size))

    def read(self, size: int) -> bytes:
        raw = b""
        while len(raw) < size:
            piece = os.read(self.reads, size - len(raw))
            if not piece:
                raise EOFError("the other side has ended")
            raw += piece
        return raw

    def result(self) -> Any:
        """What the function returned in the child; its exception is raised here."""
        what, value = self.hear()
        self.wait()
        if what == "error":
            raise value
        return value

    def sleeps(self) -> None:
        """Wait until the child waits for something."""
        stat = Path(f"/proc/{self.pid}/stat")
        while stat.read_text().rsplit(")", 1)[1].split()[0] != "S":
            pass

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        if self.reaped is None:
            _, status = os.waitpid(self.pid, 0)
            self.reaped = os.waitstatus_to_exitcode(status)
            os.close(self.reads)
            os.close(self.writes)
        return self.reaped


def in_child(func: Callable[..., Any], *args: Any) -> Any:
    """Run ``func(*args)`` in a forked child and return what it returns."""
    return Child(lambda child: func(*args)).result()


def of_the_dead(make: Callable[..., Any], *args: Any) -> bytes:
    """The pickle of what a process made that has ended."""
    return in_child(lambda: pickle.dumps(make(*args)))


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    """In a child, what root could not do as another user; whoever is not root is one already.

    Itself again afterwards: one that stays somebody else could not write down what it covered.
    """
    before = os.getresuid()
    if before[1] == 0:
        os.setresuid(65534, 65534, before[2])
    try:
        yield
    finally:
        os.setresuid(*before)


def stranger(shares: list[Any], code: str) -> None:
    """Run ``code`` in a new interpreter that got ``shares`` by their handles."""
    start = (
        "import pickle, sys; given = sys.stdin.buffer; sys.path[:] = pickle.load(given);"
        "shares = pickle.load(given); exec(pickle.load(given))"
    )
    given = b"".join(map(pickle.dumps, (sys.path, shares, textwrap.dedent(code))))
    done = subprocess.run([sys.executable, "-c", start], input=given, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
