"""The lease: who has it, what becomes of it, and who comes next."""

import logging
import os
import re
import signal
import threading
import time

import pytest
from support import Child, in_child, inside
from support.remote import add, opened, put, read

from mmapshare import (
    LeaseLostError,
    LockTimeout,
    Share,
    SharedDict,
    locked,
)


def _hold(child, shared):
    with shared.locked() as view:
        view["n"] = -1
        child.say("held")
        child.hear()


def test_a_killed_holder_on_this_host_frees_the_lock_within_milliseconds(kind, url, caplog):
    shared = opened(kind, url)
    holder = Child(_hold, shared)
    assert holder.hear() == "held"
    killed = []

    def kill():
        killed.append(time.monotonic())
        os.kill(holder.pid, signal.SIGKILL)

    threading.Timer(0.2, kill).start()
    with shared.locked(timeout=20) as view:
        took_s = time.monotonic() - killed[0]
        view["n"] += 1
    assert took_s < 0.2  # A busy machine's; 1 to 2 ms else.
    assert read(shared) == 1
    assert shared.info().holders_found_dead == 1
    assert f"pid {holder.pid} died holding the lock" in caplog.text
    holder.wait()


def test_a_killed_holders_lock_is_taken_at_once(kind, url, caplog):
    caplog.set_level(logging.WARNING)
    shared = opened(kind, url)
    holder = Child(_hold, shared)
    holder.hear()
    holder.kill()
    holder.wait()
    assert shared.info().holder_pid is None
    began = time.monotonic()
    with shared.locked(timeout=0):
        pass
    assert time.monotonic() - began < 1
    assert put(shared, 5)
    assert "died holding the lock" in caplog.text


def test_one_step_over_a_killed_holder_takes_the_lock(kind, url):
    shared = opened(kind, url)
    for n in (5, 5):
        holder = Child(_hold, shared)
        holder.hear()
        holder.kill()
        holder.wait()
        put(shared, n)
        assert read(shared) == 5
    assert shared.version == (3 if kind == "share" else 2)  # What a key has is not set again.
    assert shared.info().holder_pid is None


def _from_elsewhere(child, kind, url):
    inside.open_here.clear()
    inside.put("boot_of_holder", lambda: f"boot of host {os.getpid()}")
    _hold(child, opened(kind, url))


def test_a_killed_holder_on_another_host_frees_it_in_about_a_second(kind, url):
    """By its connection, which the server has no more."""
    shared = opened(kind, url)
    holder = Child(_from_elsewhere, kind, url)
    holder.hear()
    threading.Timer(0.3, os.kill, [holder.pid, signal.SIGKILL]).start()
    began = time.monotonic()
    with shared.locked(timeout=20) as view:
        view["n"] += 1
    assert time.monotonic() - began < 3
    assert (read(shared), shared.info().holders_found_dead) == (1, 1)
    holder.wait()


def test_a_holder_on_another_host_that_lives_is_waited_for(kind, url):
    shared = opened(kind, url)
    holder = Child(_from_elsewhere, kind, url)
    holder.hear()
    with pytest.raises(LockTimeout, match=r"by pid \d+ on .*, whose lease ends in") as caught:
        shared.lock(timeout=1)
    assert caught.value.holder_pid == holder.pid
    assert shared.info().holder_pid == holder.pid
    holder.say()
    holder.result()
    assert read(shared) == -1


def test_who_may_not_ask_for_a_holders_connection_waits_for_the_lease(start, kind):
    server = start()
    server.command("ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all", "-client|list")
    url = server.url.replace("//", "//ann:pw@") + "/jobs"
    shared = opened(kind, url)
    holder = Child(_from_elsewhere, kind, url)
    holder.hear()
    server.command("HSET", "mmapshare:{jobs}", "ls", 1)  # Long enough to be looked at.
    with pytest.raises(LockTimeout, match="whose lease ends in"):
        shared.lock(timeout=0.1)
    holder.say()
    holder.result()
    with shared.locked(timeout=20) as view:
        assert view["n"] == -1


def test_who_waits_in_line_and_is_cut_off_asks_again(kind, url, server):
    shared = opened(kind, url)
    holder = Child(_hold, shared)
    holder.hear()
    waiter = Child(lambda child: add(shared))
    cut, end = set(), time.monotonic() + 20
    while len(cut) < 3:
        assert time.monotonic() < end
        clients = server.command("CLIENT", "LIST").decode()
        cut.update(re.findall(r"(?m)^id=(\d+) .* flags=b.* cmd=blpop ", clients))
        for number in cut:
            server.command("CLIENT", "KILL", "ID", number)
    holder.say()
    holder.result()
    waiter.result()
    assert read(shared) == 0


def test_a_block_that_took_too_long_and_was_overtaken_writes_nothing(kind, url):
    shared = opened(kind, url, lease=0.2)

    def overtake():
        inside.open_here.clear()
        other = opened(kind, url)
        with other.locked(timeout=10) as view:
            view["n"] = 7
        return read(other)

    with pytest.raises(LeaseLostError, match=r"longer than its lease of 0\.2 s"):
        with shared.locked() as view:
            view["n"] += 1
            assert in_child(overtake) == 7
    assert read(shared) == 7
    add(shared)
    assert read(shared) == 8


def test_of_several_none_is_written_where_one_was_overtaken(kind, url):
    slow, other = opened(kind, url, lease=0.2), opened(kind, url + "-other")

    def overtake():
        inside.open_here.clear()
        put(opened(kind, url), 7)

    with pytest.raises(LeaseLostError):
        with locked(slow, other) as views:
            for view in views:
                view["n"] += 1
            time.sleep(0.3)
            in_child(overtake)
    assert (read(slow), read(other)) == (7, 0)
    with locked(slow, other) as views:
        for view in views:
            view["n"] += 1
    assert (read(slow), read(other)) == (8, 1)


def test_a_block_that_took_too_long_and_met_nobody_commits(kind, url):
    shared = opened(kind, url, lease=0.1)
    with shared.locked() as view:
        view["n"] += 1
        time.sleep(0.3)
    assert read(shared) == 1
    shared.lock()
    time.sleep(0.2)
    put(shared, 5)
    time.sleep(0.2)
    put(shared, 6)
    shared.unlock()
    assert read(shared) == 6


def test_a_block_that_was_overtaken_reads_nothing_of_what_came_then(url):
    shared = SharedDict.open(url, {"n": 0, "large": "x" * 2_000_000}, lease=0.05)
    with pytest.raises(LeaseLostError, match=r"longer than its lease of 0\.05 s"):
        with shared.locked() as view:
            view["n"] += 1
            in_child(shared.__setitem__, "large", "y")
            view["large"]
    assert shared == {"n": 0, "large": "y"}


def test_one_step_by_another_overtakes_it_too(kind, url):
    shared = opened(kind, url, lease=0.1)
    with pytest.raises(LeaseLostError), shared.locked() as view:
        view["n"] += 1
        time.sleep(0.2)
        in_child(put, shared, 9)
    assert read(shared) == 9


def test_a_paused_holder_is_overtaken_and_told(kind, url):
    shared = opened(kind, url, lease=0.3)

    def slow(child):
        try:
            with shared.locked() as view:
                view["n"] += 100
                child.say("held")
                child.hear()
        except LeaseLostError:
            return "lost"

    holder = Child(slow)
    holder.hear()
    os.kill(holder.pid, signal.SIGSTOP)
    began = time.monotonic()
    add(shared)
    assert 0.1 < time.monotonic() - began < 2
    os.kill(holder.pid, signal.SIGCONT)
    holder.say()
    assert holder.result() == "lost"
    assert read(shared) == 1


def test_what_a_child_inherits_of_a_block_is_dead_and_frees_nothing(kind, url):
    shared = opened(kind, url)

    def leave(child):
        with pytest.raises(LockTimeout):
            shared.lock(timeout=0.05)
        return True

    with shared.locked() as view:
        assert Child(leave).result()
        assert Child(lambda child: os.getpid()).result()
        with pytest.raises(LockTimeout):
            in_child(shared.lock, 0.05)
        view["n"] = 4
    assert read(shared) == 4


def test_crossing_blocks_end_with_the_lease(server):
    """Nobody sees that they wait for each other over a server; take them together."""
    a, b = (Share.open(f"{server.url}/{name}", 0, lease=0.5) for name in "ab")

    def cross(child):
        try:
            with b.locked() as inner:
                inner.value += 1
                child.say()
                child.hear()
                with a.locked() as outer:
                    outer.value += 1
        except LeaseLostError:
            return "lost"

    child = Child(cross)
    child.hear()
    lost = None
    try:
        with a.locked() as outer:
            outer.value += 10
            child.say()
            with b.locked() as inner:
                inner.value += 10
    except LeaseLostError:
        lost = "lost"
    assert "lost" in {child.result(), lost}
    with locked(a, b) as (one, other):
        one.value = other.value = 5
    assert (a.get(), b.get()) == (5, 5)


def test_a_ghost_of_ones_own_is_broken(kind, url, server):
    """A lease that was taken by a command whose answer never came."""
    shared = opened(kind, url)
    lease = inside.lock_of(shared).process_lock
    hash_of = "mmapshare:{jobs}"
    for field, value in {
        "lt": inside.lease_prefix(lease) + b"ghost!!!", "lu": str(10**18), "ls": "1", "lc": "0",
        "lh": lease.who.packed(),
    }.items():  # fmt: skip
        server.command("HSET", hash_of, field, value)
    began = time.monotonic()
    add(shared)
    assert time.monotonic() - began < 1
    assert read(shared) == 1
