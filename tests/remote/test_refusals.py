"""What a server refuses, and what it takes though it is large; what is sent again, and closed."""

import signal
import socket
import threading
import time

import pytest
from support import in_child, inside
from support.proxy import Proxy
from support.remote import add, opened, put, read

from mmapshare import (
    ClosedError,
    DurabilityError,
    MmapShareError,
    RegionFullError,
    Share,
    SharedDict,
    StoreRefusedError,
    locked,
)

# --- A server that refuses -------------------------------------------------------------------


def test_a_replica_takes_no_change_and_is_read(start, kind):
    primary, replica = start(), start()
    opened(kind, primary.url + "/jobs").close()
    replica.command("REPLICAOF", "127.0.0.1", primary.port)
    end = time.monotonic() + 20
    while replica.command("EXISTS", "mmapshare:{jobs}") != b":1" and time.monotonic() < end:
        time.sleep(0.01)
    shared = opened(kind, replica.url + "/jobs")
    assert shared.version == 1
    if kind == "share":
        assert read(shared) == 0
    for act in (add, lambda one: put(one, 1), lambda one: one.lock()):
        with pytest.raises(StoreRefusedError, match="give the URL of the primary"):
            act(shared)


def test_several_are_refused_as_one(start, kind):
    server = start()
    shares = [opened(kind, f"{server.url}/{name}") for name in ("one", "two")]

    def move():
        with locked(*shares) as views:
            for view in views:
                view["n"] += 1
            yield

    moving = move()
    next(moving)
    server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    with pytest.raises(StoreRefusedError, match="only while it has replicas"):
        next(moving)
    server.command("CONFIG", "SET", "min-replicas-to-write", "0")
    assert [read(shared) for shared in shares] == [0, 0]
    assert len(list(move())) == 1
    assert [read(shared) for shared in shares] == [1, 1]


def test_a_server_without_memory_is_full(start, kind):
    server = start("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
    shared = opened(kind, server.url + "/jobs")
    with pytest.raises(RegionFullError, match="maxmemory"):
        for _ in range(100):
            put(shared, "x" * 2_000_000)
            server.command("APPEND", "ballast", "y" * 100_000)
    assert read(shared) in {0, "x" * 2_000_000}
    server.command("CONFIG", "SET", "maxmemory", "100mb")
    put(shared, 1)
    add(shared)
    assert read(shared) == 2
    shared.close()


def test_volatile_eviction_does_no_harm(start, kind):
    server = start("--maxmemory", "4mb", "--maxmemory-policy", "volatile-lru")
    shared = opened(kind, server.url + "/jobs")
    for n in range(60):
        server.command("SET", f"other{n}", "y" * 100_000, "EX", 1000)
        add(shared)
    assert read(shared) == 60
    shared.close()


def test_a_value_that_the_server_does_not_take_is_too_large(start, kind):
    server = start("--proto-max-bulk-len", "1mb")
    shared = opened(kind, server.url + "/jobs")
    for change in (lambda: put(shared, "x" * 5_000_000), lambda: _block(shared, "x" * 5_000_000)):
        with pytest.raises(RegionFullError, match="proto-max-bulk-len"):
            change()
    put(shared, 3)
    assert read(shared) == 3
    shared.close()


def _block(shared, n):
    with shared.locked() as view:
        view["n"] = n


def test_large_values_go_and_come(url, kind):
    import numpy as np

    shared = opened(kind, url)
    array = np.arange(3_000_000)
    put(shared, {"array": array, "text": "y" * 2_000_000})
    found = in_child(lambda: (read(shared)["array"].sum(), len(read(shared)["text"])))
    assert found == (array.sum(), 2_000_000)
    with shared.locked() as view:
        view["n"]["array"][1] = 77
    assert read(shared)["array"][1] == 77
    read(shared)["array"][2] = 5  # One's own.
    assert read(shared)["array"][2] == 2


@pytest.mark.parametrize("option", ["decode_responses=true", "protocol=3", "protocol=2"])
def test_what_a_url_says_of_replies_changes_nothing(server, kind, option):
    shared = opened(kind, f"{server.url}/jobs?{option}")
    add(shared)
    put(shared, b"\xff\xfe")
    assert read(shared) == b"\xff\xfe"
    assert shared.wait(timeout=0.01) is False


def test_too_many_clients_are_told_and_leave(start, kind):
    server = start("--maxclients", "1")
    with server_client(server), pytest.raises(MmapShareError, match="max number of clients"):
        opened(kind, server.url + "/jobs")
    assert read(opened(kind, server.url + "/jobs")) == 0


@pytest.mark.parametrize(
    ("last", "error"), [(b"-ERR no more\r\n", "no more"), (b":1\r\n", "Broken"), (b"", "Broken")]
)
def test_a_server_that_takes_no_more_is_heard_out(last, error):
    ours, theirs = socket.socketpair()
    theirs.sendall(b":7\r\n" + last)
    conn = inside.Connection(ours, [], 5.0)
    conn.greeted([])
    assert conn.client_id == b"7"
    assert b"ID" in theirs.recv(1000)
    theirs.close()
    with pytest.raises(Exception, match=error):
        conn.send(b"*1\r\n$4\r\nPING\r\n")
    conn.close()


def server_client(server):
    sock = socket.create_connection(("127.0.0.1", server.port))
    sock.sendall(b"PING\r\n")
    assert sock.recv(100) == b"+PONG\r\n"
    return sock


def test_who_may_not_subscribe_or_wait_in_line_is_told_or_asks_again(start, kind):
    from support import Child

    server = start()
    rights = ("~*", "&*", "+@all", "-subscribe", "-blpop")
    server.command("ACL", "SETUSER", "ann", "on", ">pw", *rights)
    shared = opened(kind, server.url.replace("//", "//ann:pw@") + "/jobs")
    with pytest.raises(StoreRefusedError, match="ACL"):
        shared.wait(timeout=1)

    def hold(child):
        with shared.locked():
            child.say()
            child.hear()

    holder = Child(hold)
    holder.hear()
    waiter = Child(lambda child: add(shared))
    while b"cmdstat_blpop" not in server.command("INFO", "commandstats"):
        pass
    holder.say()
    holder.result()
    waiter.result()
    assert read(shared) == 1


def test_who_may_not_ask_for_its_own_id_does_without(start, kind):
    """Nobody can see by its connection whether it lives, nor end one that was left in mid-call."""
    server = start()
    server.command("ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all", "-client|id")
    shared = opened(kind, server.url.replace("//", "//ann:pw@") + "/jobs")
    add(shared)
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    add(shared)
    assert read(shared) == 2


def test_nobody_new_gets_in_where_there_are_too_many_clients(start, kind):
    server = start()
    shared = opened(kind, server.url + "/jobs")
    add(shared)
    server.command("CONFIG", "SET", "maxclients", "1")
    assert read(shared) == 1
    with pytest.raises(StoreRefusedError, match="max number of clients"):
        shared.wait(timeout=1)


def test_scripts_that_the_server_forgot_are_sent_again(url, kind, server):
    shared = opened(kind, url)
    add(shared)
    server.command("SCRIPT", "FLUSH")
    add(shared)
    server.command("SCRIPT", "FLUSH")
    put(shared, 5)
    assert read(shared) == 5


def test_another_clients_long_script_is_waited_for(start, kind):
    server = start("--busy-reply-threshold", "50")
    shared = opened(kind, server.url + "/jobs")
    code = "local t = redis.call('TIME'); repeat local n = redis.call('TIME') until n[1] > t[1]"
    thread = threading.Thread(target=server.command, args=("EVAL", code, "0"))
    thread.start()
    time.sleep(0.02)
    add(shared)
    thread.join()
    assert read(shared) == 1


def test_who_comes_while_another_clients_script_runs_waits_for_its_end(start, kind):
    server = start("--busy-reply-threshold", "1")
    script = threading.Thread(target=server.command, args=("EVAL", "while true do end", 0))
    script.start()
    while not server.command("PING").startswith(b"-BUSY"):
        pass
    with Proxy(server.port) as proxy:

        def end():
            while not proxy.said[1]:  # It was told so.
                time.sleep(0.001)
            server.command("SCRIPT", "KILL")

        ender = threading.Thread(target=end)
        ender.start()
        shared = opened(kind, proxy.url + "/jobs")
        ender.join()
        script.join()
        add(shared)
        assert read(shared) == 1
        shared.close()


def test_replicas_that_must_have_a_commit_are_waited_for(start, kind):
    primary, replica = start(), start()
    opened(kind, primary.url + "/jobs").close()
    shared = opened(kind, primary.url + "/jobs?replicas=1&replicas_timeout=1")
    with pytest.raises(DurabilityError, match="it is committed, but 0 of 1 replicas"):
        add(shared)
    assert read(shared) == 1
    replica.command("REPLICAOF", "127.0.0.1", primary.port)
    end = time.monotonic() + 20
    while primary.command("WAIT", 1, 100) != b":1" and time.monotonic() < end:
        pass
    add(shared)
    put(shared, 9)
    assert read(shared) == 9


# --- Signals, and what is closed -------------------------------------------------------------


def test_an_alarm_in_mid_call_is_raised_and_nothing_is_left_behind(start, kind):
    server = start()
    shared = opened(kind, server.url + "/jobs")

    def ring(*_):
        raise TimeoutError("the alarm")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for act in (read, add, lambda one: put(one, 4)):
            server.pause()
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(TimeoutError, match="the alarm"):
                act(shared)
            server.resume()
            with shared.locked(timeout=10) as view:
                view["n"] = 0
    finally:
        signal.signal(signal.SIGALRM, before)
    assert read(shared) == 0


def test_what_is_closed_is_closed(url, kind, server):
    shared = opened(kind, url)
    store = inside.store_of(shared)
    clients = server.command("CLIENT", "LIST").count(b"id=")
    shared.close()
    end = time.monotonic() + 10
    while server.command("CLIENT", "LIST").count(b"id=") >= clients and time.monotonic() < end:
        pass
    assert server.command("CLIENT", "LIST").count(b"id=") == clients - 1
    with pytest.raises(ClosedError):
        read(shared)
    with pytest.raises((ClosedError, AttributeError, TypeError)):  # By who has it in hand.
        store.version


def test_several_shares_of_one_server_are_locked_together(server, url):
    a, b = Share.open(url, 10), SharedDict.open(server.url + "/b", {"x": 0})
    with locked(a, b) as (from_, to):
        from_.value -= 3
        to["x"] += 3
    assert (a.get(), b["x"]) == (7, 3)
    with pytest.raises(ZeroDivisionError), locked(a, b) as (from_, to):
        from_.value -= 3
        1 / 0
    assert (a.get(), b["x"]) == (7, 3)
