"""Several processes that add 1 to the same number, beside one process that does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median
from time import perf_counter
from timeit import Timer

import attrs

from mmapshare import Share
from tests.benchmarks.forking import Line, forked
from tests.benchmarks.naive import NaiveShare
from tests.benchmarks.small_values import BLOCK, VALUE
from tests.benchmarks.table import Row

COUNT, WARM_UP = 8000, 100
"""How often each child adds 1, against the clock and before."""


@attrs.frozen
class Crowd:
    """So many children at once, spread over the cores or left to the scheduler."""

    size: int
    spread: bool

    def __str__(self) -> str:
        placed = "spread over the cores" if self.spread else "placed by the scheduler"
        return f"{self.size} forked children adding 1, {placed}"


ONE = Crowd(1, True)
# The scheduler may put them all on one core, where they hardly ever meet.
LEAST = {Crowd(2, True): 0.75, Crowd(2, False): 0.75, Crowd(4, True): 0.6, Crowd(4, False): 0.6}


def children(rounds: int) -> list[Row]:
    """Children by the number adding 1, and whether none of it was lost."""
    share, naive = Share(VALUE), NaiveShare(VALUE)
    ours, total = _rates(Timer(BLOCK, globals={"share": share}), rounds)
    off = share.get()["hits"] - total
    its, its_total = _rates(Timer(naive.add_one), rounds)
    its_off = naive.get()["hits"] - its_total
    naive.close()
    rows = []
    for crowd, least in LEAST.items():
        ok = _ratio(ours, crowd) >= least and off == 0
        asked = f"at least {least:g} x, sum exact"
        rows.append(Row(str(crowd), _figure(ours, crowd, off), asked, ok))
        if crowd.spread:
            figure = _figure(its, crowd, its_off)
            rows.append(Row("naive mmap + lockf + pickle: the same", figure))
    return rows


def _ratio(rates: dict[Crowd, list[float]], crowd: Crowd) -> float:
    return median(many / one for many, one in zip(rates[crowd], rates[ONE], strict=True))


def _figure(rates: dict[Crowd, list[float]], crowd: Crowd, off: int) -> str:
    many, one = median(rates[crowd]) / 1000, median(rates[ONE]) / 1000
    return (
        f"{_ratio(rates, crowd):.2f} x the rate of one child ({many:.0f} : {one:.0f} k/s), "
        f"sum {f'off by {off}' if off else 'exact'}"
    )


def _rates(timer: Timer, rounds: int) -> tuple[dict[Crowd, list[float]], int]:
    """Additions a second, all children together, a figure a round; and the sum to expect."""
    rates: dict[Crowd, list[float]] = {crowd: [] for crowd in (ONE, *LEAST)}
    total = VALUE["hits"]
    for _ in range(rounds):
        for crowd, found in rates.items():
            found.append(rate_together([adder(timer)] * crowd.size, crowd.spread))
            total += crowd.size * (COUNT + WARM_UP)
    return rates, total


def adder(timer: Timer) -> Callable[[Line], None]:
    """What a child does: add 1 by a statement, and say when it began and ended."""

    def add(line: Line) -> None:
        timer.timeit(WARM_UP)
        line.send("ready")
        line.receive()
        start = perf_counter()  # The same clock in all processes.
        timer.timeit(COUNT)
        line.send((start, perf_counter()))

    return add


def rate_together(adders: Sequence[Callable[[Line], None]], spread: bool) -> float:
    """Let children start together; returns the additions a second of all of them."""
    with ExitStack() as stack:
        lines = [
            stack.enter_context(forked(job, number if spread else None))
            for number, job in enumerate(adders)
        ]
        for line in lines:
            line.receive()
        for line in lines:
            line.send("go")
        spans: list[tuple[float, float]] = [line.receive() for line in lines]
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    return len(spans) * COUNT / (last - first)
