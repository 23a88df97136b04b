"""Who has the lock next."""

import os
import threading
import time

import pytest
from support import Child, in_child, inside
from support.remote import add, opened, put, read

from mmapshare import (
    DeadlockError,
    LockTimeout,
    TransactionError,
)


def test_nobody_else_gets_in_meanwhile(kind, url):
    shared = opened(kind, url)

    def others(child):
        with pytest.raises(LockTimeout, match=f"held .* by pid {os.getppid()}"):
            add_in(shared, 0.05)
        shared_n = read(shared)
        child.say("asked")
        put(shared, shared_n + 10)
        return shared.version

    def add_in(one, timeout):
        with one.locked(timeout=timeout) as view:
            view["n"] += 1

    with shared.locked() as view:
        child = Child(others)
        assert child.hear() == "asked"
        time.sleep(0.1)
        view["n"] = 1
    assert child.result() == 3
    assert read(shared) == 10


def test_threads_of_a_process_stand_in_one_line(kind, url):
    shared = opened(kind, url)
    with shared.locked():
        found = []

        def wait():
            try:
                shared.lock(timeout=0.1)
            except LockTimeout as err:
                found.append(str(err))

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    assert f"by pid {os.getpid()}, a thread of this process" in found[0]
    with pytest.raises(DeadlockError), shared.locked():
        shared.lock()
    with shared.locked(), pytest.raises(TransactionError):
        shared.close()


def test_two_processes_take_turns_and_count_exactly(kind, url):
    shared = opened(kind, url)

    def work(child):
        child.say()
        end = child.hear()
        mine = longest = 0
        while time.monotonic() < end:
            began = time.monotonic()
            add(shared)
            longest = max(longest, time.monotonic() - began)
            mine += 1
        return mine, longest

    children = [Child(work) for _ in range(3)]
    for child in children:
        child.hear()
    end = time.monotonic() + 1.0
    for child in children:
        child.say(end)
    counts = [child.result() for child in children]
    assert read(shared) == sum(count for count, _ in counts)
    assert min(count for count, _ in counts) > 0.3 * max(count for count, _ in counts)
    assert shared.info().contended_waits > 0


def test_who_waits_is_not_forgotten_when_another_has_its_turn_and_leaves(kind, url):
    """The second in line slept on, half a second, though nobody had the lock.

    1. A has the lock for long; B and C wait in line. 2. A lets go, and B comes next. 3. B lets go
    at once, within its turn, of which nobody is told. 4. Nobody has the lock, and C has to notice.
    """
    shared = opened(kind, url)

    def hold(child):
        with shared.locked():
            child.say()
            child.hear()
        child.hear()  # Its end would wake them, too.

    def take(child):
        child.say()
        with shared.locked(timeout=20):
            child.say(time.monotonic())
        child.hear()

    holder = Child(hold)
    holder.hear()
    waiters = [Child(take) for _ in range(3)]
    for waiter in waiters:
        waiter.hear()
    time.sleep(0.1)  # Longer than a turn: they sleep for as long as they do.
    began = time.monotonic()
    holder.say()
    late = [waiter.hear() - began for waiter in waiters]
    for child in (holder, *waiters):
        child.say()
        child.result()
    assert max(late) < 0.3, late


def test_a_commit_whose_answer_came_late_is_none_that_its_server_has_lost(kind, url):
    """Another thread had seen a later one before: that looked like a server that went back."""
    shared = opened(kind, url)
    store = inside.store_of(shared)
    real, met = store.wire.run, []

    def late(script, keys, *arguments):
        reply = real(script, keys, *arguments)
        if script is store.commit_script and not met:
            met.append(script)
            in_child(add, shared)
            assert shared.version == 3
        return reply

    with inside.as_it_was(store.wire, late):
        add(shared)
    assert met and read(shared) == 2
    assert shared.version == 3
