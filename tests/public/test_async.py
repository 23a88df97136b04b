"""``async with share.locked()``: waiting for the lock while the event loop runs on."""

import asyncio
import threading
import time

import pytest
from support import Child, Wanted, inside
from support.loops import add, trio_gather

from mmapshare import DeadlockError, LockTimeout, TransactionError, ViewClosedError

trio = Wanted("trio")


@pytest.mark.needs("crosses_fork")
def test_tasks_threads_and_processes_add_up_exactly(medium, loop):
    run, gather, pause, _ = loop
    share = medium.share({"n": 0})

    def tasks():
        run(gather, *[(add, share, 5, pause)] * 10)

    def process(child):
        tasks()

    def thread():
        for _ in range(50):
            with share.locked() as view:
                view["n"] += 1

    children = [Child(process) for _ in range(2)]
    other = threading.Thread(target=thread)
    other.start()
    tasks()
    other.join()
    for child in children:
        child.result()
    assert share.get() == {"n": 200}


@pytest.mark.needs("crosses_fork")
def test_the_loop_runs_on_while_another_process_holds_the_lock(medium, loop):
    run, gather, pause, _ = loop
    share = medium.share({"n": 0})
    order = []

    def hold(child):
        with share.locked() as view:
            child.say()
            child.hear()
            view["n"] = 10

    async def wait():
        await add(share, 1, pause)
        order.append("got it")

    async def work(child):
        for _ in range(20):
            await pause(0)
        order.append("worked on")
        child.say()

    child = Child(hold)
    child.hear()
    run(gather, (wait,), (work, child))
    child.wait()
    assert order == ["worked on", "got it"]
    assert share.get() == {"n": 11}


def test_tasks_wait_in_the_queue_and_time_out(medium, loop):
    run, gather, _, event = loop
    share = medium.share(0)

    async def main():
        inside, leave = event(), event()
        order = []

        async def holder():
            async with share.locked():
                inside.set()
                await leave.wait()
                order.append("holder")

        async def waiter():
            await inside.wait()
            with pytest.raises(LockTimeout, match="a thread of this process"):
                async with share.locked(timeout=0.01):
                    pass
            leave.set()
            async with share.locked():
                order.append("waiter")

        await gather((holder,), (waiter,))
        return order

    assert run(main) == ["holder", "waiter"]


def test_a_nested_block_of_the_same_task_joins(medium, loop):
    run, _, pause, _ = loop
    share = medium.share([])

    async def main():
        async with share.locked() as outer:
            outer.append(1)
            async with share.locked() as inner:
                assert inner is outer
                await pause(0)
                inner.append(2)
            with share.locked() as third:
                third.append(3)
        with share.locked() as outer:
            async with share.locked() as inner:
                assert inner is outer
                inner.append(4)

    run(main)
    assert share.get() == [1, 2, 3, 4]


def test_an_exception_rolls_back_and_an_inner_one_fails_the_outer_block(medium, loop):
    run, *_ = loop
    share = medium.share([])

    async def main():
        with pytest.raises(ZeroDivisionError):
            async with share.locked() as view:
                view.append(1)
                raise ZeroDivisionError
        with pytest.raises(TransactionError, match="inner block"):
            async with share.locked():
                with pytest.raises(ZeroDivisionError):
                    async with share.locked():
                        raise ZeroDivisionError

    run(main)
    assert share.get() == []
    assert share.set([1])


def test_a_loop_run_within_a_block_cannot_wait_for_that_block(medium):
    share = medium.share(0)

    async def main():
        async with share.locked():
            pass

    with share.locked(), pytest.raises(DeadlockError, match="this thread"):
        asyncio.run(main())
    with share.locked(), pytest.raises(DeadlockError, match="this thread"):
        trio.run(main)


def test_two_trio_tasks_exclude_each_other(medium):
    share = medium.share(0)

    async def main():
        inside, leave = trio.Event(), trio.Event()

        async def holder():
            with share.locked() as view:
                inside.set()
                await leave.wait()
                view.value += 1

        async def other():
            await inside.wait()
            with pytest.raises(DeadlockError, match="this thread"):
                share.set(5)
            leave.set()

        await trio_gather((holder,), (other,))

    trio.run(main)
    assert share.get() == 1


def test_a_view_belongs_to_its_task(medium, loop):
    run, gather, pause, event = loop
    share = medium.share([1])

    async def main():
        async with share.locked() as view:

            async def other():
                with pytest.raises(ViewClosedError, match="another thread or task"):
                    view.append(2)

            await gather((other,))

    run(main)


def test_a_transaction_is_used_once(medium, loop):
    run, *_ = loop
    share = medium.share(0)

    async def main():
        transaction = share.locked()
        async with transaction:
            pass
        with pytest.raises(TransactionError, match="once"):
            async with transaction:
                pass

    run(main)


def test_between_lock_and_unlock_a_block_stands_inside(medium, loop):
    run, *_ = loop
    share = medium.share(0)

    async def main():
        share.lock()
        async with share.locked() as view:
            view.value += 1
        assert share.set(share.get() + 1) == 3
        share.unlock()

    run(main)
    assert share.get() == 2


def test_a_waiting_task_whose_loop_is_busy_does_not_slow_others_down(medium):
    """Each release rang for it alone, and everybody else slept until the next look, 50 ms on."""
    share = medium.share({"n": 0})
    held, stop = threading.Event(), threading.Event()

    async def main():
        with share.locked():  # So that the other task has to wait.
            waiting = asyncio.create_task(add(share, 1, asyncio.sleep))
            while not inside.waiters_of(inside.lock_of(share)):
                await asyncio.sleep(0)
        held.set()
        stop.wait(10)  # Nothing else runs in this loop meanwhile.
        await waiting

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    held.wait()
    begin = time.monotonic()
    for _ in range(100):
        with share.locked(timeout=5) as view:
            view["n"] += 1
    took_s = time.monotonic() - begin
    stop.set()
    thread.join()
    assert share.get() == {"n": 101}
    assert took_s < 100 * 0.05 / 2, took_s


def test_a_plain_block_in_the_loops_own_thread_does_not_wait_for_its_tasks(medium):
    share = medium.share({"n": 0})

    async def main():
        async with share.locked():
            waiting = asyncio.create_task(add(share, 1, asyncio.sleep))
            await asyncio.sleep(0.01)
        with share.locked(timeout=0) as view:  # The task was woken, and cannot run yet.
            view["n"] += 1
        await waiting

    asyncio.run(main())
    assert share.get() == {"n": 2}


def test_a_spent_plain_transaction_is_not_used_again(medium):
    transaction = medium.share(0).locked()
    with transaction:
        pass

    async def main():
        async with transaction:
            pass

    with pytest.raises(TransactionError, match="once"):
        asyncio.run(main())


@pytest.mark.needs("crosses_fork", "free_at_once_after_kill")
def test_a_holder_that_was_killed_is_told_to_the_task_that_finds_it(medium, caplog):
    share = medium.share(0)

    def hold(child):
        share.lock()
        child.say()
        child.hear()

    holder = Child(hold)
    holder.hear()
    holder.kill()
    asyncio.run(add_one(share))
    assert (share.get(), share.info().holders_found_dead) == (1, 1)
    assert f"pid {holder.pid} died holding the lock" in caplog.text


async def add_one(share):
    async with share.locked(timeout=5) as view:
        view.value += 1
