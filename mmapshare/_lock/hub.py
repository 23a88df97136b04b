"""The ways to wait for a lock: to pause, and to be woken. Here those of a thread, and of greenlets.

A greenlet that waits must let the others of its thread run on, or the one that has the lock never
goes on. So it waits through the hub of gevent's or eventlet's that runs them, whether or not
anything was monkey-patched. Neither is ever imported first; where this thread has no hub, nor have
its greenlets anybody to run them. How a task waits: see `_lock.loop`.
"""

from __future__ import annotations

import importlib
import select
import sys
import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Final, Protocol

from .owner import shares_thread, stands_still

_modules = sys.modules
Pause = tuple[Callable[[float], Any], float]
"""What to wait with, and for how many seconds at most."""
_FIRST_PAUSE_S: Final = 100e-6
_LAST_PAUSE_S: Final = 10e-3


class Event(Protocol):
    """Wakes one who waits; `set` may be called from any thread."""

    def set(self) -> None: ...
    def wait(self, timeout_s: float) -> Any: ...


class Backend(Protocol):
    """How one waits. In an event loop, what `sleep` and `Event.wait` return is to be awaited."""

    def event(self) -> Event: ...
    def sleep(self, seconds: float, /) -> Any: ...
    def readable(self, fds: Sequence[int], seconds: float, /) -> Any:
        """Until one of these descriptors may be read from, at most so long."""

    def stuck(self, owner: Any, /) -> bool:
        """Whether that owner cannot go on while one waits so."""


class ThreadEvent:
    """Wakes a thread. A set before the wait is not lost; RuntimeError where it was set."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()
        self.set = self._lock.release

    def wait(self, timeout_s: float) -> object:
        return self._lock.acquire(timeout=timeout_s)


class ThreadBackend:
    """The whole thread waits."""

    event = ThreadEvent
    stuck = staticmethod(shares_thread)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def readable(self, fds: Sequence[int], seconds: float) -> None:
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        poll.poll(1000 * seconds)


THREAD: Final = ThreadBackend()


class _GeventEvent:
    def __init__(self) -> None:
        self._event: Any = importlib.import_module("gevent.event").Event()
        self.set = self._event.set

    def wait(self, timeout_s: float) -> None:
        self._event.wait(timeout_s)
        self._event.clear()


class GeventBackend:
    """gevent's hub."""

    event = _GeventEvent
    stuck = staticmethod(stands_still)

    def __init__(self) -> None:
        self.sleep: Any = importlib.import_module("gevent").sleep

    def readable(self, fds: Sequence[int], seconds: float) -> None:
        _look_again(self.sleep, fds, seconds)


def _look_again(sleep: Callable[[float], object], fds: Sequence[int], seconds: float) -> None:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    end = time.monotonic() + seconds
    pause_s = _FIRST_PAUSE_S
    while not poll.poll(0) and time.monotonic() < end:
        sleep(min(pause_s, seconds))
        pause_s = min(2 * pause_s, _LAST_PAUSE_S)


class EventletBackend:
    """eventlet's hub, which another thread cannot wake: one looks again and again."""

    stuck = staticmethod(stands_still)

    def __init__(self) -> None:
        self.sleep: Any = importlib.import_module("eventlet").sleep

    def event(self) -> Event:
        return _EventletEvent(self.sleep)

    def readable(self, fds: Sequence[int], seconds: float) -> None:
        _look_again(self.sleep, fds, seconds)


class _EventletEvent:
    def __init__(self, sleep: Any) -> None:
        self._sleep = sleep
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def wait(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        pause_s = _FIRST_PAUSE_S
        while not self._is_set and time.monotonic() < end:
            self._sleep(min(pause_s, timeout_s))
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)
        self._is_set = False


def hub() -> GeventBackend | EventletBackend | None:
    """What the caller can wait through; None where its whole thread has to wait."""
    greenlet = _modules.get("greenlet._greenlet")
    if greenlet is None:
        return None
    caller = greenlet.getcurrent()
    found = getattr(_modules.get("gevent._hub_local"), "get_hub_if_exists", lambda: None)()
    if found is not None and found is not caller:
        return GeventBackend()
    threads = getattr(_modules.get("eventlet.hubs"), "_threadlocal", None)
    found = getattr(threads, "hub", None)
    if found is not None and found.greenlet is not caller:
        return EventletBackend()
    return None
