"""Who acts, where an event loop's modules are half there, or old."""

import asyncio
import sys
from types import ModuleType

import pytest
from support import Wanted

from mmapshare import Share, ViewClosedError
from mmapshare._owner import current_owner, here, in_trio

trio = Wanted("trio")


@pytest.mark.parametrize("name", ["trio", "asyncio.events"])
def test_while_a_loops_modules_are_half_imported_the_thread_is_the_owner(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert current_owner() == here.owner
    assert not in_trio()
    monkeypatch.delitem(sys.modules, name)
    assert current_owner() == here.owner


def test_without_trios_own_question_its_tasks_exclude_each_other(monkeypatch):
    """in_trio_task came with trio 0.27."""
    monkeypatch.delattr(trio.lowlevel, "in_trio_task")
    share = Share([])
    assert current_owner() == here.owner

    async def work(name):
        async with share.locked() as view:
            await trio.sleep(0)
            view.append(name)

            async def other():
                with pytest.raises(ViewClosedError, match="another thread or task"):
                    view.append("other")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(other)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, "a")
            nursery.start_soon(work, "b")

    trio.run(main)
    assert sorted(share.get()) == ["a", "b"]
    assert current_owner() == here.owner


def test_a_loop_that_runs_no_task_leaves_the_thread_the_owner():
    owners, tasks = [], []

    async def main():
        owners.append(current_owner())
        tasks.append(owners[0]())
        called = asyncio.Event()
        asyncio.get_running_loop().call_soon(lambda: (owners.append(current_owner()), called.set()))
        await called.wait()

    asyncio.run(main())
    assert isinstance(tasks[0], asyncio.Task)
    assert owners[1] == here.owner
