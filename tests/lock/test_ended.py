"""Owners that ended without letting go: they own nothing, and nobody is taken for them."""

import asyncio
import contextlib
import gc
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio
from support import Child, inside
from support.inside import current_owner, has_ended

from mmapshare import DeadlockError, LockTimeout, Share, TransactionError, ViewClosedError

ENDED = pytest.warns(RuntimeWarning, match="has ended without letting go")


def in_thread(func):
    """Run it in a thread that has ended when this returns."""
    results = []
    thread = threading.Thread(target=lambda: results.append(func()))
    thread.start()
    thread.join()
    return results[0]


def in_task(func):
    async def main():
        return func()

    return asyncio.run(main())


def in_task_of_a_loop_that_goes_on(func):
    async def main():
        return func()

    async def cells():
        return await asyncio.create_task(main())

    return asyncio.run(cells())


def in_trio(func):
    async def main():
        return func()

    return trio.run(main)


def in_greenlet(func):
    greenlet = pytest.importorskip("greenlet")
    return greenlet.greenlet(func).switch()


@pytest.fixture(
    params=[in_thread, in_task, in_task_of_a_loop_that_goes_on, in_trio, in_greenlet],
    ids=lambda func: func.__name__,
)
def within(request):
    return request.param


def held_open(share):
    """A block that nobody leaves."""

    def flow():
        with share.locked() as view:
            view.append("never committed")
            yield view

    begun = flow()
    view = next(begun)
    return begun, view


def test_what_an_ended_owner_had_locked_anybody_may_unlock(within):
    """lock() in one cell of a notebook, unlock() in the next: each is a task of its own."""
    share = Share(0)
    within(share.lock)
    with pytest.raises(TransactionError, match="without lock"):
        Share(1).unlock()
    within(share.unlock)
    with pytest.raises(TransactionError, match="without lock"):
        share.unlock()
    share.lock(timeout=0)
    share.unlock()


def test_the_next_who_asks_gets_what_an_ended_owner_had_locked_with_a_warning(within):
    """Nothing in the process could release it, and nobody else ever got it."""
    share = Share(0)
    within(share.lock)
    with ENDED:
        assert share.set(1) == 2
    with pytest.raises(TransactionError, match="somebody has asked for the lock since"):
        share.unlock()
    within(share.lock)
    with ENDED as told, share.locked(timeout=0) as view:
        view.value += 1
    assert told[0].filename == __file__
    within(share.lock)
    with ENDED:
        asyncio.run(_add_one(share))
    assert share.get() == 3


async def _add_one(share):
    async with share.locked() as view:
        view.value += 1


def test_a_share_that_an_ended_owner_had_locked_can_be_closed(within):
    share = Share(0)
    within(share.lock)
    with ENDED:
        share.close()
    assert share.closed


def test_a_block_that_an_ended_owner_left_open_is_dropped(within):
    """A generator that is held open in a thread which has ended kept the lock for good."""
    share = Share([])
    begun, view = within(lambda: held_open(share))
    with ENDED, share.locked(timeout=0) as mine:
        mine.append(1)
    with pytest.raises(ViewClosedError):
        view.append(2)
    with pytest.raises(ViewClosedError, match="the lock was given on"):
        next(begun)
    assert share.get() == [1]
    begun, _ = within(lambda: held_open(share))
    begun.close()
    share.set([2], if_version=2)


def test_a_block_joined_in_an_ended_owners_block_says_so_at_its_end():
    share = Share([])

    def two():
        return held_open(share), held_open(share)

    (outer, _), (inner, _) = in_thread(two)
    with ENDED, share.locked(timeout=0):
        pass
    with pytest.raises(TransactionError, match="ended first"):
        next(inner)
    outer.close()


def test_a_thread_that_inherits_a_dead_ones_ident_inherits_no_lock():
    """Idents are given out again at once: the next thread was taken for the one before."""
    share = Share([])
    idents = [in_thread(lambda: (share.lock(), threading.get_ident())[1])]

    def block():
        idents.append(threading.get_ident())
        assert not inside.lock_of(share).holds_own()
        with ENDED, share.locked(timeout=0) as view:
            view.append("in")

    in_thread(block)
    assert share.get() == ["in"]


def test_who_waits_in_the_queue_gets_the_lock_when_its_holder_ends():
    share = Share(0)
    taken, go = threading.Event(), threading.Event()

    def hold():
        share.lock()
        taken.set()
        go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    # All threads have the filters in common: this one alone changes them.
    with warnings.catch_warnings(record=True), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("always")
        waiting = [pool.submit(share.set, 1) for _ in range(2)]
        while len(inside.waiters_of(inside.lock_of(share))) < 2:
            pass
        go.set()
        assert sorted(job.result() for job in waiting) == [2, 3]
    holder.join()


def test_other_processes_are_told_who_has_it_until_somebody_asks():
    def ask(child):
        for _ in range(2):
            child.hear()
            try:
                child.say(share.set(share.get() + 1))
            except LockTimeout as err:
                child.say(err.holder_pid)

    share = Share(0, timeout=0.01)
    in_thread(share.lock)
    child = Child(ask)
    child.say()
    assert child.hear() == os.getpid()
    with ENDED:
        share.set(5)
    child.say()
    assert child.hear() == 3
    child.result()


def test_a_task_whose_loop_was_closed_under_it_has_ended():
    share = Share(0)
    loop = asyncio.new_event_loop()

    async def hold():
        async with share.locked():
            await loop.create_future()

    task = loop.create_task(hold())
    loop.call_soon(loop.stop)
    loop.run_forever()
    with pytest.raises(DeadlockError, match="task"):
        share.set(1)
    loop.close()
    with ENDED:
        share.set(1)
    task._log_destroy_pending = False
    del task
    gc.collect()


def test_a_task_that_is_dropped_lets_go_by_itself():
    """The token kept the task alive, and so the task's block open."""
    share = Share(0)
    loop = asyncio.new_event_loop()

    async def hold():
        async with share.locked():
            await asyncio.get_running_loop().create_future()

    task = loop.create_task(hold())
    task._log_destroy_pending = False
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    del task, loop
    gc.collect()
    assert share.set(1) == 2


def test_who_is_alive_has_not_ended(within):
    assert not has_ended(current_owner())
    assert within(lambda: has_ended(current_owner())) is False
    assert has_ended(within(current_owner))


def test_two_who_clear_the_same_token_release_once():
    """The second one would have released what a third had taken since."""
    share = Share(0)
    lock = inside.lock_of(share)
    in_thread(share.lock)
    token = lock.token
    inside.clearing_of(lock)[0] = ["somebody else's turn"]
    lock.abandon(token)  # As its finaliser does.
    lock.clear_ended()
    assert lock.token is token
    with pytest.raises(LockTimeout):
        share.lock(timeout=0)
    del inside.clearing_of(lock)[0]
    with ENDED:
        share.lock(timeout=0)
    assert inside.clear(lock, token, ["late"]) is False
    assert lock.holds_own()
    share.unlock()


def test_a_handler_that_comes_in_the_middle_of_clearing_is_told_so():
    share = Share(0)
    in_thread(share.lock)
    inside.clearing_of(inside.lock_of(share))[0] = [current_owner()]
    with pytest.raises(DeadlockError, match="leave a note"):
        share.set(1)
    inside.clearing_of(inside.lock_of(share)).clear()
    share.unlock()


def test_an_interrupt_while_one_clears_leaves_nothing_held():
    share = Share(0)
    lock = inside.lock_of(share)
    in_thread(share.lock)
    real = inside.flock_of(lock)

    def flock(fd, operation):
        inside.flock_of.set(lock, real)
        raise KeyboardInterrupt

    inside.flock_of.set(lock, flock)
    with pytest.raises(KeyboardInterrupt):
        share.set(1)
    assert lock.token is None and not inside.clearing_of(lock)
    share.lock(timeout=0)
    share.unlock()


def test_a_task_of_trios_has_ended_when_its_coroutine_has():
    kept = []

    async def main():
        kept.append(trio.lowlevel.current_task())
        return current_owner()

    owner = trio.run(main)
    assert owner[1]() is kept[0] and has_ended(owner)


def test_a_task_whose_loop_stands_still_is_not_waited_for():
    share = Share(0)

    async def keeps():
        with share.locked():
            await asyncio.sleep(3600)

    loop = asyncio.new_event_loop()
    task = loop.create_task(keeps())
    loop.run_until_complete(asyncio.sleep(0))
    with pytest.raises(DeadlockError):
        share.set(1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    share.set(1)
