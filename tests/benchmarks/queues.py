"""A `SharedDict` as a queue: put at one end, take at the other, or at both; many keys or few."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from time import perf_counter
from timeit import Timer
from typing import Any

from mmapshare import SharedDict
from tests.benchmarks.forking import Line, forked
from tests.benchmarks.table import Row, ratio_row
from tests.benchmarks.timing import take_turns

FEW, MANY = 1_000, 1_000_000
FLAT_MOST = 2.0
"""What is flat may still miss the caches: a dict of a million keys is 100 MB."""
PAIRS, COUNT = 4, 500
"""Producers, and as many consumers; items of each."""

ENDS = {
    "`popitem()`, then put again": "key, value = d.popitem(); d[key] = value",
    "`next(iter(d))`": "next(iter(d))",
    "`next(reversed(d))`": "next(reversed(d))",
    "block: take the first key, put a new one": (
        "with d.locked() as view: key = next(iter(view)); view[key + size] = view.pop(key)"
    ),
    "`wait(predicate)` that looks at one key": "d.wait(has_last, timeout=0)",
}


def ends(rounds: int) -> list[Row]:
    """What looks at the ends of many keys, beside the same of few."""
    dicts = {size: SharedDict(dict.fromkeys(range(size), 0)) for size in (FEW, MANY)}
    rows = []
    for what, statement in ENDS.items():
        timers = {
            f"{size:,} keys": Timer(
                statement, globals={"d": d, "size": size, "has_last": lambda seen: -1 in seen}
            )
            for size, d in dicts.items()
        }
        times = take_turns(timers, rounds)
        title = f"`SharedDict` of {MANY:,} keys: {what}"
        rows.append(ratio_row(title, times, f"{MANY:,} keys", f"{FEW:,} keys", FLAT_MOST))
    return rows


def queue(rounds: int) -> list[Row]:
    """Items through a dict, and through `multiprocessing.Queue`, among several processes."""
    rates, wrong = [], 0
    for _ in range(rounds):
        d: SharedDict[str, int] = SharedDict()
        ours, our_sum = _rate(lambda key, n: d.update({key: n}), lambda: _take(d))
        theirs: Any = multiprocessing.get_context("fork").Queue()
        its, its_sum = _rate(lambda _, n: theirs.put(n), theirs.get)
        theirs.close()
        rates.append((ours, its))
        wrong += {our_sum, its_sum} != {PAIRS * sum(range(COUNT))} or len(d)
    ratio = median(ours / its for ours, its in rates)
    ours, its = (median(each) / 1000 for each in zip(*rates, strict=True))
    title = f"`SharedDict` as a queue: {PAIRS} producers, {PAIRS} consumers, an item at a time"
    sums = f"{wrong} rounds wrong" if wrong else "each item once"
    figure = f"{ratio:.2f} x `multiprocessing.Queue`'s rate ({ours:.1f} : {its:.1f} k/s), {sums}"
    return [Row(title, figure, "each item once", not wrong)]


def _take(d: SharedDict[str, int]) -> int:
    """The oldest item, as soon as there is one."""
    while True:
        with d.locked() as view:
            if view:
                return view.pop(next(iter(view)))
        d.wait(bool, timeout=1)


def _rate(put: Callable[[str, int], object], take: Callable[[], int]) -> tuple[float, int]:
    """Items a second through all of them together, and the sum of what was taken."""

    def produce(line: Line) -> None:
        line.send("ready")
        name = line.receive()
        start = perf_counter()
        for n in range(COUNT):
            put(f"{name}-{n}", n)
        line.send((start, perf_counter(), 0))
        line.receive()  # Others' feeder threads are still at work.

    def consume(line: Line) -> None:
        line.send("ready")
        line.receive()
        start = perf_counter()
        total = sum(take() for _ in range(COUNT))
        line.send((start, perf_counter(), total))

    with ExitStack() as stack:
        jobs = [consume] * PAIRS + [produce] * PAIRS
        lines = [stack.enter_context(forked(job, core)) for core, job in enumerate(jobs)]
        for line in lines:
            line.receive()
        for number, line in enumerate(lines):
            line.send(number)
        done = [line.receive() for line in lines]
    spent = max(end for _, end, _ in done) - min(start for start, _, _ in done)
    return PAIRS * COUNT / spent, sum(total for _, _, total in done)
