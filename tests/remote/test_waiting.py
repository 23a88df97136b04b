"""Waiting for a commit on a server, and event loops that run on meanwhile."""

import asyncio
import gc
import importlib.util
import threading
import time
import warnings

import pytest
from support import Child, in_child, inside, open_fds
from support.remote import add, opened, put, read

from mmapshare import DeadlockError, LockTimeout


def test_a_commit_wakes_who_waits(kind, url):
    shared = opened(kind, url)

    def wait(child):
        for _ in range(5):
            since = shared.version
            child.say()
            assert shared.wait(since=since, timeout=20)
            child.say(time.monotonic())

    child = Child(wait)
    late = []
    for n in range(1, 6):
        child.hear()
        child.sleeps()
        time.sleep(0.02)
        began = time.monotonic()
        put(shared, n)
        late.append(child.hear() - began)
    assert sorted(late)[2] < 0.05  # Nobody looks again before a second is over.
    child.result()


def test_a_commit_before_the_sleep_is_not_slept_through(kind, url):
    shared = opened(kind, url)
    since = shared.version
    add(shared)
    began = time.monotonic()
    assert shared.wait(since=since, timeout=20)
    assert shared.wait(lambda value: value["n"] == 1, timeout=20)
    assert inside.store_of(shared).sleep(since, 0, 20)  # It came after the last look.
    assert time.monotonic() - began < 1


def test_a_wait_within_ones_own_block_would_never_end(kind, url):
    shared = opened(kind, url)
    with shared.locked(), pytest.raises(DeadlockError):
        shared.wait(timeout=1)


def test_changes_tell_each_version_once(kind, url):
    shared = opened(kind, url)
    child = Child(lambda child: [put(shared, n) for n in range(1, 30) if time.sleep(0.002) is None])
    seen = []
    for snapshot in shared.changes(since=shared.version, timeout=2):
        seen.append(snapshot.version)
        if snapshot.version == 30:
            break
    assert seen == sorted(set(seen))
    assert child.result()[-1] == 30


class Ticks:
    """Counts how often the loop came to it, and for how long it did not."""

    def __init__(self):
        self.longest = 0.0

    async def run(self):
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now


def _hold(child, shared, seconds):
    with shared.locked() as view:
        child.say()
        child.hear()
        time.sleep(seconds)
        view["n"] += 1


def test_who_waits_for_the_lock_in_a_task_lets_the_loop_run(kind, url):
    shared = opened(kind, url)
    holder = Child(_hold, shared, 0.3)
    holder.hear()

    async def main():
        ticks = Ticks()
        other = asyncio.create_task(ticks.run())
        holder.say()
        async with shared.locked() as view:
            view["n"] += 1
        other.cancel()
        return ticks.longest

    assert asyncio.run(main()) < 0.15
    holder.result()
    assert read(shared) == 2


@pytest.fixture(params=["no connection", "a doubtful one"])
def wireless(request, kind, start):
    """A server, and a share whose next call has to make a connection, or to end one by another."""
    server = start()
    shared = opened(kind, server.url + "/jobs?socket_timeout=5")
    wire = inside.store_of(shared).wire
    if request.param == "a doubtful one":
        conn, other = wire.take(), wire.take()
        wire.drop(conn)
        wire.give_back(other)
    else:
        wire.end_idle()
    return server, shared


def test_a_task_that_has_no_good_connection_lets_the_loop_run(wireless):
    """It took one in a thread's way: nothing else ran for two seconds, if the server was gone."""
    server, shared = wireless

    async def main():
        ticks = Ticks()
        server.pause()
        other = asyncio.create_task(ticks.run())
        asyncio.get_running_loop().call_later(0.7, server.resume)
        async with shared.locked() as view:
            view["n"] += 1
        other.cancel()
        return ticks.longest

    assert asyncio.run(main()) < 0.35
    assert read(shared) == 1


def test_a_task_that_gives_up_getting_a_connection_leaves_none(wireless):
    server, shared = wireless
    before = {path for path in open_fds().values() if "socket" in path}

    async def main():
        server.pause()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(shared.locked().__aenter__(), 0.1)

    asyncio.run(main())
    gc.collect()
    assert {path for path in open_fds().values() if "socket" in path} <= before
    server.resume()
    add(shared)
    assert read(shared) == 1


def test_who_waits_for_a_commit_in_a_task_lets_the_loop_run(kind, url):
    shared = opened(kind, url)

    async def main():
        ticks = Ticks()
        other = asyncio.create_task(ticks.run())
        since = shared.version
        timer = threading.Timer(0.3, in_child, (put, shared, 5))
        timer.start()
        assert await shared.wait_async(since=since, timeout=20)
        assert not await shared.wait_async(timeout=0.1)
        async for snapshot in shared.changes(since=0, timeout=1):
            assert snapshot.version == 2
            break
        timer.join()
        other.cancel()
        return ticks.longest

    assert asyncio.run(main()) < 0.2


def test_a_task_that_gives_up_leaves_nothing_taken(kind, url):
    shared = opened(kind, url)
    holder = Child(_hold, shared, 0.0)
    holder.hear()

    async def main():
        with pytest.raises(LockTimeout):
            async with shared.locked(timeout=0.1):
                pass
        for seconds in (0.0, 0.001, 0.01, 0.1):
            task = asyncio.create_task(_add_async(shared))
            await asyncio.sleep(seconds)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        holder.say()
        await asyncio.wait_for(_add_async(shared), 10)

    asyncio.run(main())
    holder.result()
    with shared.locked(timeout=5) as view:
        assert view["n"] == 2


async def _add_async(shared):
    async with shared.locked() as view:
        view["n"] += 1


def test_tasks_and_processes_count_exactly(kind, url):
    shared = opened(kind, url)

    async def many(n):
        await asyncio.gather(*(_add_async(shared) for _ in range(n)))

    children = [Child(lambda child: asyncio.run(many(20))) for _ in range(2)]
    asyncio.run(many(20))
    for child in children:
        child.result()
    assert read(shared) == 60


def test_trio_waits_too(kind, url):
    trio = pytest.importorskip("trio")
    shared = opened(kind, url)
    holder = Child(_hold, shared, 0.1)
    holder.hear()

    async def main():
        async with trio.open_nursery() as nursery:

            async def let_go():
                await trio.sleep(0.05)
                holder.say()

            nursery.start_soon(let_go)
            with trio.move_on_after(0.02):
                await _add_async(shared)
            await _add_async(shared)
        assert not await shared.wait_async(timeout=0.05)
        assert await shared.wait_async(since=0, timeout=5)

    trio.run(main)
    holder.result()
    assert read(shared) == 2


@pytest.mark.parametrize("hub", ["gevent", "eventlet"])
def test_greenlets_run_on_meanwhile(kind, url, hub):
    if importlib.util.find_spec(hub) is None:
        pytest.skip(f"{hub} is not there")
    shared = opened(kind, url)
    holder = Child(_hold, shared, 0.1)
    holder.hear()
    # In a process of its own: a thread that has a hub once has it for good.
    ticks, waited = in_child(_among_greenlets, hub, holder, shared)
    assert (waited, ticks > 20) == (False, True)
    holder.result()
    assert read(shared) == 2


def _among_greenlets(hub, holder, shared):
    with warnings.catch_warnings(action="ignore"):  # eventlet tells whoever imports it to go.
        green = importlib.import_module(hub)
    later, end = ("spawn_later", "get") if hub == "gevent" else ("spawn_after", "wait")
    ticks = []

    def tick():
        while True:
            ticks.append(1)
            green.sleep(0.001)

    other = green.spawn(tick)
    getattr(green, later)(0.05, holder.say)
    getattr(green.spawn(add, shared), end)()
    waited = getattr(green.spawn(shared.wait, timeout=0.05), end)()
    other.kill()
    return len(ticks), waited


def test_a_server_that_ends_the_subscription_is_asked_again(kind, url, server):
    shared = opened(kind, url)
    since = shared.version
    child = Child(lambda child: shared.wait(since=since, timeout=60))
    _until_subscribed(server, 1)
    for _ in range(2):
        assert server.command("CLIENT", "KILL", "TYPE", "pubsub") == b":1"
        _until_subscribed(server, 1)
    put(shared, 7)
    assert child.result() is True


def _until_subscribed(server, count):
    end = time.monotonic() + 20
    while server.command("CLIENT", "LIST", "TYPE", "pubsub").count(b"id=") != count:
        assert time.monotonic() < end


def test_old_messages_do_not_wake_anybody(kind, url):
    shared = opened(kind, url)
    assert shared.wait(timeout=0.01) is False
    for n in range(50):
        put(shared, n)
    wire = inside.store_of(shared).wire
    before = wire.trips
    assert shared.wait(timeout=0.3) is False
    assert wire.trips - before < 8


def test_many_that_wait_at_once_leave_two_subscriptions(kind, url, server):
    shared = opened(kind, url)

    threads = [threading.Thread(target=shared.wait, kwargs={"timeout": 60}) for _ in range(5)]
    for thread in threads:
        thread.start()
    _until_subscribed(server, 5)
    put(shared, 1)
    for thread in threads:
        thread.join()
    _until_subscribed(server, 2)
    shared.close()
    _until_subscribed(server, 0)


def test_who_cannot_subscribe_looks_again_soon(start, kind):
    """To be told then that the server is gone, or to go on where it is there again."""
    server = start()
    shared = opened(kind, server.url + "/jobs")
    store, version = inside.store_of(shared), shared.version
    server.kill()
    began = time.monotonic()
    assert store.sleep(version, 0, 20)
    assert time.monotonic() - began < 5
