"""How often the server is asked: what a user pays for, on a network."""

import asyncio

import pytest
from support import in_child, inside
from support.remote import add, opened, put, read

from mmapshare import Share, SharedDict, VersionConflict, locked


def _trips(shared, act):
    wire = inside.store_of(shared).wire
    act()  # Scripts, connections and what is known: as it goes on.
    before = wire.trips
    act()
    return wire.trips - before


def test_a_share(url):
    share = Share.open(url, {"n": 0})
    assert _trips(share, share.get) == 1
    assert _trips(share, share.snapshot) == 1
    assert _trips(share, lambda: share.set({"n": 1})) == 1
    assert _trips(share, lambda: share.set({"n": 1}, if_version=share.version)) == 1 + 1
    assert _trips(share, lambda: add(share)) == 2
    assert _trips(share, lambda: share.update(lambda v: {"n": v["n"] + 1})) == 2
    assert _trips(share, lambda: share.version) == 1

    def look():
        with share.locked() as view:
            assert view["n"]

    assert _trips(share, look) == 2  # Taken, and given back.
    assert _trips(share, lambda: share.update(lambda v: v | {"x": 1}, optimistic=True)) <= 2

    def between():
        share.lock()
        share.set({"n": 5})
        share.unlock()

    assert _trips(share, between) == 3


def test_a_dict(url):
    shared = SharedDict.open(url, {n: n for n in range(100)})
    assert _trips(shared, lambda: shared[5]) == 1
    counted = iter(range(1000))
    assert _trips(shared, lambda: shared.__setitem__(5, next(counted))) == 1
    assert _trips(shared, lambda: shared.__setitem__(f"new {next(counted)}", 1)) == 1
    assert _trips(shared, lambda: 5 in shared) == 1
    assert _trips(shared, lambda: len(shared)) == 1
    assert _trips(shared, lambda: [*iter(shared)]) == 1
    assert _trips(shared, shared.snapshot) == 1

    def block(*keys):
        with shared.locked() as view:
            for key in keys:
                view[key] += 1

    assert _trips(shared, lambda: block(7)) == 2
    assert _trips(shared, lambda: block(*range(10))) == 2
    assert _trips(shared, lambda: shared.update(dict.fromkeys(range(50), next(counted)))) <= 3
    assert _trips(shared, lambda: shared.transact(lambda view: view.update(a=next(counted)))) == 2


def test_anothers_changes_cost_a_dict_no_more(url):
    """They come with what is asked for: read, or locked."""
    shared = SharedDict.open(url, {n: n for n in range(100)})
    assert shared[1] == 1
    wire = inside.store_of(shared).wire

    def change(child_n):
        for n in range(20):
            shared[n] = child_n + n

    for round_ in range(2):
        with shared.locked() as view:
            for n in range(10):
                view[n] += 1
        in_child(change, 1000 * round_)
        before = wire.trips
        assert shared[3] == 1000 * round_ + 3
        assert wire.trips - before == 1
        in_child(change, 1000 * round_ + 500)
        before = wire.trips
        with shared.locked() as view:
            for n in range(10):
                assert view[n] == 1000 * round_ + 500 + n
                view[n] += 1
        assert wire.trips - before == 2


def test_a_dict_is_read_and_written_without_knowing_its_keys(url):
    """A process that wants one of a million keys does not ask for all."""
    SharedDict.open(url, {n: n for n in range(1000)}).close()
    shared = SharedDict.open(url)
    wire = inside.store_of(shared).wire
    before = wire.trips
    assert shared[500] == 500
    shared[501] = "mine"
    assert wire.trips - before == 2
    assert inside.index_in_store(inside.store_of(shared)) is None
    assert shared[501] == "mine"
    with pytest.raises(KeyError):
        shared["nothing"]
    assert len(shared) == 1000


def test_a_wait_asks_for_no_version_again_and_again(kind, url):
    shared = opened(kind, url)
    assert shared.wait(timeout=0.01) is False
    wire = inside.store_of(shared).wire
    before = wire.trips
    assert shared.wait(timeout=0.6) is False
    assert wire.trips - before <= 6  # However long it waits: not one in each 40 ms.
    since = shared.version
    in_child(put, shared, 5)
    assert shared.wait(since=since, timeout=10)
    assert read(shared) == 5


def test_conflicts_take_one_step_too(url):
    share = Share.open(url, 1)

    def conflict():
        with pytest.raises(VersionConflict) as caught:
            share.set(2, if_version=7)
        assert (caught.value.expected, caught.value.found) == (7, 1)

    assert _trips(share, conflict) == 1


def test_a_task_takes_as_many(kind, url):
    shared = opened(kind, url)

    async def block():
        async with shared.locked() as view:
            view["n"] += 1

    assert _trips(shared, lambda: asyncio.run(block())) == 2


def test_several_are_committed_in_one(url):
    share = Share.open(url, {"n": 0})
    shared = SharedDict.open(url + "-too", {"n": 0})
    other = Share.open(url + "-three", 0)

    def move():
        with locked(share, shared, other) as (one, two, three):
            one["n"] += 1
            two["n"] += 1
            three.value += 1

    assert _trips(share, move) + _trips(shared, move) + _trips(other, move) == 3 + 1
    assert (share.get(), dict(shared), other.get()) == ({"n": 6}, {"n": 6}, 6)
