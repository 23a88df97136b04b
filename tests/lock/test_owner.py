"""Who acts, where an event loop's modules are half there, or old."""

import asyncio
import sys
import weakref
from types import ModuleType

import pytest
from support import Wanted
from support.inside import (
    ENDED,
    ThreadOwner,
    current_owner,
    here,
    in_trio,
    shares_thread,
    stands_still,
)

from mmapshare import Share, ViewClosedError

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


def test_who_is_held_up_while_one_waits_through_a_hub():
    """Other greenlets of the thread run on; a loop that stands still does not."""
    other = ThreadOwner()
    assert not shares_thread(ENDED) and not stands_still(ENDED)
    assert not stands_still(here.owner)
    assert not stands_still((here.owner, weakref.ref(other)))
    found = []

    async def main():
        found.append(stands_still(current_owner()))
        asyncio.get_running_loop().call_soon(lambda: found.append(stands_still(owner)))
        owner = current_owner()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert found == [True, False]
    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    assert stands_still(weakref.ref(task))
    loop.run_until_complete(task)
    loop.close()

    async def in_a_task():
        assert stands_still(current_owner())

    trio.run(in_a_task)
