"""What happens to shares on a server is recorded as what happens to others."""

import asyncio
import os

import pytest
from support import Child, inside, kill_self, redis_server

import mmapshare
from mmapshare import LockTimeout, Share, SharedDict, VersionConflict

HOLD, GAVE_UP, SLEEP, CONFLICT, FOUND_DEAD = range(1, 6)
HERE = os.path.abspath(__file__)

pytestmark = pytest.mark.skipif(bool(redis_server.why_not()), reason=redis_server.why_not())


@pytest.fixture
def url():
    server = redis_server.of_tests()
    yield f"{server.socket_url}/jobs"
    server.command("FLUSHALL")


def _of(trace, kind):
    return [event for event in trace.recording.events if event.kind == kind]


def _change(share):
    with share.locked() as view:
        view["n"] += 1


def test_while_nothing_is_recorded_there_is_nothing_of_it(url):
    share = Share.open(url, {"n": 0})
    names = ("remote_sleeping", "lease_report_dead", "put_value_at_once", "put_keys_at_once")
    before = [getattr(inside, name) for name in names]
    with mmapshare.trace():
        _change(share)
        during = [getattr(inside, name) for name in names]
        assert all(one is not other for one, other in zip(before, during, strict=True))
    assert [getattr(inside, name) for name in names] == before
    assert inside.lock_of(share).known is None


@pytest.mark.parametrize("kind", [Share, SharedDict])
def test_blocks_and_single_commits_are_holds_with_their_versions(url, kind):
    shared = kind.open(url, {"n": 0})
    with mmapshare.trace() as trace:
        _change(shared)
        with shared.locked():
            pass
        _change(shared)
        if kind is Share:
            shared.set({"n": 5})
        else:
            shared["n"] = 5
        shared.update(lambda v: v | {"n": 6}) if kind is Share else shared.update(n=6)
    holds = _of(trace, HOLD)
    assert [(hold.before, hold.after) for hold in holds] == [(1, 2), (2, 2), (2, 3), (3, 4), (4, 5)]
    assert {hold.site[0] for hold in holds} == {HERE}
    assert all(hold.is_whole and hold.begun == hold.got < hold.ended for hold in holds)
    assert set(trace.recording.names.values()) == {url}


def test_a_value_that_is_there_already_is_no_commit(url):
    shared = SharedDict.open(url, {"n": 0})
    with mmapshare.trace() as trace:
        shared["n"] = 1
        shared["n"] = 1
    assert [hold.commits for hold in _of(trace, HOLD)] == [1, 0]


def test_a_password_is_not_in_a_recording(tmp_path):
    with redis_server.Server("--requirepass", "hush") as server:
        share = Share.open(f"redis://:hush@127.0.0.1:{server.port}/0/jobs", {"n": 0})
        inside.trace_start(str(tmp_path))
        _change(share)
        inside.trace_stop()
        share.close()
    assert set(inside.trace_opened(tmp_path).recording.names.values()) == {f"{server.url}/jobs"}
    assert not any(b"hush" in path.read_bytes() for path in tmp_path.iterdir())


def _in_line():
    return redis_server.of_tests().command("ZCARD", "mmapshare:{jobs}:wait")


def _somebody_sleeps():
    return b"blocked_clients:1\r\n" in redis_server.of_tests().command("INFO", "clients")


def test_a_wait_is_as_long_as_another_holds(url):
    share = Share.open(url, {"n": 0})

    def hold(child):
        with share.locked():
            child.say()
            child.hear()

    with mmapshare.trace() as trace:
        holder = Child(hold)
        holder.hear()
        with pytest.raises(LockTimeout), share.locked(timeout=0.05):
            pass
        assert _in_line() == b":0"  # Who gave up stands there no more.
        waiter = Child(lambda child: _change(share))
        while not _somebody_sleeps():  # In line one stands before that, and before one waits.
            pass
        holder.say()
        waiter.result()
        holder.result()
    first, second = _of(trace, HOLD)
    assert (first.pid, second.pid) == (holder.pid, waiter.pid)
    assert second.begun < first.ended
    assert second.got > second.begun
    (gave_up,) = _of(trace, GAVE_UP)
    assert gave_up.ended - gave_up.begun > 4 * 10**7


def test_conflicts_and_sleeps_and_kills_found_are_recorded(url):
    share, shared = Share.open(url, {"n": 0}), SharedDict.open(f"{url}2", {"a": 1})

    def die(child):
        share.lock()
        kill_self()

    def read_and_write(view):
        seen = view["a"]
        if seen == 1:
            shared["a"] = 2
        view["b"] = seen

    async def wait():
        await share.wait_async(timeout=0.01)

    with mmapshare.trace() as trace:
        with pytest.raises(VersionConflict):
            share.set({}, if_version=7)
        share.lock()
        with pytest.raises(VersionConflict):
            share.set({}, if_version=7)
        share.unlock()
        shared.transact(read_and_write)
        killed = Child(die)
        killed.wait()
        share.set({"n": 1})
        assert not share.wait(timeout=0.01)
        asyncio.run(wait())
    assert len(_of(trace, CONFLICT)) == 3
    (found,) = _of(trace, FOUND_DEAD)
    assert (found.before, found.share) == (killed.pid, inside.region_id_of(share).hex()[:8])
    sleeps = _of(trace, SLEEP)
    assert {(event.before, event.after) for event in sleeps} == {(2, 2)}
    assert [site[0] for site in {event.site for event in sleeps}] == [HERE] * 2
    assert "wait" in {event.site[2] for event in sleeps}
    (left,) = [hold for hold in _of(trace, HOLD) if hold.pid == killed.pid]
    assert not left.is_whole


def test_a_share_that_goes_as_garbage_with_its_lock_taken_is_recorded(url):
    with mmapshare.trace() as trace:
        share = Share.open(url, {"n": 0})
        share.lock()
        versions = inside.lock_of(share).known.words
        assert versions[0] == 1
        share.unlock()
        del share
        assert versions[0] == 0
    assert [hold.is_whole for hold in _of(trace, HOLD)] == [True]
