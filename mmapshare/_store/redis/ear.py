"""Hearing of commits: a subscription, on a connection of its own.

1. Subscribe. 2. Look at the version. 3. Wait for a message. A commit between any two of them is
seen by the look, or its message is there already. What a message says does not count: it wakes.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Final

from .refusals import explained
from .resp import Refused, packed
from .wire import Connection, Wire

if TYPE_CHECKING:
    from ..._lock import Backend, Pause

_CHUNK: Final = 1 << 16
_IDLE_MOST: Final = 2
_AGAIN_S: Final = 0.05


class Ears:
    """The subscriptions of one share in one process; each is taken out while it is in use."""

    def __init__(self, wire: Wire, channel: bytes) -> None:
        self._wire = wire
        self._channel = channel
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Leave the parent's to it."""
        self._idle: deque[Connection] = deque()

    def close(self) -> None:
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    def listening(
        self, stands: Callable[[], bool], timeout_s: float, backend: Backend
    ) -> Generator[Pause, None, None]:
        """Until a commit is heard of, at most so long; at once unless ``stands``.

        By steps: yields the pauses.
        """
        end = time.monotonic() + timeout_s
        ear = None
        try:
            ear = self._take()
            if stands():
                left_s = max(0.0, end - time.monotonic())
                yield partial(backend.readable, [ear.sock.fileno()]), left_s
            if len(self._idle) < _IDLE_MOST and not self._wire.closed:
                self._idle.append(ear)
                ear = None
        except BaseException as err:
            if not self._wire.is_lost(err):
                raise
            yield backend.sleep, min(_AGAIN_S, max(0.0, end - time.monotonic()))
        finally:
            if ear is not None:
                ear.close()

    def _take(self) -> Connection:
        """A subscription with nothing in it that came before."""
        while self._idle:
            with contextlib.suppress(IndexError):
                ear = self._idle.pop()
                if _is_emptied(ear):
                    return ear
                ear.close()
        ear = self._wire.fresh()
        try:
            ear.send(packed((b"SUBSCRIBE", self._channel)))
            reply = ear.read()
            if isinstance(reply, Refused):
                raise explained(reply)
            ear.sock.settimeout(0)
            return ear
        except BaseException:
            ear.close()
            raise


def _is_emptied(ear: Connection) -> bool:
    """Drop what came in; False where the server has ended it."""
    try:
        while ear.sock.recv(_CHUNK):
            pass
    except OSError as err:
        # Nothing more to read, said in the way of a plain socket, or of one with TLS.
        return isinstance(err, BlockingIOError) or type(err).__name__ == "SSLWantReadError"
    return False
