"""What goes wrong with a server, and what is said of it; the share works again when that does."""

import threading
import time

import pytest
from support import Child, inside
from support.hosts import until_ended
from support.redis_server import Server
from support.remote import add, opened, put, read

from mmapshare import (
    StoreLostError,
    StoreUnreachableError,
)

ACTS = {
    "read": read,
    "block": add,
    "set": lambda shared: put(shared, 7),
    "version": lambda shared: shared.version,
    "lock": lambda shared: shared.lock(),
    "wait": lambda shared: shared.wait(timeout=5),
    "info": lambda shared: shared.info(),
}


# --- A server that is gone -------------------------------------------------------------------


@pytest.mark.parametrize("act", ACTS)
def test_a_stopped_server_is_told_in_two_seconds_and_the_share_works_again(start, kind, act):
    server = start("--appendonly", "yes", "--appendfsync", "always")
    shared = opened(kind, server.url + "/jobs")
    add(shared)
    server.kill()
    began = time.monotonic()
    with pytest.raises(StoreUnreachableError, match="Whether the last change has arrived is unkno"):
        ACTS[act](shared)
    assert time.monotonic() - began < 4  # Two seconds, and what a busy machine adds.
    assert shared.closed is False
    server.start()
    assert read(shared) == 1
    add(shared)
    assert read(shared) == 2
    shared.close()


def test_a_server_that_is_gone_is_told_to_who_has_no_connection_left(start, kind):
    server = start("--appendonly", "yes", "--appendfsync", "always")
    shared = opened(kind, server.socket_url + "/jobs?socket_timeout=0.2")
    server.kill()
    for act in (lambda: put(shared, 1), shared.lock):
        with pytest.raises(StoreUnreachableError):
            act()
    server.start()
    add(shared)
    assert read(shared) == 1
    shared.close()


def test_a_server_that_does_not_answer_is_told_in_two_seconds(start, kind):
    server = start()
    shared = opened(kind, server.url + "/jobs")
    server.pause()
    began = time.monotonic()
    with pytest.raises(StoreUnreachableError, match="timed out"):
        read(shared)
    assert 1.5 < time.monotonic() - began < 3
    server.resume()
    assert read(shared) == 0


def test_a_commit_that_is_sent_into_a_pause_is_made_once_or_never(start, kind):
    """The server wakes up with a commit in its ears: it is done before what comes then."""
    server = start()
    shared = opened(kind, server.url + "/jobs?socket_timeout=0.2")
    with pytest.raises(StoreUnreachableError), shared.locked() as view:
        view["n"] += 1
        server.pause()
    server.resume()
    assert read(shared) in {0, 1}
    before = read(shared)
    with shared.locked(timeout=10) as view:  # No ghost of that block has the lock.
        view["n"] += 10
    assert read(shared) == before + 10
    server.pause()
    threading.Timer(0.3, server.resume).start()
    add(shared)  # In time: it is sent again, and made once.
    assert read(shared) == before + 11


def test_a_short_pause_is_waited_out(start, kind):
    server = start()
    shared = opened(kind, server.url + "/jobs")
    for act in (read, add, lambda one: put(one, 5), lambda one: one.version):
        server.pause()
        threading.Timer(1.2, server.resume).start()
        act(shared)
    assert read(shared) == 5


def test_nobody_there_at_all(kind):
    with pytest.raises(StoreUnreachableError, match="refused"):
        opened(kind, "redis://127.0.0.1:1/0/jobs")


def test_what_is_no_redis_is_said(kind):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            for _ in range(20):
                try:
                    conn, _ = listener.accept()
                except OSError:
                    return
                with conn:
                    conn.recv(100)
                    conn.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(StoreUnreachableError, match="what answers is no Redis"):
            opened(kind, f"redis://127.0.0.1:{listener.getsockname()[1]}/0/jobs")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_many_connections_that_are_dead_are_one_failure(start, kind):
    server = start()
    shared = opened(kind, server.url + "/jobs")
    wire = inside.store_of(shared).wire
    for conn in [wire.take() for _ in range(12)]:  # As so many threads at once.
        wire.give_back(conn)
    assert server.command("CLIENT", "LIST").count(b"id=") > 12
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    began = time.monotonic()
    assert read(shared) == 0
    assert time.monotonic() - began < 0.5


# --- A server that has lost something ----------------------------------------------------------


@pytest.mark.parametrize("act", ["read", "block", "set", "version", "lock", "wait", "info"])
def test_after_a_restart_without_data_nothing_begins_anew_under_an_old_handle(start, kind, act):
    server = start()
    shared = opened(kind, server.url + "/jobs")
    server.kill()
    server.start()
    with pytest.raises(StoreLostError, match="unlinked, flushed or evicted"):
        ACTS[act](shared)
    assert server.command("DBSIZE") == b":0"
    shared.close()
    assert read(opened(kind, server.url + "/jobs")) == 0


@pytest.mark.parametrize("act", ["read", "block", "set", "version", "lock", "wait"])
def test_another_share_of_that_name_is_not_taken_for_it(url, kind, act, server):
    shared = opened(kind, url)

    def another(child):
        server.command("FLUSHALL")
        inside.open_here.clear()
        other = opened(kind, url)
        for _ in range(5):
            add(other)
        return other.version

    assert Child(another).result() == 6
    with pytest.raises(StoreLostError):
        ACTS[act](shared)


def test_a_share_that_is_lost_in_mid_block_is_told_at_its_end(url, kind, server):
    shared = opened(kind, url)
    with pytest.raises(StoreLostError), shared.locked() as view:
        view["n"] += 1
        server.command("FLUSHALL")
    assert server.command("DBSIZE") == b":0"


@pytest.mark.parametrize("act", ["read", "block", "version", "set"])
def test_an_older_state_is_told_once_and_then_it_is_what_there_is(start, kind, act):
    """A failover to a replica that lagged, or a restart from yesterday's dump."""
    server = start("--save", "3600 1")
    shared = opened(kind, server.url + "/jobs")
    for _ in range(3):
        add(shared)
    server.command("SAVE")
    for _ in range(4):
        add(shared)
    assert read(shared) == 7
    server.kill()
    server.start()
    with pytest.raises(StoreLostError, match="went back from version 8 to [45]"):
        ACTS[act](shared)
    with shared.locked() as view:
        assert view["n"] == (7 if act == "set" else 3)
        view["n"] = 50
    assert read(shared) == 50
    shared.close()


def test_a_replica_that_was_promoted_goes_on(start, kind):
    primary, replica = start(), start()
    shared = opened(kind, primary.url + "/jobs")
    replica.command("REPLICAOF", "127.0.0.1", primary.port)
    add(shared)
    added, end = b"%d" % shared.version, time.monotonic() + 20
    # WAIT would wait only for what its own connection has written.
    while replica.command("HGET", "mmapshare:{jobs}", "v") != added:
        assert time.monotonic() < end
    # Who has its address goes there from now on.
    primary.kill()
    replica.command("REPLICAOF", "NO", "ONE")
    while replica.command("CONFIG", "SET", "port", primary.port) != b"+OK":
        time.sleep(0.05)  # What was the primary's is not free at once.
    replica.port = primary.port
    add(shared)
    assert read(shared) == 2
    shared.close()


# --- The tests' own --------------------------------------------------------------------------


def test_a_server_ends_with_the_process_that_started_it():
    """Those of test workers that were killed went on for good."""

    def begin(child):
        with Server() as server:
            child.say(server.pid)
            child.hear()

    starter = Child(begin)
    with until_ended([starter.hear()]):
        starter.kill()
