"""Shares on a Redis of this machine, beside redis-py doing the same by hand.

The server is a real one, started for this. What is compared takes turns, over TCP (loopback) and
over a unix socket; pottery, where it is installed, is the dict that others offer there.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from statistics import median
from time import perf_counter, sleep
from timeit import Timer
from typing import Any

from mmapshare import Share, SharedDict
from tests.benchmarks.forking import Line, forked
from tests.benchmarks.small_values import BLOCK, VALUE
from tests.benchmarks.table import Row, duration, ratio_row
from tests.benchmarks.timing import Times, take_turns
from tests.support.redis_server import Server, why_not

GET_MOST, BLOCK_MOST, WAKE_MOST, FLAT_MOST = 1.0, 2.4, 1.5, 1.2
LOCK_LEAST, WATCH_LEAST, FAIR_LEAST, LONGEST_MOST_S = 1.5, 3.0, 0.6, 0.05
SECONDS = 1.0
LOOP_S = 10e-3
KEYS = 10_000


@contextmanager
def _server() -> Iterator[Server]:
    with Server() as server:
        yield server


def _nothing(what: str) -> list[Row]:
    return [Row(what, why_not())]


class ByHand:
    """A value on the server, and what is done with it through redis-py alone."""

    def __init__(self, url: str, **options: Any) -> None:
        import redis

        path = url.removeprefix("unix://").removesuffix("/0")
        self.client = (
            redis.Redis(unix_socket_path=path, **options)
            if url.startswith("unix:")
            else redis.Redis.from_url(url, **options)
        )
        self._error = redis.WatchError

    def get(self) -> Any:
        return pickle.loads(self.client.get("by-hand"))  # type: ignore[arg-type]

    def set(self, value: Any) -> None:
        self.client.set("by-hand", pickle.dumps(value, 5))

    def watch(self) -> int:
        """Add 1 by WATCH and MULTI; how often it was in vain."""
        tries = 0
        while True:
            with self.client.pipeline() as pipe:
                try:
                    pipe.watch("by-hand")
                    value = pickle.loads(pipe.get("by-hand"))  # type: ignore[arg-type]
                    value["hits"] += 1
                    pipe.multi()
                    pipe.set("by-hand", pickle.dumps(value, 5))
                    pipe.execute()
                    return tries
                except self._error:
                    tries += 1

    def lock(self) -> None:
        """Add 1 under redis-py's Lock."""
        with self.client.lock("by-hand-lock", timeout=30):
            value = self.get()
            value["hits"] += 1
            self.set(value)


def use(rounds: int) -> list[Row]:
    """Get, set and block, by one process."""
    if why_not():
        return _nothing("a share on a Redis")
    rows = []
    with _server() as server:
        for how, url in (("a unix socket", server.socket_url), ("TCP", server.url)):
            share, hand = Share.open(url + "/use", VALUE), ByHand(url)
            hand.set(VALUE)
            times = take_turns(
                {
                    "get": Timer(share.get),
                    "set": Timer(lambda share=share: share.set(VALUE)),
                    "block": Timer(BLOCK, globals={"share": share}),
                    "hand get": Timer(hand.get),
                    "hand set": Timer(lambda hand=hand: hand.set(VALUE)),
                    "hand watch": Timer(hand.watch),
                    "hand lock": Timer(hand.lock),
                },
                rounds,
                LOOP_S,
            )
            by_hand = "redis-py's GET + loads"
            rows += [
                ratio_row(f"`get` over {how}", times, "get", "hand get", GET_MOST, by_hand),
                ratio_row(f"`set` over {how}", times, "set", "hand set", None, "dumps + SET"),
                ratio_row(f"block over {how}", times, "block", "hand get", BLOCK_MOST, by_hand),
                ratio_row(f"block over {how}", times, "block", "hand watch", None, "WATCH, MULTI"),
                ratio_row(
                    f"block over {how}", times, "block", "hand lock", None, "redis-py's Lock"
                ),
            ]
            share.close()
    return rows


def children(rounds: int) -> list[Row]:
    """Processes that add 1 to one number, for a second: how many, how fair, how long one waits."""
    if why_not():
        return _nothing("processes that share a number on a Redis")
    rows = []
    with _server() as server:
        for size in (2, 4):
            found: dict[str, list[tuple[float, float, float]]] = {
                "ours": [],
                "lock": [],
                "watch": [],
            }
            exact = True
            for number in range(max(2, rounds // 50)):
                for what, runs in found.items():
                    rate, fair, longest, right = _crowd(server.socket_url, what, size, number)
                    runs.append((rate, fair, longest))
                    exact = exact and right
            ours, lock, watch = (
                [median(run[i] for run in found[what]) for i in range(3)]
                for what in ("ours", "lock", "watch")
            )
            over_lock, over_watch = ours[0] / lock[0], ours[0] / watch[0]
            rows += [
                Row(
                    f"{size} processes, blocks on one share of a Redis",
                    f"{over_lock:.2f} x redis-py's Lock, {over_watch:.2f} x WATCH/MULTI "
                    f"({ours[0]:,.0f} : {lock[0]:,.0f} : {watch[0]:,.0f} a second), "
                    f"{'exact' if exact else 'LOST SOME'}",
                    f"at least {LOCK_LEAST:g} x and {WATCH_LEAST:g} x",
                    exact and over_lock >= LOCK_LEAST and over_watch >= WATCH_LEAST,
                ),
                Row(
                    "the same: least to most",
                    f"{ours[1]:.2f} : {lock[1]:.2f} : {watch[1]:.2f}",
                    f"at least {FAIR_LEAST:g}",
                    ours[1] >= FAIR_LEAST,
                ),
                Row(
                    "the same: longest block",
                    " : ".join(duration(each[2]) for each in (ours, lock, watch)),
                    f"under {duration(LONGEST_MOST_S)}",
                    ours[2] < LONGEST_MOST_S,
                ),
            ]
    return rows


def _crowd(url: str, what: str, size: int, number: int) -> tuple[float, float, float, bool]:
    """Blocks a second, the least's part of the most, the longest one, whether all counted."""
    name = f"{url}/{what}-{size}-{number}"
    Share.open(name, VALUE).close()
    ByHand(url).set(VALUE)

    def work(line: Line) -> None:
        act = _act(what, name, url)
        act()
        line.send()
        line.receive()
        count, longest, end = 0, 0.0, perf_counter() + SECONDS
        while (began := perf_counter()) < end:
            act()
            count += 1
            longest = max(longest, perf_counter() - began)
        line.send([count, longest])
        line.receive()

    with ExitStack() as stack:
        lines = [stack.enter_context(forked(work)) for _ in range(size)]
        for line in lines:
            line.receive()
        for line in lines:
            line.send()
        told = [line.receive() for line in lines]
        for line in lines:
            line.send()
    counts = [count for count, _ in told]
    right = _total(what, name, url) == sum(counts) + size
    rate = sum(counts) / SECONDS
    return rate, min(counts) / max(counts), max(longest for _, longest in told), right


def _act(what: str, name: str, url: str) -> Callable[[], object]:
    if what == "ours":
        share = Share.open(name)

        def block() -> None:
            with share.locked() as view:
                view["hits"] += 1

        return block
    hand = ByHand(url)
    return hand.lock if what == "lock" else hand.watch


def _total(what: str, name: str, url: str) -> int:
    value = Share.open(name).get() if what == "ours" else ByHand(url).get()
    return int(value["hits"]) - VALUE["hits"]


def wait(rounds: int) -> list[Row]:
    """From a commit to who waits for it, beside a published message."""
    if why_not():
        return _nothing("waiting for a commit on a Redis")
    import redis

    times = Times()
    with _server() as server:
        share = Share.open(server.socket_url + "/wait", 0)
        path = server.socket_url.removeprefix("unix://").removesuffix("/0")
        client = redis.Redis(unix_socket_path=path)

        def answer(line: Line) -> None:
            with redis.Redis(unix_socket_path=path).pubsub() as ear:
                ear.subscribe("bare")
                ear.get_message(timeout=5)
                while (since := line.receive()) is not None:
                    line.send()
                    if since >= 0:
                        share.wait(since=since, timeout=10)
                    else:
                        while not ear.get_message(ignore_subscribe_messages=True, timeout=10):
                            pass
                    line.send(perf_counter())

        with forked(answer) as other:
            for n in range(1, rounds + 5):
                for what in ("ours", "bare"):
                    other.send(share.version if what == "ours" else -1)
                    other.receive()
                    sleep(3e-3)
                    began = perf_counter()
                    if what == "ours":
                        share.set(n)
                    else:
                        client.publish("bare", b"%d" % n)
                    took = other.receive() - began
                    if n > 4:
                        times.note(what, took)
            other.send(None)
    called = "a bare publish to a subscriber"
    return [ratio_row("`wait` on a Redis", times, "ours", "bare", WAKE_MOST, called)]


def dict_(rounds: int) -> list[Row]:
    """One key among ten and among ten thousand, beside a hash by hand, and pottery."""
    if why_not():
        return _nothing("a dict on a Redis")
    import redis

    with _server() as server:
        client = redis.Redis.from_url(server.url)  # pottery wants TCP.
        small = SharedDict.open(server.url + "/small", {n: n for n in range(10)})
        large = SharedDict.open(server.url + "/large", {n: n for n in range(KEYS)})
        client.hset("hash", mapping={str(n): pickle.dumps(n) for n in range(KEYS)})
        count = iter(range(1 << 60))
        timers = {
            "hand get": Timer(lambda: pickle.loads(client.hget("hash", "5"))),  # type: ignore
            "hand set": Timer(lambda: client.hset("hash", "5", pickle.dumps(next(count)))),
        }
        for name, shared in (("small", small), ("large", large)):
            timers |= {
                f"{name} get": Timer(lambda shared=shared: shared[5]),
                f"{name} set": Timer(lambda shared=shared: shared.__setitem__(5, next(count))),
                f"{name} block": Timer(
                    "with shared.locked() as view: view[5] += 1", globals={"shared": shared}
                ),
            }
        if find_spec("pottery"):
            import pottery

            theirs = pottery.RedisDict({str(n): n for n in range(100)}, redis=client, key="pottery")
            timers["pottery get"] = Timer(lambda: theirs["5"])
            timers["pottery set"] = Timer(lambda: theirs.__setitem__("5", next(count)))
        times = take_turns(timers, rounds, LOOP_S)
        rows = [
            ratio_row(f"{what} among 10 000 keys on a Redis", times, f"large {act}",
                      f"small {act}", FLAT_MOST, "among 10")
            for what, act in (("`d[k]`", "get"), ("`d[k] = v`", "set"), ("a block", "block"))
        ]  # fmt: skip
        rows += [
            ratio_row("`d[k]` on a Redis", times, "large get", "hand get", None, "HGET + loads"),
            ratio_row("`d[k] = v`", times, "large set", "hand set", None, "dumps + HSET"),
        ]
        if "pottery get" in timers:
            rows += [
                ratio_row("`d[k]`", times, "large get", "pottery get", None, "pottery's"),
                ratio_row("`d[k] = v`", times, "large set", "pottery set", None, "pottery's"),
            ]
        return rows
