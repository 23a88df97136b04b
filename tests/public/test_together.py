"""Several shares in one transaction."""

import asyncio
import gc
import os
import random
import threading

import pytest
from support import Child, in_child, inside

from mmapshare import (
    DeadlockError,
    LockTimeout,
    RegionFullError,
    Share,
    TransactionError,
    UnpicklableError,
    locked,
)

SEED = int.from_bytes(os.urandom(4), "little")


@pytest.fixture
def three(medium):
    return [medium.share({"n": 0}), medium.dict({"n": 0}), medium.share({"n": 0})]


def _numbers(shares):
    return [(share.get() if isinstance(share, Share) else share.copy())["n"] for share in shares]


@pytest.mark.needs("crosses_fork")
def test_all_are_committed_and_the_views_come_in_the_callers_order(three, ordered):
    a, b, c = three
    with locked(c, a, b) as (view_c, view_a, view_b):
        view_a["n"], view_b["n"], view_c["n"] = 1, 2, 3
        assert in_child(_numbers, three) == [0, 0, 0]
    assert _numbers(three) == [1, 2, 3]
    assert [share.version for share in three] == [2, 2, 2]
    with locked(*three):
        pass
    assert [share.version for share in three] == [2, 2, 2]


def test_an_exception_changes_none_of_them(three):
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error), locked(*three) as views:
            for view in views:
                view["n"] = 9
            raise error
    assert _numbers(three) == [0, 0, 0]
    assert all(inside.token_of(share) is None for share in three)


@pytest.mark.parametrize("where", [0, 1, 2])
def test_what_cannot_be_pickled_changes_none_of_them(three, where):
    with pytest.raises(UnpicklableError), locked(*three) as views:
        for view in views:
            view["n"] = 9
        views[where]["lock"] = threading.Lock()
    assert _numbers(three) == [0, 0, 0]
    assert all(inside.token_of(share) is None for share in three)


@pytest.mark.parametrize("make", ["share", "dict"])
def test_a_full_region_changes_none_of_them(medium, make):
    small = getattr(medium, make)({"n": 0}, max_size="64K")
    shares = [medium.share({"n": 0}), small, medium.dict({"n": 0})]
    with pytest.raises(RegionFullError), locked(*shares) as views:
        for view in views:
            view["n"] = 9
        views[1]["big"] = bytes(100_000)
    assert _numbers(shares) == [0, 0, 0]


@pytest.mark.slow
def test_a_dict_that_has_to_be_written_anew_first_takes_part(medium):
    shared, share = medium.dict(max_size="1K"), medium.share({"n": 0})
    for n in range(30_000):
        with locked(share, shared) as (a, b):
            a["n"] = n
            b["n"] = n
            b["x"] = "x" * (n % 800)
        if inside.index_of(shared).state.position[1] > 1 and n > 3000:
            break
    assert shared["n"] == share.get()["n"] == n
    assert inside.index_of(shared).state.position[1] > 1


@pytest.mark.needs("crosses_fork")
def test_crossing_blocks_do_not_wait_for_one_another(three):
    a, b, c = three

    def work(child, order):
        for _ in range(150):
            with locked(*order) as views:
                for view in views:
                    view["n"] += 1

    children = [Child(work, order) for order in [(a, b, c), (c, b, a), (b, c), (c, a)]]
    for child in children:
        child.result()
    assert _numbers(three) == [450, 450, 600]


def test_a_pickling_hook_that_uses_a_share_whose_draft_is_made_already_is_refused(medium):
    """What it changed there was lost without a word."""
    a, b = medium.share(0), medium.share(0)

    class Uses:
        def __init__(self, other):
            self.other = other

        def __reduce__(self):
            self.other.update(lambda value: None)
            return int, (1,)

    with pytest.raises(DeadlockError, match="pickling hook"), locked(a, b) as (first, second):
        first.value, second.value = Uses(b), Uses(a)
    assert (a.get(), b.get()) == (0, 0)


def test_a_share_that_one_of_several_names_lives_on(medium):
    a, b = medium.share(1), medium.dict()
    with locked(a, b) as (first, second):
        first.value = [Share("in the value")]
        second["k"] = Share("under the key")
    gc.collect()
    assert (a.get()[0].get(), b["k"].get()) == ("in the value", "under the key")


def test_a_nested_one_joins_and_a_failed_inner_one_fails_the_outer(three):
    a, b, _ = three
    with a.locked() as outer:
        with locked(a, b) as (inner, other):
            assert inner is outer
            inner["n"] = other["n"] = 5
        assert b["n"] == 5
        assert a.get()["n"] == 0
    assert a.get()["n"] == 5
    with pytest.raises(TransactionError, match="inner block"), a.locked():
        with pytest.raises(KeyError), locked(a, b) as (inner, other):
            inner["n"] = other["n"] = 7
            raise KeyError
    assert _numbers(three) == [5, 5, 0]
    with locked(a, a) as (first, second):
        assert first is second


@pytest.mark.needs("crosses_fork")
def test_a_timeout_leaves_none_held(three):
    a, b, c = three

    def hold(child):
        with b.locked():
            child.say()
            child.hear()

    child = Child(hold)
    child.hear()
    with pytest.raises(LockTimeout), locked(*three, timeout=0.01):
        pass
    assert in_child(lambda: (a.lock(timeout=0), c.lock(timeout=0))) == (None, None)
    child.say()
    child.wait()


def test_wrong_arguments_and_a_second_use_say_what_is_right(three):
    with pytest.raises(TypeError, match="one share or more"):
        locked()
    with pytest.raises(TypeError, match="not dict"):
        locked({})
    with pytest.raises(ValueError, match="timeout"):
        locked(*three, timeout=-1)
    transaction = locked(*three)
    with transaction:
        pass
    with pytest.raises(TransactionError, match="once"), transaction:
        pass
    with locked(*three) as views:
        views[0].rollback()


def test_tasks_take_several_too(three):
    a, b, _ = three

    async def work(order):
        for _ in range(10):
            async with locked(*order) as views:
                before = [view["n"] for view in views]
                await asyncio.sleep(0)
                for view, n in zip(views, before, strict=True):
                    view["n"] = n + 1

    async def main():
        await asyncio.gather(work((a, b)), work((b, a)), work((b,)))

    asyncio.run(main())
    assert _numbers(three)[:2] == [20, 30]


def test_a_key_that_nobody_could_find_again_changes_none_of_them(medium):
    """It was noticed only when the shares before it were published."""

    class Lost:
        """Equals itself only, and so nothing once it is pickled."""

    for _ in range(8):  # The order is that of random ids.
        share, shared = medium.share(1), medium.dict(a=1)
        with pytest.raises(UnpicklableError), locked(share, shared) as (a, b):
            a.value = 2
            b[Lost()] = 1
        assert (share.get(), shared.copy()) == (1, {"a": 1})


@pytest.mark.needs("crosses_fork")
def test_an_interrupt_on_the_way_out_leaves_nothing_held_even_while_it_is_handled(
    medium, monkeypatch
):
    """A new block in the handler joined the dead one, and what it wrote was lost in silence."""
    a, b = medium.share({"n": 0}), medium.share({"n": 0})
    real = inside.together_leave

    def interrupted(self, err):
        monkeypatch.setattr(*inside.at("together_leave"), real)
        raise KeyboardInterrupt

    monkeypatch.setattr(*inside.at("together_leave"), interrupted)
    try:
        with locked(a, b) as (x, y):
            x["n"] = y["n"] = 1
    except KeyboardInterrupt:
        with a.locked() as view:
            view["saved"] = True
    assert a.get() == {"n": 1, "saved": True}
    assert in_child(lambda: b.lock(timeout=0)) is None


@pytest.mark.needs("is_memory")
def test_an_interrupt_between_two_publishes_parts_nothing(medium, monkeypatch):
    real = inside.index_commit
    for _ in range(6):
        shared, share = medium.dict(dict.fromkeys(range(2000), 0)), medium.share(0)

        def commit(store, changes):
            monkeypatch.setattr(*inside.at("index_commit"), real)
            real(store, changes)
            raise KeyboardInterrupt

        monkeypatch.setattr(*inside.at("index_commit"), commit)
        with pytest.raises(KeyboardInterrupt), locked(shared, share) as (a, b):
            a.clear()
            b.value = 1
        assert (len(shared), share.get()) == (0, 1)


def test_an_outer_block_that_ended_first_keeps_no_other_share_locked(medium):
    for _ in range(6):
        a, b = medium.share({}), medium.share({})
        outer = a.locked()
        outer.__enter__()
        both = locked(a, b)
        _, view = both.__enter__()
        view["n"] = 1
        with pytest.raises(TransactionError, match="still open"):
            outer.__exit__(None, None, None)
        with pytest.raises(TransactionError, match="ended first"):
            both.__exit__(None, None, None)
        assert b.info().holder_pid is None
        assert (a.get(), b.get()) == ({}, {})


# --- The bank --------------------------------------------------------------------------------

ACCOUNTS, TOTAL = 10, 1000


@pytest.mark.needs("crosses_fork")
def test_money_moves_among_shares_and_the_sum_never_changes(medium):
    print("seed", SEED)
    accounts = [medium.share(TOTAL // ACCOUNTS) for _ in range(ACCOUNTS)]

    def move(child, seed):
        rng = random.Random(seed)
        for _ in range(100):
            source, target = rng.sample(accounts, 2)
            amount = rng.randrange(10)
            with locked(source, target) as (a, b):
                a.value -= amount
                b.value += amount

    def audit(child):
        sums = set()
        for _ in range(60):
            with locked(*accounts) as views:
                sums.add(sum(view.value for view in views))
        return sums

    movers = [Child(move, SEED + n) for n in range(4)]
    auditors = [Child(audit) for _ in range(2)]
    assert [child.result() for child in auditors] == [{TOTAL}] * 2
    for child in movers:
        child.result()
    assert sum(account.get() for account in accounts) == TOTAL


@pytest.mark.needs("crosses_fork", "free_at_once_after_kill")
@pytest.mark.slow
def test_money_moves_in_a_dict_and_no_kill_changes_the_sum(medium):
    print("seed", SEED)
    rng = random.Random(SEED)
    accounts = medium.dict(dict.fromkeys(range(ACCOUNTS), TOTAL // ACCOUNTS))

    def move(child, seed):
        rng = random.Random(seed)
        while True:
            source, target = rng.sample(range(ACCOUNTS), 2)
            amount = rng.randrange(10)
            with accounts.locked() as view:
                view[source] -= amount
                view[target] += amount

    def audit(child):
        sums = set()
        last = accounts.version
        for _ in range(200):
            snapshot = accounts.snapshot()
            assert snapshot.version >= last
            last = snapshot.version
            sums.add(sum(snapshot.values()))
        return sums

    auditors = [Child(audit) for _ in range(2)]
    movers = [Child(move, SEED + n) for n in range(4)]
    for n in range(20):
        accounts.wait(since=accounts.version, timeout=10)
        victim = rng.randrange(4)
        movers[victim].kill()
        movers[victim] = Child(move, SEED + 100 + n)
    assert [child.result() for child in auditors] == [{TOTAL}] * 2
    for child in movers:
        child.kill()
    assert sum(accounts.values()) == TOTAL


@pytest.mark.needs("crosses_fork")
def test_tasks_that_cannot_have_all_or_store_all_hold_none(three):
    a, b, c = three

    async def wait():
        async with locked(*three, timeout=0.01):
            pass

    async def store():
        async with locked(*three) as views:
            for view in views:
                view["n"] = 9
            views[1]["lock"] = threading.Lock()

    def hold(child):
        with b.locked():
            child.say()
            child.hear()

    child = Child(hold)
    child.hear()
    with pytest.raises(LockTimeout) as timed_out:
        asyncio.run(wait())
    assert in_child(lambda: (a.lock(timeout=0), c.lock(timeout=0))) == (None, None)
    child.say()
    child.wait()
    with pytest.raises(UnpicklableError) as refused:
        asyncio.run(store())
    assert _numbers(three) == [0, 0, 0]
    assert in_child(lambda: [share.lock(timeout=0) for share in three]) == [None] * 3
    del timed_out, refused  # No finaliser has helped: the tracebacks kept all alive.


def test_one_that_stays_empty_does_not_keep_the_others_from_their_commit(medium):
    empty, full = medium.share(), medium.share(1)
    with locked(empty, full) as (_, view):
        view.value = 2
    assert (empty.version, full.get()) == (0, 2)
