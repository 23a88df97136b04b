"""The two event loops, under which the same tests run, and what their tasks do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from .wanted import Wanted

trio = Wanted("trio")

Loop = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any], Callable[..., Any]]
"""How to run, to gather, to pause, and to make an event."""


async def add(share: Any, times: int, pause: Callable[..., Any]) -> None:
    """As a task: add 1 so often, with a pause inside of each block."""
    for _ in range(times):
        async with share.locked() as view:
            n = view["n"]
            await pause(0)
            view["n"] = n + 1


def loop_of(name: str) -> Loop:
    """That of "asyncio" or of "trio"."""
    if name == "asyncio":
        return _run_with_asyncio, _asyncio_gather, asyncio.sleep, asyncio.Event
    return trio.run, trio_gather, trio.sleep, trio.Event


def _run_with_asyncio(func: Callable[..., Any], *args: Any) -> Any:
    return asyncio.run(func(*args))


async def _asyncio_gather(*calls: Any) -> None:
    await asyncio.gather(*[func(*args) for func, *args in calls])


async def trio_gather(*calls: Any) -> None:
    async with trio.open_nursery() as nursery:
        for func, *args in calls:
            nursery.start_soon(func, *args)
