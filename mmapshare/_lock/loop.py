"""The event loop that the caller runs in, asyncio's or trio's: to pause, and to be woken.

Imported at the first ``async with``. Nothing here starts a thread; whichever loop runs is the
only one that is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from .._late import importing
from .owner import in_trio, loop_of, shares_thread

_modules = sys.modules


def _asyncio() -> Any:
    with importing:
        import asyncio

    return asyncio


class TaskEvent:
    """Wakes one task of the running event loop; `set` may be called from any thread."""

    def __init__(self) -> None:
        if in_trio():
            trio = _modules["trio"]
            self._event: Any = trio.Event()
            self._call_soon: Any = trio.lowlevel.current_trio_token().run_sync_soon
        else:
            asyncio = _asyncio()
            self._event = asyncio.Event()
            self._call_soon = asyncio.get_running_loop().call_soon_threadsafe

    def set(self) -> None:
        """Wake the task; RuntimeError where its loop has ended."""
        self._call_soon(self._event.set)

    async def wait(self, timeout_s: float) -> None:
        """Return after a set, or after ``timeout_s`` seconds."""
        if in_trio():
            trio = _modules["trio"]
            with trio.move_on_after(timeout_s):
                await self._event.wait()
            self._event = trio.Event()
            return
        try:
            async with _asyncio().timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()


async def pause(seconds: float) -> None:
    """Let the event loop run other tasks for at least so long."""
    if in_trio():
        await _modules["trio"].sleep(seconds)
        return
    await _asyncio().sleep(seconds)


async def readable(fds: Sequence[int], seconds: float) -> None:
    """Until one of these descriptors may be read from, at most so long."""
    if in_trio():
        trio = _modules["trio"]
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:

                async def wait(fd: int) -> None:
                    await trio.lowlevel.wait_readable(fd)
                    nursery.cancel_scope.cancel()

                for fd in fds:
                    nursery.start_soon(wait, fd)
        return
    asyncio = _asyncio()
    event, loop = asyncio.Event(), asyncio.get_running_loop()
    try:
        for fd in fds:
            loop.add_reader(fd, event.set)
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
    finally:
        for fd in fds:
            loop.remove_reader(fd)


def stands_below(owner: Any) -> bool:
    """Whether ``owner`` runs in the caller's thread, but in no task of the caller's event loop.

    It is what the event loop itself runs in, or a loop that stands still: waiting for it here
    cannot end, in however many tasks.
    """
    if not shares_thread(owner):
        return False
    if isinstance(owner, tuple):
        return not in_trio()
    loop = loop_of(owner())
    if loop is None:
        return True
    return loop is not _asyncio().get_running_loop()


class TaskBackend:
    """A task waits, and its event loop runs on."""

    event = TaskEvent
    sleep = staticmethod(pause)
    readable = staticmethod(readable)
    stuck = staticmethod(stands_below)


TASK: Final = TaskBackend()
