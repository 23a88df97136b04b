"""Waiting for a commit: by threads, processes and tasks, on shares and shared dicts."""

import asyncio
import errno
import os
import platform
import random
import signal
import threading
import time

import pytest
from support import Child, Wanted, in_child, inside, killed_at_every_step

from mmapshare import ClosedError, DeadlockError, DictSnapshot, Snapshot

trio = Wanted("trio")

SEED = int.from_bytes(os.urandom(4), "little")


@pytest.fixture(params=["share", "dict"])
def shared(request, medium):
    return getattr(medium, request.param)({"n": 0})


@pytest.fixture(params=["futex", "polling"])
def how(request, monkeypatch):
    """With a futex, and on a system that has none."""
    if request.param == "polling":
        monkeypatch.setattr(*inside.at("FUTEX"), None)
    else:
        assert inside.FUTEX is not None


def _change(shared, n):
    with shared.locked() as view:
        view["n"] = n


@pytest.mark.needs("crosses_fork")
def test_a_commit_of_another_process_ends_the_wait(shared, how):
    def wait(child):
        child.say(shared.version)
        return shared.wait(since=1, timeout=20), shared.version

    child = Child(wait)
    assert child.hear() == 1
    child.sleeps()
    _change(shared, 5)
    assert child.result() == (True, 2)


def test_a_version_that_differs_already_is_not_waited_for(shared):
    assert shared.wait(since=0)
    assert shared.wait(since=7)
    assert not shared.wait(since=1, timeout=0)
    assert not shared.wait(timeout=0.01)


@pytest.mark.needs("crosses_fork")
def test_a_predicate_sees_fresh_values_without_the_lock(shared, how):
    seen = []

    def enough(value):
        assert inside.token_of(shared) is None
        seen.append(value["n"])
        if isinstance(value, dict):
            value["n"] = 99
        return value["n"] >= 3 and seen[-1] >= 3

    def work(child):
        for n in range(1, 4):
            child.hear()
            _change(shared, n)

    assert not shared.wait(enough, timeout=0)
    child = Child(work)
    for n in range(1, 3):
        child.say()
        assert shared.wait(since=n, timeout=20)
        assert not shared.wait(enough, timeout=0)
    child.say()
    assert shared.wait(enough, timeout=20)
    child.result()
    assert seen == [0, 1, 2, 3] or seen == [0, 1, 2, 2, 3]


def test_what_a_predicate_raises_is_raised(medium):
    with pytest.raises(ZeroDivisionError):
        medium.share(0).wait(lambda n: 1 / n)


@pytest.mark.needs("crosses_fork")
def test_an_empty_share_is_waited_for_until_it_has_a_value(medium):
    share = medium.share()
    assert not share.wait(lambda value: True, timeout=0)
    assert not share.wait(since=0, timeout=0)
    assert not share.wait(since=3, timeout=0)

    def wait(child):
        child.say()
        return share.wait(lambda value: value == "first", timeout=20)

    child = Child(wait)
    child.hear()
    share.set("first")
    assert child.result() is True


def test_an_empty_dict_has_a_value_to_ask_about(medium):
    assert medium.dict().wait(lambda snapshot: len(snapshot) == 0, timeout=0)
    assert not medium.dict().wait(since=5, timeout=0)


def test_a_block_that_changed_nothing_wakes_nobody_for_good(shared, how):
    with shared.locked():
        pass
    assert not shared.wait(timeout=0.01)


def test_waiting_within_ones_own_block_is_a_deadlock(shared):
    for act in (shared.wait, lambda: next(shared.changes())):
        with shared.locked(), pytest.raises(DeadlockError, match="nobody else can commit"):
            act()
    with shared.locked():
        assert shared.wait(lambda value: value["n"] == 0)
        assert shared.wait(since=0)


def test_wrong_arguments_say_what_is_right(shared):
    with pytest.raises(TypeError, match="since is a version"):
        shared.wait(since="1")
    with pytest.raises(ValueError, match="timeout"):
        shared.wait(timeout=-1)
    shared.close()
    with pytest.raises(ClosedError):
        shared.wait()


@pytest.mark.needs("is_memory")
def test_closing_in_another_thread_ends_the_wait_with_an_error(shared, how):
    errors = []

    def wait():
        try:
            shared.wait(timeout=20)
        except ClosedError as err:
            errors.append(err)

    thread = threading.Thread(target=wait)
    thread.start()
    if inside.FUTEX is not None:
        while not inside.lock_words_of(inside.lock_of(shared))[4]:
            pass
    shared.close()
    thread.join()
    assert len(errors) == 1


@pytest.mark.needs("crosses_fork", "free_at_once_after_kill")
def test_an_interrupt_ends_the_wait_at_once(shared, how):
    def wait(child):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        child.say()
        try:
            shared.wait()
        except KeyboardInterrupt:
            return "interrupted"

    child = Child(wait)
    child.hear()
    child.sleeps()
    os.kill(child.pid, signal.SIGINT)
    assert child.result() == "interrupted"


@pytest.mark.needs("crosses_fork", "free_at_once_after_kill")
@pytest.mark.untraced
def test_a_wake_up_is_never_late_though_its_writer_is_killed(shared):
    """Killed between its commit and the wake-up it wakes nobody: the sleeper looks by itself."""

    def wait(child):
        while True:
            version = child.hear()
            if version is None:
                return
            child.say()
            assert shared.wait(since=version, timeout=20)
            child.say(shared.version)

    waiter = Child(wait)
    before = [0]

    def start(step):
        version = shared.version
        if version == before[0]:
            _change(shared, step)
        assert waiter.hear() == shared.version
        waiter.say(shared.version)
        waiter.hear()
        before[0] = shared.version

    waiter.say(shared.version)
    waiter.hear()
    before[0] = shared.version
    killed_at_every_step(lambda: _change(shared, os.getpid()), start, stride=40)
    _change(shared, -1)
    waiter.hear()
    waiter.say(None)
    waiter.result()


def test_nobody_waits_nothing_is_called(shared, monkeypatch):
    calls = []
    monkeypatch.setattr(*inside.at("futex_wake"), lambda *args: calls.append(args))
    for n in range(3):
        _change(shared, n)
    assert calls == []
    inside.lock_of(shared).words[inside.LEASE] = time.monotonic_ns() + 10**9
    _change(shared, 5)
    assert len(calls) == 1
    inside.lock_of(shared).words[inside.LEASE] = 1  # Long over: belongs to nobody.
    _change(shared, 6)
    _change(shared, 7)
    assert len(calls) == 1
    assert inside.lock_words_of(inside.lock_of(shared))[4] == 0


@pytest.mark.needs("crosses_fork", "free_at_once_after_kill")
@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.untraced
def test_many_waiters_some_of_them_killed_see_every_last_commit(medium):
    print("seed", SEED)
    rng = random.Random(SEED)
    share = medium.share(0)

    def wait(child):
        seen = 0
        for snapshot in share.changes(since=0, timeout=30):
            assert snapshot.version > seen
            seen = snapshot.version
            if snapshot.value == "end":
                return seen
        return None

    children = [Child(wait) for _ in range(100)]
    for n in range(300):
        share.set(n)
        if n % 30 == 0:
            children.pop(rng.randrange(len(children))).kill()
    last = share.set("end")
    assert [child.result() for child in children] == [last] * 90


def test_changes_gives_each_version_once_and_ends_at_the_timeout(shared):
    changes = shared.changes(timeout=0)
    assert iter(changes) is changes
    assert list(changes) == []
    _change(shared, 1)
    _change(shared, 2)
    (snapshot,) = changes
    assert isinstance(snapshot, Snapshot | DictSnapshot)
    assert snapshot.version == 3
    assert list(changes) == []
    assert [s.version for s in shared.changes(since=0, timeout=0)] == [3]


@pytest.mark.needs("crosses_fork")
def test_changes_goes_on_over_the_commits_of_another_process(shared):
    def work(child):
        for n in range(1, 6):
            _change(shared, n)
            child.hear()

    child = Child(work)
    seen = []
    for snapshot in shared.changes(since=1, timeout=20):
        value = snapshot.value if isinstance(snapshot, Snapshot) else dict(snapshot)
        seen.append(value["n"])
        child.say()
        if seen[-1] == 5:
            break
    child.result()
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.needs("crosses_fork")
@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), lambda main: trio.run(main)])
def test_tasks_wait_while_their_loop_runs_on(shared, run):
    async def main():
        def work(child):
            child.hear()
            _change(shared, 1)
            child.hear()
            _change(shared, 2)

        child = Child(work)
        assert not await shared.wait_async(timeout=0)
        child.say()
        assert await shared.wait_async(lambda value: value["n"] == 1, timeout=20)
        seen = []
        async for snapshot in shared.changes(since=0, timeout=20):
            seen.append(snapshot.version)
            if len(seen) == 2:
                break
            child.say()
        child.result()
        return seen

    assert run(main) == [2, 3]


def test_the_loop_runs_other_tasks_meanwhile(medium):
    share = medium.share(0)

    async def main():
        async def other():
            for _ in range(10):
                await asyncio.sleep(0)
            share.set(1)

        await asyncio.gather(share.wait_async(since=1, timeout=20), other())

    asyncio.run(main())


@pytest.mark.needs("crosses_fork")
def test_a_forked_child_waits_and_wakes_as_its_parent_does(shared):
    assert not in_child(lambda: shared.wait(timeout=0.01))

    def wake():
        _change(shared, 9)

    version = shared.version
    thread = threading.Thread(target=lambda: in_child(wake))
    thread.start()
    assert shared.wait(since=version, timeout=20)
    thread.join()


def test_the_longest_sleep_is_shorter_than_what_is_promised():
    assert inside.NAP_S < 0.05


def test_changes_ends_at_the_timeout_in_a_loop_too(shared):
    async def main():
        return [snapshot.version async for snapshot in shared.changes(since=0, timeout=0)]

    assert asyncio.run(main()) == [1]


def test_a_sleep_that_the_system_refuses_is_an_error(medium):
    words = inside.lock_of(medium.share(0)).words
    with pytest.raises(OSError) as caught:
        inside.futex_sleep(words, 1, 0, 0)  # No four aligned bytes.
    assert caught.value.errno == errno.EINVAL


def test_a_system_without_a_futex_is_found_out(monkeypatch):
    assert isinstance(inside.futex(), inside.Futex)
    no_system_call = 2**20
    monkeypatch.setattr(*inside.at("FUTEX_NUMBERS"), {platform.machine(): no_system_call})
    assert inside.futex() is None
    monkeypatch.setattr(*inside.at("FUTEX_NUMBERS"), {})
    assert inside.futex() is None


def test_where_one_cannot_sleep_a_commit_wakes_nobody(shared, monkeypatch):
    """Who took the lease may be of another process, that can."""
    monkeypatch.setattr(*inside.at("FUTEX"), None)
    inside.lock_of(shared).words[inside.LEASE] = time.monotonic_ns() + 10**9
    _change(shared, 5)
    assert shared.version == 2
