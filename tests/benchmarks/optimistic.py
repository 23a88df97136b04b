"""Work without the lock, committed if nothing came between: `transact`, `update(optimistic=True)`.

Beside the same work under the lock, in `locked()`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from statistics import median, quantiles
from time import perf_counter, sleep, thread_time
from typing import Any

from mmapshare import Share, SharedDict
from tests.benchmarks.forking import Line, forked, on_core
from tests.benchmarks.table import Row, duration

CHILDREN = 4
SHORT_US, LONG_US = 1, 5000
COUNTS = {SHORT_US: 600, 100: 200, LONG_US: 16}
"""Microseconds of work of each addition, and how often each child adds in one round."""
LEAST = 1.7
SLICE_S = 0.3
"""How long one round of blocks beside updates takes."""
P99_MOST = 0.1


@cache
def _loops(work_us: int) -> int:
    """How far `_work` must count to take about so much of a core."""
    tries, took = 100_000, []
    for _ in range(50):
        begin = thread_time()
        _work(tries)
        took.append(thread_time() - begin)
    return round(tries * work_us / median(took) / 1e6)


def _work(loops: int) -> int:
    return sum(range(loops))


# --- Throughput --------------------------------------------------------------------------------


def throughput(rounds: int) -> list[Row]:
    """Children that add 1 after some work, each to its own key, or all to the same one."""
    own = [f"key-{number}" for number in range(CHILDREN)]
    whose = {"each to its own key": own, "all to one key": own[:1] * CHILDREN}
    return [
        _throughput(work_us, what, keys, rounds)
        for work_us in COUNTS
        for what, keys in whose.items()
    ]


def _throughput(work_us: int, what: str, keys: Sequence[str], rounds: int) -> Row:
    loops, count = _loops(work_us), COUNTS[work_us]
    is_asked = work_us == LONG_US and keys[0] != keys[1]
    d = SharedDict(dict.fromkeys(keys, 0))

    def add(view: Any, key: str) -> None:
        n = view[key]
        _work(loops)
        view[key] = n + 1

    def add_locked(key: str) -> None:
        with d.locked() as view:
            add(view, key)

    ways: dict[str, Callable[[str], object]] = {
        "transact": lambda key: d.transact(add, key),
        "locked": add_locked,
    }
    if is_asked:  # What the cores make possible at all.
        ways["alone"] = lambda key: _work(loops)
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, once in ways.items():
            rates[way].append(_rate(once, keys, count))
    off = sum(abs(d[key] - 2 * rounds * count * keys.count(key)) for key in d)
    sums = f"sums {f'off by {off}' if off else 'exact'}"
    ratio = _ratio(rates, "transact")
    ours, its = median(rates["transact"]), median(rates["locked"])
    title = f"`transact` of {_called(work_us)} of work, {CHILDREN} processes, {what}"
    figure = f"{ratio:.2f} x the rate of `locked()` ({ours:,.0f} : {its:,.0f} /s)"
    if not is_asked:
        return Row(title, f"{figure}, {sums}", ok=False if off else None)
    figure += f", the work without a share {_ratio(rates, 'alone'):.2f} x, {sums}"
    return Row(title, figure, f"at least {LEAST:g} x, sums exact", ratio >= LEAST and not off)


def _ratio(rates: dict[str, list[float]], way: str) -> float:
    return median(rate / its for rate, its in zip(rates[way], rates["locked"], strict=True))


def _called(work_us: int) -> str:
    return f"{work_us} µs" if work_us < 1000 else f"{work_us // 1000} ms"


def _rate(once: Callable[[str], object], keys: Sequence[str], count: int) -> float:
    """How often a second, with one child for each of the keys, spread over the cores."""

    def run(key: str) -> Callable[[Line], None]:
        def job(line: Line) -> None:
            line.send("ready")
            line.receive()
            begin = perf_counter()  # The same clock in all processes.
            for _ in range(count):
                once(key)
            line.send([begin, perf_counter()])

        return job

    with ExitStack() as stack:
        lines = [stack.enter_context(forked(run(key), n)) for n, key in enumerate(keys)]
        for line in lines:
            line.receive()
        for line in lines:
            line.send("go")
        begun, ended = zip(*[line.receive() for line in lines], strict=True)
    return len(keys) * count / float(max(ended) - min(begun))


# --- Short blocks beside long updates ----------------------------------------------------------


def short_blocks(rounds: int) -> list[Row]:
    """How long short blocks take while another process does long updates, one after another."""
    return [_short_blocks("at once", 0.0, rounds), _short_blocks("after 1 ms", 1e-3, rounds)]


def _short_blocks(again: str, pause_s: float, rounds: int) -> Row:
    short, long = _loops(SHORT_US), _loops(LONG_US)
    share = Share({"short": 0, "long": 0})

    def add(value: Any) -> None:
        _work(long)
        value["long"] += 1

    def add_locked() -> None:
        with share.locked() as view:
            add(view)

    ways: dict[str, Callable[[], object]] = {
        "optimistic": lambda: share.update(add, optimistic=True),
        "locked": add_locked,
    }

    def update(line: Line) -> None:
        while True:
            once, number = ways[line.receive()], 0
            line.send("begun")
            while not line.has_news():
                once()
                number += 1
            line.receive()
            line.send(number)

    took: dict[str, list[float]] = {way: [] for way in ways}
    updates = dict.fromkeys(ways, 0)
    with on_core(0), forked(update, 1) as other:
        for _ in range(rounds):
            for way, times in took.items():
                other.send(way)
                other.receive()
                end = perf_counter() + SLICE_S
                while (begin := perf_counter()) < end:
                    with share.locked() as view:
                        _work(short)
                        view["short"] += 1
                    times.append(perf_counter() - begin)
                    if pause_s:
                        sleep(pause_s)
                other.send("stop")
                updates[way] += other.receive()
    off = abs(share.get()["short"] - sum(map(len, took.values())))
    off += abs(share.get()["long"] - sum(updates.values()))
    ours, its = (quantiles(took[way], n=100, method="inclusive")[-1] for way in ways)
    done, its_done = (updates[way] / rounds / SLICE_S for way in ways)
    title = (
        f"{_called(SHORT_US)} blocks, each {again}: 99th percentile beside "
        f"`update(optimistic=True)` of {_called(LONG_US)} without pause"
    )
    figure = (
        f"{ours / its:.3f} x beside `locked()` ({duration(ours)} : {duration(its)}, "
        f"{len(took['optimistic']):,} : {len(took['locked']):,} blocks, "
        f"{done:.0f} : {its_done:.0f} updates/s), sums {f'off by {off}' if off else 'exact'}"
    )
    if pause_s:
        return Row(title, figure, ok=False if off else None)
    asked = f"under {P99_MOST:g} x, sums exact"
    return Row(title, figure, asked, ours / its < P99_MOST and not off)
