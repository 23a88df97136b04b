"""SIGKILL at every bytecode of everything that locks or publishes: the old value or the new one,
the lock free, and the next operation works."""

import logging
import os
import signal

import numpy
import pytest
from support import Child, block, in_child, killed_at_every_step, nested_block

import mmapshare
from mmapshare import Share, _region

OLD = {"n": 1, "pad": "x" * 50}
NEW = {"n": 2, "pad": "x" * 50}


def _explicit(share):
    share.lock()
    share.set(NEW)
    share.unlock()


def _rolled_back(share):
    with share.locked() as view:
        view["n"] = 99
        view.rollback()
        view["n"] = 2


ACTIONS = {
    "block": block,
    "nested block": nested_block,
    "set": lambda share: share.set(NEW),
    "update": lambda share: share.update(dict.update, n=2),
    "lock, set, unlock": _explicit,
    "rollback": _rolled_back,
    "compare and set": lambda share: share.set(NEW, if_version=share.version),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_a_kill_at_any_step_leaves_the_old_or_the_new_value(name):
    share = Share(OLD)
    seen = set()

    def check(step):
        value = share.get()
        assert value in (OLD, NEW), f"step {step}"
        seen.add(value["n"])
        with share.locked(timeout=1) as view:
            assert view.value == value, f"step {step}"
            view.value = OLD

    # The others are a block, or a part of one, with something added.
    stride = 1 if name == "block" else 4
    kills = killed_at_every_step(lambda: ACTIONS[name](share), check, stride)
    assert kills > 60
    assert seen == {1, 2}


@pytest.mark.parametrize("name", ["block", "set"])
def test_a_kill_at_any_step_on_the_portable_kind(name):
    share = Share(OLD, kind="file")

    def check(step):
        assert share.get() in (OLD, NEW), f"step {step}"
        share.set(OLD)

    assert killed_at_every_step(lambda: ACTIONS[name](share), check, stride=7) > 20


def test_a_kill_at_any_step_of_the_first_store():
    share = Share()

    def check(step):
        nonlocal share
        assert share.version in (0, 1), f"step {step}"
        if share.version:
            assert share.get() == OLD
        share.set(NEW)
        assert share.get() == NEW
        share = Share()

    assert killed_at_every_step(lambda: share.set(OLD), check, stride=3) > 60


BIG_OLD, BIG_NEW, SMALL = b"o" * 300_000, b"n" * 400_000, b"s"


@pytest.mark.parametrize(
    ("before", "after"), [(BIG_OLD, BIG_NEW), (BIG_OLD, SMALL), (SMALL, BIG_NEW)]
)
def test_a_kill_at_any_step_of_growing_and_shrinking(monkeypatch, before, after):
    monkeypatch.setattr(_region, "_KEEP_BYTES", 64 << 10)
    monkeypatch.setattr(_region, "_WINDOW_MOST", 64 << 10)
    share = Share(before)

    def check(step):
        assert share.get() in (before, after), f"step {step}"
        share.set(SMALL)
        share.set(before)
        assert share.get() == before

    assert killed_at_every_step(lambda: share.set(after), check, stride=4) > 50


def test_a_kill_at_any_step_of_storing_arrays():
    old, new = numpy.zeros(3000), numpy.ones(5000)
    share = Share([old, old])

    def check(step):
        first, second = share.get()
        assert first.tolist() == second.tolist(), f"step {step}"
        assert len(first) in (3000, 5000)
        share.set([old, old])

    assert killed_at_every_step(lambda: share.set([new, new]), check, stride=3) > 50


def test_a_kill_at_any_step_of_moving_to_the_other_area():
    share = Share(OLD)
    while share._region.extent()[_region.END] % _region._WINDOW_LEAST < _region._WINDOW_LEAST - 200:
        share.set(OLD)
        if share._region.extent()[_region.START] > share._region._area_bytes:
            break

    def action():
        for _ in range(3):
            share.set(NEW)

    def check(step):
        assert share.get() in (OLD, NEW), f"step {step}"

    assert killed_at_every_step(action, check, stride=4) > 60


def test_a_planted_bug_is_caught_by_the_sweep(monkeypatch):
    """A publish that stores the version before the bytes must not pass."""
    share = Share(OLD)
    real = _region.Region.publish

    def broken(region, frames, commit, unless_same=False):
        start = commit[_region.START]
        region._map[start : start + 4] = b"torn"
        return real(region, frames, commit, unless_same)

    monkeypatch.setattr(_region.Region, "publish", broken)

    def check(step):
        assert share.get() in (OLD, NEW)

    with pytest.raises((AssertionError, mmapshare.CorruptRegionError)):
        killed_at_every_step(lambda: block(share), check, stride=3)
    assert in_child(lambda: True)


def test_the_next_holder_logs_who_died_holding_the_lock(make, caplog):
    share = make(1)

    def hold(child):
        with share.locked():
            child.say()
            signal.pause()

    child = Child(hold)
    child.hear()
    child.kill()
    with caplog.at_level(logging.WARNING, logger="mmapshare"):
        share.set(2)
        share.set(3)
    assert [record.getMessage() for record in caplog.records] == [
        f"pid {child.pid} died holding the lock; "
        "its unfinished change is dropped, the value is whole"
    ]
    assert share.info().holders_found_dead == 1


def test_the_logger_is_silent_by_default():
    assert any(isinstance(h, logging.NullHandler) for h in logging.getLogger("mmapshare").handlers)


def test_a_waiter_gets_a_killed_holders_lock(make):
    share = make(1)

    def hold(child):
        with share.locked():
            child.say()
            signal.pause()

    holder = Child(hold)
    holder.hear()
    waiter = Child(lambda child: share.update(int.__add__, 1))
    holder.kill()
    assert waiter.result() == 2


def test_workers_killed_at_random_lose_no_acknowledged_commit(make):
    share = make(0)

    def work(child):
        while True:
            share.update(int.__add__, 1)
            os.write(child._out, b".")

    acknowledged = 0
    for _ in range(8):
        child = Child(work)
        for _ in range(20):
            child._read(1)
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        acknowledged += 20
        while piece := os.read(child._in, 1000):
            acknowledged += len(piece)
        child._reaped = -9
        os.close(child._in)
        os.close(child._out)
    # A worker may have been killed between its commit and its word of it.
    assert acknowledged <= share.get() <= acknowledged + 8
    assert share.info().holders_found_dead <= 8
