"""`shared_state` on async functions."""

import asyncio
import multiprocessing

import pytest
from support import Child, stateful
from support.stateful import Counter, Shared, tally_async

from mmapshare import (
    shared_state,
)

counter, shared = Counter(), Shared()
ASYNC_FORMS = {
    "function": (tally_async, tally_async.share),
    "method": (counter.add_async, Counter.add_async.share),
    "shared class": (shared.add_async, shared.share),
}


@pytest.fixture(params=ASYNC_FORMS)
def async_form(request):
    function, share = ASYNC_FORMS[request.param]
    share.set({"calls": 0})
    return function, share


def test_twenty_tasks_and_four_processes_add_up_exactly(async_form):
    function, share = async_form

    def work(child):
        for _ in range(25):
            asyncio.run(function(1))

    async def main():
        async def twenty_calls():
            for _ in range(20):
                await function(1)

        await asyncio.gather(*[twenty_calls() for _ in range(20)])

    children = [Child(work) for _ in range(4)]
    asyncio.run(main())
    for child in children:
        child.result()
    assert share.get() == {"calls": 500}


def test_the_event_loop_runs_on_while_an_async_function_waits():
    tally_async.reset()

    def hold(child):
        with tally_async.share.locked() as view:
            child.say()
            child.hear()
            view["calls"] = 10

    async def main():
        child = Child(hold)
        child.hear()
        waiting = asyncio.create_task(tally_async(1))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        child.say()
        assert await waiting == 11
        child.wait()

    asyncio.run(main())


@pytest.mark.parametrize("method", ["spawn"])
def test_async_functions_travel_as_others_do(method):
    tally_async.reset()
    with multiprocessing.get_context(method).Pool(2) as pool:
        pool.starmap(stateful.call_async, [(tally_async, 1)] * 6)
        pool.close()
        pool.join()
    assert tally_async.share.get() == {"calls": 6}


def test_async_recursion_joins():
    @shared_state(initial=[])
    async def dig(state, depth):
        state.append(depth)
        if depth:
            await dig(depth - 1)
        return list(state)

    assert asyncio.run(dig(2)) == [2, 1, 0]
    assert dig.share.version == 2
