"""`mmapshare.trace`: what happens to locks is recorded, in all processes that were told to."""

import asyncio
import inspect
import os
import threading

import pytest
from support import Child, inside, kill_self

import mmapshare
from mmapshare import LockTimeout, Share, SharedDict, VersionConflict

HOLD, GAVE_UP, SLEEP, CONFLICT, FOUND_DEAD = range(1, 6)
HERE = os.path.abspath(__file__)


def _of(trace, kind):
    return [event for event in trace.recording.events if event.kind == kind]


def _change(share):
    with share.locked() as view:
        view["n"] += 1


LINE = inspect.getsourcelines(_change)[1] + 1


def _methods():
    names = (
        "lock_acquire",
        "lock_acquire_async",
        "lock_release",
        "lock_let_go",
        "lock_report_dead",
    )
    return [getattr(inside, name) for name in names]


# --- What is recorded ------------------------------------------------------------------------


def test_while_nothing_is_recorded_there_is_nothing_of_it():
    share = Share({"n": 0})
    before = _methods()
    with mmapshare.trace():
        _change(share)
        assert all(one is not other for one, other in zip(before, _methods(), strict=True))
        assert os.environ["MMAPSHARE_TRACE"]
    assert _methods() == before
    assert "MMAPSHARE_TRACE" not in os.environ
    assert inside.lock_of(share).known is None


def test_a_block_is_a_hold_with_its_place_its_time_and_its_commit():
    share = Share({"n": 0})
    with mmapshare.trace() as trace:
        for _ in range(3):
            _change(share)
        _change(share)  # From another line of ours, at the same one of the block.
        share.get()
    holds = _of(trace, HOLD)
    assert len(holds) == 4
    for number, hold in enumerate(holds):
        assert hold.site == (HERE, LINE, "_change")
        assert (hold.before, hold.after, hold.commits) == (number + 1, number + 2, 1)
        assert hold.begun == hold.got < hold.ended
        assert (hold.pid, hold.thread, hold.is_whole) == (os.getpid(), threading.get_ident(), True)
        assert hold.share == inside.region_id_of(share).hex()[:8]


def test_whatever_takes_the_lock_is_recorded_where_the_program_did_it():
    share, shared = Share.open("jobs", {"n": 0}), SharedDict({"a": 1})
    with mmapshare.trace() as trace:
        share.set({"n": 1})
        share.update(lambda v: v | {"m": 1})
        shared["a"] = 2
        share.lock()
        share.set({"n": 2})
        share.set({"n": 3})
        share.unlock()
        with mmapshare.locked(share, shared) as (one, other):
            one["n"] = other["a"]
        with share.locked(), share.locked() as view:
            view["n"] = 0
    holds = _of(trace, HOLD)
    assert [hold.commits for hold in holds] == [
        1,
        1,
        1,
        2,
        *[hold.commits for hold in holds[4:6]],
        1,
    ]
    assert sorted(hold.commits for hold in holds[4:6]) == [0, 1]
    assert {hold.site[0] for hold in holds} == {HERE}
    lines = [hold.site[1] for hold in holds]
    assert [line - lines[0] for line in lines] == [0, 1, 2, 3, 7, 7, 9]
    assert trace.recording.names[holds[0].share] == "jobs"
    share.unlink()
    share.close()


def test_a_block_that_is_given_up_commits_nothing():
    share = Share({"n": 0})
    with mmapshare.trace() as trace:
        with pytest.raises(ZeroDivisionError), share.locked() as view:
            view["n"] = 1 / 0
        with pytest.raises(mmapshare.UnpicklableError), share.locked() as view:
            view["n"] = threading.Lock()
        with share.locked():
            pass
    assert [(hold.commits, hold.is_whole) for hold in _of(trace, HOLD)] == [(0, True)] * 3


def test_a_wait_is_as_long_as_another_holds():
    share = Share({"n": 0})

    def hold(child):
        with share.locked():
            child.say()
            child.hear()

    with mmapshare.trace() as trace:
        holder = Child(hold)
        holder.hear()
        waiter = Child(lambda child: _change(share))
        waiter.sleeps()
        holder.say()
        waiter.result()
        holder.result()
    first, second = _of(trace, HOLD)
    assert (first.pid, second.pid) == (holder.pid, waiter.pid)
    assert first.got <= second.begun + 10**9
    assert second.begun < first.ended <= second.got
    assert second.ended > second.got


def test_who_gives_up_waiting_is_recorded_and_who_only_asks_is_not():
    share = Share({"n": 0})

    def hold(child):
        with share.locked():
            child.say()
            child.hear()

    async def wait():
        async with share.locked(timeout=0.01):
            pass

    with mmapshare.trace() as trace:
        holder = Child(hold)
        holder.hear()
        for timeout in (0.01, 0):
            with pytest.raises(LockTimeout), share.locked(timeout=timeout):
                pass
        with pytest.raises(LockTimeout):
            asyncio.run(wait())
        holder.say()
        holder.result()
    gave_up = _of(trace, GAVE_UP)
    assert [event.pid for event in gave_up] == [os.getpid()] * 2
    assert all(event.ended - event.begun >= 10**7 for event in gave_up)
    assert {event.site[0] for event in gave_up} == {HERE}


def test_conflicts_and_sleeps_and_kills_found_are_recorded():
    share, shared = Share({"n": 0}), SharedDict({"a": 1})

    def die(child):
        share.lock()
        kill_self()

    def read_and_write(view):
        seen = view["a"]
        if not killed:
            killed.append(Child(lambda child: shared.update(a=2)).wait())
        view["b"] = seen

    killed = []
    with mmapshare.trace() as trace:
        with pytest.raises(VersionConflict):
            share.set({}, if_version=7)
        shared.transact(read_and_write)
        killed = Child(die)
        killed.wait()
        share.set({"n": 1})
        assert not share.wait(timeout=0.01)
    assert len(_of(trace, CONFLICT)) == 2
    (found,) = _of(trace, FOUND_DEAD)
    assert found.before == killed.pid
    assert [event.before for event in _of(trace, SLEEP)][:1] == [2]
    left = [hold for hold in _of(trace, HOLD) if hold.pid == killed.pid]
    assert [hold.is_whole for hold in left] == [False]
    following = [hold for hold in _of(trace, HOLD) if hold.got > left[0].got]
    assert left[0].ended == min(hold.got for hold in following if hold.share == left[0].share)


def test_tasks_and_threads_are_told_apart():
    share = Share({"n": 0})

    async def change():
        async with share.locked() as view:
            view["n"] += 1
            async with share.locked():  # The same hold.
                await asyncio.sleep(0)

    async def both():
        await asyncio.gather(change(), change())

    with mmapshare.trace() as trace:
        thread = threading.Thread(target=_change, args=(share,))
        thread.start()
        ident = thread.ident
        thread.join()
        asyncio.run(both())
    holds = _of(trace, HOLD)
    assert [hold.thread for hold in holds] == [ident, *[threading.get_ident()] * 2]
    assert holds[1].ended <= holds[2].got
    assert [hold.site[2] for hold in holds] == ["_change", "change", "change"]
