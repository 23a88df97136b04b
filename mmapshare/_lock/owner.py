"""Who acts: the thread, the greenlet in it, or the task. The process is told apart by fork hooks.

An owner is a weak reference to what runs, and compared by equality only: to the running task
where there is one (asyncio's; trio's together with its thread), else to the greenlet, else to an
object that lives as long as the thread does. So two of them that interleave in one thread
exclude each other as two threads do; what comes later is never taken for what was before, as it
would be by an ident, which the system gives out again; and it can be told that an owner has
ended.
"""

from __future__ import annotations

import sys
from threading import local
from typing import Any, Final
from weakref import ref

_modules = sys.modules


class _Thread:
    """One thread, for as long as it runs."""

    __slots__ = ("__weakref__", "main")

    def __init__(self) -> None:
        self.main = _main_greenlet() if _GREENLET in _modules else None
        """Where gevent or eventlet has put its own `threading.local` in place, there is one of
        these for each greenlet; those of one thread have this in common."""


class _Here(local):
    """What is the calling thread's alone; `owner` is the thread as an owner."""

    def __init__(self) -> None:
        self.thread = _Thread()
        self.owner = ref(self.thread)


_GREENLET: Final = "greenlet._greenlet"


def _main_greenlet() -> object:
    greenlet: Any = _modules[_GREENLET].getcurrent()
    return _root(greenlet)


def _root(greenlet: Any) -> object:
    while greenlet.parent is not None:
        greenlet = greenlet.parent
    return greenlet


def in_trio() -> bool:
    """Whether the caller runs in a task of trio's."""
    lowlevel: Any = getattr(_modules.get("trio"), "lowlevel", None)
    if lowlevel is None:
        return False
    if hasattr(lowlevel, "in_trio_task"):  # trio 0.27 on.
        return bool(lowlevel.in_trio_task())
    try:
        lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def running_task() -> object | None:
    """The task of asyncio's that the caller runs in; None where there is none."""
    # While asyncio is half imported by another thread, no loop of ours can be running yet.
    events = _modules.get("asyncio.events")
    running_loop = getattr(events, "_get_running_loop", None)
    if running_loop is None:
        return None
    loop = running_loop()
    if loop is None:
        return None
    task: object | None = _modules["asyncio.tasks"].current_task(loop)
    return task


def has_ended(owner: Any) -> bool:
    """Whether ``owner`` is over: it can let go of nothing any more. None is nobody."""
    if owner is None or isinstance(owner, tuple):
        return any(map(has_ended, owner or ()))
    runs = owner()
    if runs is None:
        return True
    if isinstance(runs, _Thread):
        return False
    if hasattr(runs, "get_loop"):
        return bool(runs.done() or runs.get_loop().is_closed())
    if hasattr(runs, "dead"):
        return bool(runs.dead)
    return getattr(runs.coro, "cr_frame", runs) is None


def shares_thread(owner: Any) -> bool:
    """Whether ``owner`` runs in the caller's thread, so that waiting for it here cannot end.

    A task whose loop stands still counts too: nobody lets it go on.
    """
    if isinstance(owner, tuple):
        (owner, _) = owner
    runs = owner()
    if runs is None:
        return False
    if isinstance(runs, _Thread):
        return owner is here.owner or (runs.main is not None and runs.main is _main_greenlet())
    loop = loop_of(runs)
    if loop is None:
        return _root(runs) is _main_greenlet()
    events: Any = _modules["asyncio.events"]
    return loop is events._get_running_loop() or not loop.is_running()


def stands_still(owner: Any) -> bool:
    """As `shares_thread`, for who waits through a hub: of its thread only a loop is held up."""
    if not shares_thread(owner):
        return False
    if isinstance(owner, tuple):
        return in_trio()
    loop = loop_of(owner())
    if loop is None:
        return False
    return not loop.is_running() or running_task() is not None


def loop_of(runs: Any) -> Any:
    """The event loop of what an owner refers to; None where it is no task of asyncio's."""
    return runs.get_loop() if hasattr(runs, "get_loop") else None


here: Final = _Here()
ENDED: Final[Any] = ref(_Thread())
"""The owner of a token that was taken from an owner that had ended."""
