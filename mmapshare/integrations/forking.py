"""Running one piece of code in several forked children, and telling what each of them said.

Each child writes to two pipes: messages, which are pickles with their length in front (text, rich
output, tracebacks), and whatever goes to its standard descriptors past Python. What a killed child
had not finished to say is dropped.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

import attrs

_POLL_S: Final = 0.02
_PIECE: Final = 1 << 16
_length = struct.Struct("<Q")


class Speaker:
    """In a child: says things to the parent. As a stream it stands in for ``sys.stdout``."""

    encoding = "utf-8"

    def __init__(self, fd: int, kind: str = "stdout") -> None:
        self._fd = fd
        self._kind = kind

    def say(self, kind: str, what: Any) -> None:
        raw = memoryview(pickle.dumps((kind, what)))
        for piece in (_length.pack(len(raw)), raw):
            sent = 0
            while sent < len(piece):
                sent += os.write(self._fd, piece[sent:])

    def write(self, text: str) -> int:
        self.say(self._kind, text)
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


@attrs.define
class Forked:
    """In the parent: one child, and what was heard of it and not yet taken.

    Attributes:
        rank: its number, from 0 on.
        pid: its process.
        code: how it ended, as `os.waitstatus_to_exitcode` tells; None while it runs.
        late: it was stopped since its time was over.
    """

    rank: int
    pid: int
    _messages: int
    _raw: int
    code: int | None = None
    late: bool = False
    _partial: bytes = b""
    _heard: list[tuple[str, Any]] = attrs.Factory(list)

    def take(self) -> list[tuple[str, Any]]:
        """What was heard since the last time: (kind, what)."""
        heard, self._heard = self._heard, []
        return heard

    def pipes(self) -> tuple[tuple[int, Callable[[bytes], None]], ...]:
        return (self._messages, self._hear), (self._raw, self._hear_raw)

    def _hear(self, raw: bytes) -> None:
        self._partial += raw
        while len(self._partial) >= _length.size:
            end = _length.size + _length.unpack_from(self._partial)[0]
            if len(self._partial) < end:
                return
            self._heard.append(pickle.loads(self._partial[_length.size : end]))
            self._partial = self._partial[end:]

    def _hear_raw(self, raw: bytes) -> None:
        self._heard.append(("stdout", raw.decode(errors="replace")))

    def how_it_ended(self) -> str | None:
        """What is worth saying of it, None where there is nothing."""
        if self.late:
            return "stopped: its time was over"
        if self.code is not None and self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        return None


def fork_all(count: int, work: Callable[[int, Speaker], None]) -> list[Forked]:
    """Fork ``count`` children, each of which does ``work(rank, speaker)`` and ends."""
    children: list[Forked] = []
    try:
        for rank in range(count):
            children.append(_fork(rank, work))  # noqa: PERF401
    except BaseException:
        _end(children)
        _close(children)
        raise
    return children


def _fork(rank: int, work: Callable[[int, Speaker], None]) -> Forked:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with contextlib.ExitStack() as made:
        heard, said = _pipe(made)
        raw_heard, raw_said = _pipe(made)
        with warnings.catch_warnings():
            # Programs with threads, such as kernels, are warned of fork from 3.12 on. The child
            # runs in the thread that forked; what others hold is their own, see the module's users.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork() or _be_child(rank, work, said, raw_said)
        made.pop_all()
    os.close(said)
    os.close(raw_said)
    for fd in (heard, raw_heard):
        os.set_blocking(fd, False)
    return Forked(rank, pid, heard, raw_heard)


def _pipe(made: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for fd in ends:
        made.callback(os.close, fd)
    return ends


def _be_child(
    rank: int, work: Callable[[int, Speaker], None], said: int, raw_said: int
) -> NoReturn:
    code = 1
    try:
        os.dup2(raw_said, 1)
        os.dup2(raw_said, 2)
        speaker = Speaker(said)
        sys.stdout, sys.stderr = speaker, Speaker(said, "stderr")  # type: ignore[assignment]
        work(rank, speaker)
        code = 0
    except SystemExit:
        code = 0
    except BaseException:
        with contextlib.suppress(BaseException):
            import traceback

            Speaker(said).say("traceback", traceback.format_exc())
    finally:
        os._exit(code)


def listen(children: list[Forked], timeout_s: float | None) -> Iterator[None]:
    """Hear them until all have ended; yields when there may be something new.

    After ``timeout_s`` seconds those that still run are killed; so they are when the caller stops
    listening. None is left behind as a zombie.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for child in children:
            for fd, hear in child.pipes():
                selector.register(fd, selectors.EVENT_READ, hear)
        try:
            while any(child.code is None for child in children):
                _hear(selector, _POLL_S)
                for child in children:
                    _reap(child, os.WNOHANG)
                # Last words: a pipe holds no more than one piece.
                _hear(selector, 0)
                if deadline is not None and time.monotonic() > deadline:
                    for child in children:
                        child.late = child.code is None
                    _end(children)
                    _hear(selector, 0)
                yield
        finally:
            _end(children)
            _close(children)


def _hear(selector: selectors.BaseSelector, wait_s: float) -> None:
    for key, _ in selector.select(wait_s):
        raw = os.read(key.fd, _PIECE)
        if raw:
            key.data(raw)
        else:
            selector.unregister(key.fd)


def _reap(child: Forked, how: int) -> None:
    if child.code is None:
        pid, status = os.waitpid(child.pid, how)
        if pid:
            child.code = os.waitstatus_to_exitcode(status)


def _end(children: list[Forked]) -> None:
    for child in children:
        if child.code is None:
            os.kill(child.pid, signal.SIGKILL)
    for child in children:
        _reap(child, 0)


def _close(children: list[Forked]) -> None:
    for child in children:
        for fd, _ in child.pipes():
            os.close(fd)
