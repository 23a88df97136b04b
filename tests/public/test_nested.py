"""Blocks that join, by calls within one another, or by flows that nobody can tell apart."""

import asyncio
import contextlib
import gc
import sys

import pytest
from support import inside
from support.inside import JOINED, Joined, is_apart

from mmapshare import SharedDict, TransactionError, ViewClosedError, locked, shared_state

APART = pytest.raises(TransactionError, match="cannot be told apart")
STILL_OPEN = pytest.raises(TransactionError, match="still open")
ENDED_FIRST = pytest.raises(TransactionError, match="ended first")


def one(share):
    return share.locked()


@contextlib.contextmanager
def together(share):
    with locked(share) as (view,):
        yield view


@contextlib.contextmanager
def between_lock_and_unlock(share):
    share.lock()
    try:
        with share.locked() as view:
            yield view
    finally:
        share.unlock()


@pytest.fixture(params=["share", "dict"])
def share(request, medium):
    yield getattr(medium, request.param)({"n": 0, "log": ()})
    gc.collect()


@pytest.fixture(params=[one, together], ids=["locked", "together"])
def block(request):
    return request.param


def flow(share, block, name, fails=None):
    """A generator that yields in its block."""
    with block(share) as view:
        n = view["n"]
        yield
        view["n"] = n + 1
        view["log"] += (name,)
        yield
        if fails is not None:
            raise fails
    yield


def value(share):
    return (
        {"n": share.get("n"), "log": share.get("log")}
        if isinstance(share, SharedDict)
        else (share.get())
    )


NOTHING = {"n": 0, "log": ()}


def test_a_block_that_ends_before_one_that_joined_it_commits_nothing_and_says_so(share, block):
    """What was changed after it had ended was lost without a word."""
    first, second = flow(share, block, "first"), flow(share, block, "second")
    next(first), next(second), next(first)
    with STILL_OPEN:
        next(first)
    with pytest.raises(ViewClosedError):
        next(second)
    assert value(share) == NOTHING
    third, fourth = flow(share, block, "third"), flow(share, block, "fourth")
    next(third), next(fourth), next(third), next(fourth)
    with STILL_OPEN:
        next(third)
    with ENDED_FIRST:
        next(fourth)
    assert value(share) == NOTHING
    with share.locked(timeout=0):
        pass


def test_an_inner_block_that_is_never_left_keeps_the_outer_one_from_committing(share):
    with STILL_OPEN, share.locked() as view:
        view["n"] = 1
        inner = flow(share, one, "inner")
        next(inner)
    with share.locked(timeout=0) as view:
        view["n"] = 2
    inner.close()
    with pytest.raises(TransactionError, match="GeneratorExit"), share.locked() as view:
        next(flow(share, one, "inner"))
    assert value(share) == {"n": 2, "log": ()}


@pytest.mark.parametrize("fails", [ValueError("first"), GeneratorExit()])
def test_a_failed_block_says_that_another_flows_is_rolled_back_with_it(share, block, fails):
    """That one had ended without an error, and what it had changed was lost."""
    first = flow(share, block, "first", fails)
    next(first), next(first)
    with share.locked() as view:
        view["log"] += ("second",)
    with APART as caught:
        first.close() if isinstance(fails, GeneratorExit) else next(first)
    assert type(caught.value.__cause__) is type(fails)
    assert value(share) == NOTHING
    first, second = flow(share, block, "first", ValueError()), flow(share, block, "second")
    next(first), next(second), next(first), next(second), next(second)
    with APART:
        next(first)
    assert value(share) == NOTHING


def test_an_end_that_must_not_be_held_up_gets_a_note(share):
    first = flow(share, one, "first", KeyboardInterrupt())
    next(first), next(first)
    with share.locked():
        pass
    with pytest.raises(KeyboardInterrupt) as caught:
        next(first)
    assert "cannot be told apart" in caught.value.__notes__[0]


def test_a_generator_that_is_dropped_says_so_as_a_finaliser_can(share, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: told.append(str(event.exc_value)))
    first = flow(share, one, "first")
    next(first)
    with share.locked():
        pass
    del first
    gc.collect()
    assert "cannot be told apart" in told[0]
    assert not inside.lock_of(share).holds_own()


class Wrapped:
    def __init__(self, share):
        self.block = share.locked()

    def __enter__(self):
        return self.block.__enter__()

    def __exit__(self, *exc):
        self.block.__exit__(*exc)


@contextlib.contextmanager
def made(share):
    with share.locked() as view:
        yield view


@contextlib.contextmanager
def stacked(share):
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(share.locked())


NESTS = [one, together, Wrapped, made, stacked]


@pytest.mark.parametrize("outer", [*NESTS, between_lock_and_unlock])
@pytest.mark.parametrize("inner", NESTS)
def test_nested_blocks_of_all_shapes_join_and_fail_as_one(share, outer, inner):
    def calls():
        with inner(share) as view:
            view["n"] += 1

    with outer(share) as view:
        calls()
        with inner(share):
            calls()
    assert value(share)["n"] == 2
    with pytest.raises(ValueError, match="mine"), outer(share) as view:
        calls()
        view["n"] = 5
        raise ValueError("mine")
    with pytest.raises(ValueError, match="deep"), outer(share):
        calls()
        with inner(share):
            raise ValueError("deep")
    assert value(share)["n"] == 2


def test_generators_that_end_within_the_block_are_nested(share):
    def items():
        for _ in range(3):
            with share.locked() as view:
                view["n"] += 1
            yield

    with made(share):
        assert len(list(items())) == 3
    with pytest.raises(ValueError, match="mine"), made(share):
        list(items())
        raise ValueError("mine")
    assert value(share)["n"] == 3


def test_nested_blocks_of_one_task_join_and_fail_as_one(share):
    @contextlib.asynccontextmanager
    async def made():
        async with share.locked() as view:
            yield view

    async def calls():
        async with share.locked() as view:
            view["n"] += 1
            await asyncio.sleep(0)

    async def main(fails):
        async with made():
            await calls()
            if fails:
                raise ValueError("mine")

    asyncio.run(main(False))
    with pytest.raises(ValueError, match="mine"):
        asyncio.run(main(True))
    assert value(share)["n"] == 1


def test_asynchronous_generators_of_one_task_are_told_of_too(share):
    async def flow(fails):
        async with share.locked() as view:
            view["n"] += 1
            yield
            if fails:
                raise ValueError

    async def main():
        first, second = flow(False), flow(False)
        await anext(first), await anext(second)
        with STILL_OPEN:
            await anext(first)
        with ENDED_FIRST:
            await anext(second)
        first, second = flow(True), flow(False)
        await anext(first), await anext(second)
        with pytest.raises(StopAsyncIteration):
            await anext(second)
        with APART:
            await anext(first)

    asyncio.run(main())
    assert value(share) == NOTHING


def test_rollback_makes_a_block_whole_but_forgets_no_open_one(share):
    with STILL_OPEN, share.locked() as view:
        inner = flow(share, one, "inner")
        next(inner)
        view.rollback()
    inner.close()
    with share.locked() as view:
        with contextlib.suppress(ValueError), share.locked():
            raise ValueError
        view.rollback()
        view["n"] = 1
    assert value(share)["n"] == 1


def test_a_function_with_a_state_that_calls_another_one_fails_as_one():
    @shared_state(initial={"n": 0})
    def inner(state):
        state["n"] += 1

    outer_share = inner.share

    def outer(fails):
        with outer_share.locked():
            inner()
            if fails:
                raise ValueError("mine")

    outer(False)
    with pytest.raises(ValueError, match="mine"):
        outer(True)
    assert outer_share.get() == {"n": 1}


def test_a_long_block_remembers_little_of_the_many_that_joined_it(medium):
    def deep(share, depth):
        if depth:
            deep(share, depth - 1)
        else:
            with share.locked():
                pass

    share = medium.share(0)
    with share.locked() as view:
        for depth in range(200):
            deep(share, depth)
        joined = inside.failed_of(view)
        assert isinstance(joined, Joined) and len(joined.ended) < 100 and not joined.open


def test_an_interrupt_as_a_block_joins_leaves_the_outer_one_whole(medium, monkeypatch):
    share = medium.share(0)
    real = inside.transaction_join

    def struck(self, view):
        real(self, view)
        raise KeyboardInterrupt

    with share.locked() as view:
        monkeypatch.setattr(*inside.at("transaction_join"), struck)
        with pytest.raises(KeyboardInterrupt):
            share.locked().__enter__()
        monkeypatch.setattr(*inside.at("transaction_join"), real)
        view.value = 1
    assert share.get() == 1


def test_a_block_that_was_left_in_none_of_the_callers_frames_is_apart():
    assert is_apart(frozenset())


def test_giving_up_between_the_steps_of_joining_is_harmless(medium):
    """An interrupt may come before the view is the outer one's."""
    share = medium.share(0)
    transaction = share.locked()
    view = inside.view_class_of(share)()
    inside.view_of.set(transaction, view)
    inside.owner_of.set(view, None)
    inside.failed_of.set(view, None)
    inside.role_of.set(transaction, JOINED)
    inside.give_up(transaction)
    assert inside.token_of(share) is None


def test_a_joined_block_that_outlives_the_outer_one_says_so(medium):
    share = medium.share([])
    outer = share.locked()
    outer.__enter__()
    inner = share.locked()
    inner.__enter__().append(1)
    with pytest.raises(TransactionError, match="still open"):
        outer.__exit__(None, None, None)
    with pytest.raises(TransactionError, match="ended first"):
        inner.__exit__(None, None, None)
    assert share.get() == []
