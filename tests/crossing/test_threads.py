"""Threads, tasks and processes together: one owner at a time."""

import asyncio
import threading
import time

import pytest
from support import Child, inside

from mmapshare import DeadlockError, LockTimeout, Share, TransactionError, ViewClosedError


def test_threads_and_processes_add_up_exactly(make):
    share = make({"n": 0})

    def add(times):
        for _ in range(times):
            with share.locked() as view:
                view["n"] += 1

    def threads_in_a_child(child):
        _run_threads([lambda: add(50)] * 2)

    children = [Child(threads_in_a_child) for _ in range(2)]
    _run_threads([lambda: add(50)] * 3)
    for child in children:
        child.result()
    assert share.get() == {"n": 350}


def _run_threads(targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_thread_waits_for_another_threads_block_and_times_out(make):
    share = make(0)
    held, leave, seen = threading.Event(), threading.Event(), []

    def hold():
        with share.locked() as view:
            held.set()
            leave.wait()
            view.value += 1

    def wait():
        with share.locked() as view:
            seen.append(view.value)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with pytest.raises(LockTimeout, match="held"):
        share.lock(timeout=0.01)
    waiter = threading.Thread(target=wait)
    waiter.start()
    leave.set()
    holder.join()
    waiter.join()
    assert seen == [1]


def test_no_thread_is_starved_by_a_busy_one(make):
    share = make(0)
    done = threading.Event()

    def busy():
        while not done.is_set():
            share.update(int.__add__, 1)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(20):
            with share.locked(timeout=20):
                pass
    finally:
        done.set()
        thread.join()


def test_who_lets_go_makes_way_for_who_has_been_blocked_for_long(monkeypatch):
    """flock hands nothing over: who let go had it back before anybody else woke up."""
    share = Share(0)
    words = inside.lock_of(share).words

    def wait(child):
        child.say()
        share.update(int.__add__, 1)

    share.lock()
    child = Child(wait)
    child.hear()
    while not words[inside.BLOCKED]:
        pass
    child.sleeps()
    assert words[inside.LEASE]
    share.unlock()
    child.result()
    assert share.get() == 1
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    share.set(0)
    pauses.clear()
    words[inside.BLOCKED] = 1  # As if its process had been killed.
    words[inside.LEASE] = 1
    share.set(1)
    assert tuple(pauses) == inside.WAY_S
    pauses.clear()
    share.set(2)
    assert pauses == []
    assert (words[inside.BLOCKED], words[inside.LEASE]) == (0, 0)


def test_two_tasks_of_one_thread_cannot_wait_for_each_other():
    share = Share(0)

    async def main():
        inside, leave = asyncio.Event(), asyncio.Event()

        async def holder():
            with share.locked() as view:
                inside.set()
                await leave.wait()
                view.value += 1

        async def other():
            await inside.wait()
            for wait in (share.lock, lambda: share.set(5), share.locked().__enter__):
                with pytest.raises(DeadlockError, match="this thread"):
                    wait()
            assert share.get() == 0
            leave.set()

        await asyncio.gather(holder(), other())

    asyncio.run(main())
    assert share.get() == 1


def test_a_task_joins_its_own_block_and_not_another_tasks():
    share = Share([])

    async def work(name):
        with share.locked() as outer:
            outer.append(name)
            with share.locked() as inner:
                assert inner is outer

    async def main():
        await work("a")
        await asyncio.gather(work("b"), work("c"))

    asyncio.run(main())
    assert share.get() == ["a", "b", "c"]


def test_a_block_left_in_another_thread_commits_nothing_and_frees_the_lock(make):
    share = make([1])
    transaction = share.locked()
    view = transaction.__enter__()
    view.append(2)
    caught = []

    def leave():
        try:
            transaction.__exit__(None, None, None)
        except ViewClosedError as err:
            caught.append(err)

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join()
    assert "another thread" in str(caught[0])
    assert share.get() == [1]
    share.set([3])


def test_another_threads_block_keeps_the_share_from_closing(make):
    share = make(0)
    held, leave = threading.Event(), threading.Event()

    def hold():
        with share.locked():
            held.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with pytest.raises(TransactionError, match="close"):
        share.close()
    leave.set()
    thread.join()
    share.close()


def test_readers_in_threads_beside_a_writer_see_whole_values(make):
    share = make([0] * 50)
    torn, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            value = share.get()
            if len(set(value)) != 1:
                torn.append(value)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    begin = time.monotonic()
    n = 0
    while time.monotonic() - begin < 0.5:
        n += 1
        share.set([n] * 50)
    stop.set()
    for thread in threads:
        thread.join()
    assert torn == []
