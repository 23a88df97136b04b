"""Tasks that are cancelled while they wait, in the queue too, or inside of their block."""

import asyncio
import os
import random

import pytest
from support import Child, Wanted, in_child, inside
from support.loops import add, trio_gather

trio = Wanted("trio")
SEED = int.from_bytes(os.urandom(4), "little")


@pytest.mark.needs("crosses_fork")
def test_a_task_cancelled_while_it_waits_leaves_nothing_held(medium, loop):
    run, gather, pause, event = loop
    share = medium.share(0)

    def hold(child):
        with share.locked():
            child.say()
            child.hear()

    async def impatient():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(share.locked().__aenter__(), 0.01)

    async def impatient_trio():
        with trio.move_on_after(0.01) as scope:
            await share.locked().__aenter__()
        assert scope.cancelled_caught

    async def main():
        await (impatient if pause is asyncio.sleep else impatient_trio)()

    child = Child(hold)
    child.hear()
    run(main)
    assert inside.token_of(share) is None
    child.say()
    child.wait()
    assert in_child(share.set, 1)


def test_a_task_cancelled_in_the_queue_leaves_it(medium, loop):
    run, gather, pause, event = loop
    share = medium.share(0)

    async def main():
        async with share.locked():
            if pause is not asyncio.sleep:
                with trio.move_on_after(0.01):
                    await trio_gather((add, share, 1, pause))
            else:
                task = asyncio.create_task(add(share, 1, pause))
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert not inside.waiters_of(inside.lock_of(share))

    run(main)
    assert share.set(1)


def test_a_task_cancelled_inside_rolls_back(medium):
    share = medium.share({"n": 0})

    async def work(inside):
        async with share.locked() as view:
            view["n"] = 99
            inside.set()
            await asyncio.Event().wait()

    async def main():
        inside = asyncio.Event()
        task = asyncio.create_task(work(inside))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with share.locked(timeout=0) as view:
            return view.value

    assert asyncio.run(main()) == {"n": 0}


@pytest.mark.needs("crosses_fork")
@pytest.mark.slow
def test_cancellations_at_random_moments_lose_nothing_and_hold_nothing(medium):
    print("seed", SEED)
    rng = random.Random(SEED)
    share = medium.share({"n": 0})
    done = 0

    async def work():
        nonlocal done
        while True:
            await add(share, 1, asyncio.sleep)
            done += 1
            await asyncio.sleep(0)

    async def main():
        for _ in range(100):
            tasks = [asyncio.create_task(work()) for _ in range(3)]
            for _ in range(rng.randrange(1, 12)):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert inside.token_of(share) is None

    asyncio.run(main())
    assert share.get() == {"n": done}
    assert in_child(share.set, 1)
