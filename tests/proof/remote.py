"""Faults between a share and its server: each change is made once, or not, or nobody knows.

Nobody knows: where `StoreUnreachableError` says so. All else that returns has happened, and what
raises has not.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import select
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from lean import Events
from subjects import SERVER
from support import Child, inside
from support.proxy import Proxy
from support.redis_server import Server

from mmapshare import (
    LeaseLostError,
    MmapShareError,
    Share,
    SharedDict,
    StoreUnreachableError,
    locked,
)

ACTS = ("block", "set", "both", "read", "wait", "lock", "together")
KINDS = {"share": "dict", "dict": "share"}
"""What is shared, and what is committed together with it."""


def _opened(kind: str, url: str, **options: Any) -> Any:
    if kind == "share":
        return Share.open(url, {"n": 0}, **options)
    return SharedDict.open(url, {"n": 0}, **options)


def _read(shared: Any) -> int:
    found: int = shared.get()["n"] if isinstance(shared, Share) else shared["n"]
    return found


def _act(shared: Any, other: Any, name: str) -> int:
    """Do it; by how much it has raised the number. `together` does the same to another, too."""
    if name == "together":
        before = _read(other)
        with locked(shared, other, timeout=10) as views:
            for view in views:
                view["n"] += 1
        assert _read(other) == before + 1, "half of what belongs together"
        return 1
    if name == "read":
        _read(shared)
    elif name == "wait":
        shared.wait(timeout=0.001)
    elif name == "set":
        before = _read(shared)
        if isinstance(shared, Share):
            shared.set({"n": before + 1})
        else:
            shared["n"] = before + 1
        return 1
    elif name == "lock":
        shared.lock(timeout=10)
        try:
            return _act(shared, other, "set") if isinstance(shared, Share) else 0
        finally:
            shared.unlock()
    else:
        with shared.locked(timeout=10) as view:
            view["n"] += 1
            if name == "both":
                view["n"] += 1
        return 2 if name == "both" else 1
    return 0


def _url(events: Events) -> str:
    return f"{os.environ[SERVER]}/faults-{os.getpid()}-{events.current}"


# --- A connection that is cut ------------------------------------------------------------------


def cuts(events: Events, kind: str) -> Counter[str]:
    """Cut at every byte of a conversation, either way: all goes on as if it had not been."""
    met = Counter[str]()
    port = int(os.environ[SERVER].rpartition(":")[2].partition("/")[0])
    with Proxy(port) as proxy:
        url = f"{proxy.url}/cuts-{os.getpid()}-{kind}"
        shared, other = _opened(kind, url), _opened(KINDS[kind], url + "-other")
        expected = 0
        for name in ACTS:
            expected += _act(shared, other, name)
            before = list(proxy.said)
            expected += _act(shared, other, name)
            lengths = [after - said for after, said in zip(proxy.said, before, strict=True)]
            for number in events(range(2 * max(lengths))):
                way, at = number % 2, number // 2
                if at >= lengths[way]:
                    continue
                proxy.cut_at(way, at)
                expected += _act(shared, other, name)
                met[name] += 1
                found = _read(shared)
                assert found == expected, f"{name}, cut at {at} of way {way}: {found}, {expected}"
        for each in (shared, other):
            each.unlink()
            each.close()
    return met


# --- Answers that do not come --------------------------------------------------------------------


def _faulty(rng: random.Random, least: int, most: int) -> Iterator[str]:
    left = rng.randint(least, most)
    while True:
        left -= 1
        if left:
            yield ""
        else:
            left = rng.randint(least, most)
            yield rng.choice(["sent", "not sent", "half sent"])


@contextlib.contextmanager
def _failing(rng: random.Random, least: int, most: int) -> Iterator[None]:
    """Every few commands one is lost: before it is sent, on its way, or its answer."""
    faults = _faulty(rng, least, most)
    send, read = inside.connection_send, inside.connection_read
    lose: set[int] = set()

    def faulty_send(conn: Any, data: bytes) -> None:
        fault = next(faults)
        if fault == "half sent":
            conn.sock.sendall(data[: len(data) // 2])
        if fault.endswith("not sent") or fault == "half sent":
            conn.sock.shutdown(socket.SHUT_RDWR)
        elif fault:
            lose.add(id(conn))
        send(conn, data)

    def faulty_read(conn: Any) -> Any:
        reply = read(conn)
        if id(conn) in lose:
            lose.discard(id(conn))
            conn.sock.shutdown(socket.SHUT_RDWR)
            return read(conn)
        return reply

    inside.put("connection_send", faulty_send)
    inside.put("connection_read", faulty_read)
    try:
        yield
    finally:
        inside.put("connection_send", send)
        inside.put("connection_read", read)


def lost(events: Events, kind: str, count: int) -> Counter[str]:
    """Every N-th command is lost, or its answer: each act is done once all the same."""
    met = Counter[str]()
    for _ in events(range(count)):
        rng = events.rng()
        url = _url(events)
        shared, other = _opened(kind, url), _opened(KINDS[kind], url + "-other")
        expected = 0
        with _failing(rng, 4, rng.choice([4, 6, 12])):  # It takes three to begin anew.
            for _ in range(30):
                name = rng.choice(ACTS)
                expected += _act(shared, other, name)
                met[name] += 1
        assert _read(shared) == expected, (_read(shared), expected)
        for each in (shared, other):
            each.unlink()
            each.close()
    return met


# --- Holders that are killed, and that sleep too long ------------------------------------------


def crowd(events: Events, kind: str, count: int, lease: float) -> Counter[str]:
    """Processes add to one number while they are stopped and killed: what returned has counted."""
    met = Counter[str]()
    for _ in events(range(count)):
        rng = events.rng()
        shared = _opened(kind, _url(events), lease=lease)
        memory = mmap.mmap(-1, 4 * 8)
        added = memoryview(memory).cast("Q")
        children = [Child(_add_many, shared, added, place) for place in range(4)]
        for child in children:
            child.hear()
        for child in children:
            child.say()
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            child = rng.choice(children)
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(rng.uniform(0, 2 * lease))
            os.kill(child.pid, signal.SIGCONT)
        killed = children.pop()
        killed.kill()
        killed.wait()
        for child in children:
            child.say()
            met["overtaken"] += child.result()
        begin = time.monotonic()
        with shared.locked(timeout=20) as view:
            found, done = view["n"], sum(added)
        assert time.monotonic() - begin < 10
        assert done <= found <= done + 1, f"{found}, and {done} returned"
        met["added"] += done
        added.release()
        shared.unlink()
        shared.close()
    return met


def _add_many(child: Child, shared: Any, added: Any, place: int) -> int:
    child.say()
    child.hear()
    overtaken = 0
    while not select.select([child.reads], [], [], 0)[0]:
        try:
            with shared.locked(timeout=20) as view:
                view["n"] += 1
        except LeaseLostError:
            overtaken += 1
        else:
            added[place] += 1
    return overtaken


# --- A server that is killed ----------------------------------------------------------------------


def restarts(events: Events, kind: str, count: int) -> Counter[str]:
    """The server is killed and started again, with a log of each command: nothing is made twice."""
    met = Counter[str]()
    for _ in events(range(count)):
        rng = events.rng()
        with Server("--appendonly", "yes", "--appendfsync", "always") as server:
            shared = _opened(kind, f"{server.url}/jobs?socket_timeout=0.15")
            done = unknown = 0
            for _ in range(12):
                server.kill()
                if rng.random() < 0.5:
                    server.start()
                for _ in range(5):
                    try:
                        done += _act(shared, shared, rng.choice(["block", "set"]))
                    except StoreUnreachableError:
                        unknown += 1
                        break
                if not server.pid:
                    server.start()
            found = _read(shared)
            assert done <= found <= done + unknown, (done, found, unknown)
            met.update(done=done, unknown=unknown)
            shared.close()
    return met


# --- What somebody else has written ---------------------------------------------------------------


def forged(events: Events, kind: str, count: int) -> Counter[str]:
    """Mutants of what is stored and signed: not one is loaded."""
    import redis

    met = Counter[str]()
    for _ in events(range(count // 1000)):
        rng = events.rng()
        url = _url(events)
        shared = _opened(kind, url, secret="secret")
        name = f"mmapshare:{{{url.rpartition('/')[2]}}}"
        key, field = (name, b"f") if kind == "share" else (f"{name}:values", b"sn")
        with redis.Redis.from_url(os.environ[SERVER]) as client:
            stored = client.hget(key, field)
            assert stored is not None
            for _ in range(1000):
                blob = bytearray(stored)
                for _ in range(rng.randint(1, 4)):
                    at = rng.randrange(len(blob) + 1)
                    blob[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
                client.hset(key, field, bytes(blob))
                inside.forget_seen(inside.store_of(shared))
                try:
                    _read(shared)
                except MmapShareError:
                    met["refused"] += 1
                else:
                    assert bytes(blob) == stored, "foreign bytes were loaded"
                    met["loaded"] += 1
        shared.unlink()
        shared.close()
    return met
