"""The table's rows: what is done with a peer, in its own process, round by round.

Each is a generator: its first item says that all is set up, each further one is a round's result.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from time import perf_counter, sleep
from timeit import Timer
from typing import Any

import attrs

from tests.benchmarks.forking import on_core
from tests.benchmarks.peers.peer import ENTRY, PAIR, VALUE, Peer
from tests.benchmarks.peers.worker import Worker
from tests.benchmarks.timing import loop_length

Make = Callable[[], Peer]
Result = dict[str, Any]

LOOP_S = 3e-3
CROWD_S, CROWD_LEAST = 0.06, 20
"""How long each of several adds alone, and how often at least."""
BACK_S = 2.0
"""A lock that has not come back by then is said never to."""
WAITS_S = 0.5
"""A reader that has no answer by then waits for the holder."""
KILLS, KILLED_BYTES, KILLED_S = 10, 32 << 20, (0.005, 0.08)
ASLEEP_S, WAKES, WARM_UP = 2e-3, 10, 3


@attrs.frozen
class Row:
    """One row. ``by_floor``: its figures are ratios to the floor's in the same round.

    ``measure`` gets what makes the peer, and the part of the usual work that a round is to do.
    """

    title: str
    measure: Callable[[Make, float], Iterator[Result]]
    rounds: int
    by_floor: bool = True
    apart: bool = False
    """One peer after the other, each beside the floor, since memory is scarce."""


def _timed(func: Callable[[], object]) -> Iterator[Result]:
    timer = Timer(func)
    number = loop_length(timer, LOOP_S)
    yield {}
    while True:
        yield {"s": timer.timeit(number) / number}


def _get(make: Make, scale: float) -> Iterator[Result]:
    return _timed(_with_value(make).get)


def _set(make: Make, scale: float) -> Iterator[Result]:
    return _timed(partial(_with_value(make).set, dict(VALUE)))


def _block(make: Make, scale: float) -> Iterator[Result]:
    return _timed(_with_value(make).add_one)


def _with_value(make: Make) -> Peer:
    peer = make()
    peer.set(VALUE)
    return peer


def _keys(change: bool, number: int, make: Make, scale: float) -> Iterator[Result]:
    peer = make()
    peer.fill({f"key-{n}": dict(ENTRY) for n in range(number)})
    keys = cycle([f"key-{n}" for n in random.Random(1).choices(range(number), k=10_000)])
    act = peer.add_to_key if change else peer.get_key
    return _timed(lambda: act(next(keys)))


def _array(change: bool, size_bytes: int, make: Make, scale: float) -> Iterator[Result]:
    import numpy as np

    peer, array = make(), np.random.default_rng(1).random(size_bytes // 8)
    peer.fill_array(array)
    act = partial(peer.set_array, array) if change else peer.get_array
    for _ in range(3):
        act()  # All memory has been touched, by all alike.
    return _timed(act)


def _crowd(size: int, make: Make, scale: float) -> Iterator[Result]:
    peer = _with_value(make)
    number = max(CROWD_LEAST, round(scale * loop_length(Timer(peer.add_one), CROWD_S / 2)))
    workers = [Worker(peer, core) for core in range(size)]
    due = first = peer.hits()
    yield {}
    while True:
        for worker in workers:
            worker.ask("add", number)
        for worker in workers:
            worker.send("go")
        spans = [worker.receive() for worker in workers]
        took = max(end for _, end in spans) - min(start for start, _ in spans)
        due += size * number
        yield {"s": took / (size * number), "lost": due - peer.hits(), "of": due - first}


def _held(make: Make, scale: float) -> Iterator[Result]:
    peer = make()
    peer.fill(dict(PAIR))
    holder, reader = Worker(peer), Worker(peer)
    number = reader.ask("reads")
    yield {}
    while True:
        free = reader.ask("read", number)
        assert holder.ask("move", True) == "inside"
        reader.send("read", number)
        waits = not reader.answers_within(WAITS_S)
        holder.ask("leave")
        held = reader.receive()
        yield {"waits": True} if waits else {"s": held / free}


def _kill(make: Make, scale: float) -> Iterator[Result]:
    yield {}
    while True:
        peer = make()
        peer.fill(dict(PAIR))
        holder, late, reader = (Worker(peer) for _ in range(3))
        assert holder.ask("move", True) == "inside"
        begin = perf_counter()
        holder.kill()
        late.send("move", False)
        back = late.receive() - begin if late.answers_within(BACK_S) else None
        reader.send("pair")
        read = reader.receive() if reader.answers_within(BACK_S) else None
        for worker in (late, reader):
            worker.kill()
        yield {"s": back, "state": _state(None if read is None else read == sum(PAIR.values()))}
        if back is not None:
            peer.close()


def _state(is_whole: bool | None) -> str:
    return {True: "whole", False: "torn", None: "unreadable"}[is_whole]


def _kill_set(make: Make, scale: float) -> Iterator[Result]:
    import numpy as np

    count = KILLED_BYTES // 8
    peer, moments = make(), random.Random(1)
    peer.fill_array(np.zeros(count))
    reader, setter = Worker(peer), Worker(peer)
    yield {}
    torn, kill = 0, 0
    for kill in range(1, KILLS + 1):
        killed = Worker(peer)
        assert killed.ask("set-forever", count) == "setting"
        sleep(moments.uniform(*KILLED_S))
        killed.kill()
        reader.send("is-whole")
        if not reader.answers_within(BACK_S):
            yield {"kills": kill, "torn": torn, "stuck": "no read"}
            return
        torn += not reader.receive()
        setter.send("set-once", count)
        if not setter.answers_within(BACK_S):
            yield {"kills": kill, "torn": torn, "stuck": "no set"}
            return
        setter.receive()
    yield {"kills": kill, "torn": torn, "stuck": ""}


def _wake(make: Make, scale: float) -> Iterator[Result]:
    peer = _with_value(make)
    waiter = Worker(peer, 1)
    hits = WARM_UP
    yield {}
    with on_core(0):
        while True:
            hits += 1
            assert waiter.ask("next-hits") == "ready"
            sleep(ASLEEP_S)  # So that the other process is asleep by then.
            value = {**VALUE, "hits": hits % 256}
            begin = perf_counter()
            peer.announce(value)
            end, seen = waiter.receive()
            if seen != hits % 256:
                raise AssertionError(f"woken with {seen}, not {hits % 256}")
            yield {"s": end - begin}


ROWS = {
    "get": Row("get a small dict", _get, 60),
    "set": Row("set a small dict", _set, 60),
    "block": Row("block: add 1 to it", _block, 60),
    "contended-2": Row("block by 2 processes at once", partial(_crowd, 2), 7),
    "contended-4": Row("block by 4 processes at once", partial(_crowd, 4), 7),
    "read-10": Row("read one of 10 keys", partial(_keys, False, 10), 30),
    "read-1000": Row("read one of 1 000 keys", partial(_keys, False, 1_000), 30),
    "read-100000": Row("read one of 100 000 keys", partial(_keys, False, 100_000), 10),
    "change-10": Row("change one of 10 keys", partial(_keys, True, 10), 30),
    "change-1000": Row("change one of 1 000 keys", partial(_keys, True, 1_000), 30),
    "change-100000": Row("change one of 100 000 keys", partial(_keys, True, 100_000), 10),
    "array-set-1": Row("set a numpy array, 1 MiB", partial(_array, True, 1 << 20), 30),
    "array-get-1": Row("get a numpy array, 1 MiB", partial(_array, False, 1 << 20), 30),
    "array-set-256": Row(
        "set a numpy array, 256 MiB", partial(_array, True, 1 << 28), 5, apart=True
    ),
    "array-get-256": Row(
        "get a numpy array, 256 MiB", partial(_array, False, 1 << 28), 5, apart=True
    ),
    "wake": Row("set, until a waiting process has seen it", _wake, 60),
    "held": Row("read while another holds the lock", _held, 20, by_floor=False),
    "kill": Row("kill -9 within a block of two changes", _kill, 3, by_floor=False),
    "kill-set": Row(
        f"kill -9 within `set` of {KILLED_BYTES >> 20} MiB, {KILLS} times",
        _kill_set,
        1,
        by_floor=False,
        apart=True,
    ),
}
