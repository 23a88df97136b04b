"""A `SharedDict` in use by several processes without pause, beside LMDB: some that add; a reader
beside a writer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pickle import dumps, loads
from statistics import median
from time import perf_counter
from typing import Any

import attrs

from mmapshare import SharedDict
from tests.benchmarks import lmdb_dict
from tests.benchmarks.dicts import items
from tests.benchmarks.forking import Line, forked, on_core
from tests.benchmarks.table import Row

RATE_LEAST, FAIR_LEAST, WAIT_MOST_S = 1.2, 0.8, 30e-3
SIZES = 2, 4
SPELL_S, WARM_UP = 0.4, 200
"""For how long all add, against the clock, and how often each one before."""
READ_S = 20e-3
"""How long one round of reading beside a writer takes."""
CHANGES_BETWEEN_LOOKS = 64

Add = Callable[[], None]


# --- Several that add --------------------------------------------------------------------------


def children(rounds: int) -> list[Row]:
    """Children that add 1 at once, each to its own key, and all to the same one."""
    rows = []
    for size in SIZES:
        own = list(items(size))
        rows += _children(f"{size} forked children adding 1, each to its own key", own, rounds)
        one = own[:1] * size
        rows += _children(f"{size} forked children adding 1, all to one key", one, rounds)
    return rows


@attrs.frozen
class Spell:
    """What children did together, who all worked for as long."""

    counts: list[int]
    longest_s: float

    @property
    def rate(self) -> float:
        return sum(self.counts) / SPELL_S

    @property
    def fair(self) -> float:
        return min(self.counts) / max(self.counts)


def _children(what: str, keys: list[str], rounds: int) -> list[Row]:
    title = f"`SharedDict`: {what}, spread over the cores"
    if not lmdb_dict.INSTALLED:
        return lmdb_dict.not_measured(title)
    first, ours, its = items(len(keys)), [], []
    d, added = SharedDict(first), Counter[str]()
    with lmdb_dict.stored(first) as folder:
        for _ in range(rounds):
            ours.append(_together([_ours(d, key) for key in keys]))
            its.append(_together([_its(folder, key) for key in keys]))
            for key, count in zip(keys, ours[-1].counts, strict=True):
                added[key] += count + WARM_UP
    off = sum(abs(d[key]["hits"] - first[key]["hits"] - added[key]) for key in first)
    ratio = median(a.rate / b.rate for a, b in zip(ours, its, strict=True))
    sums = f"off by {off}" if off else "exact"
    fair, longest_s = (median(of(spell) for spell in ours) for of in _MEASURES)
    ok = ratio >= RATE_LEAST and fair >= FAIR_LEAST and longest_s <= WAIT_MOST_S and not off
    figure = f"{ratio:.2f} x LMDB's rate; {_told(ours)}, sums {sums}; LMDB {_told(its)}"
    asked = f"{RATE_LEAST:g} x, {FAIR_LEAST:g}, {WAIT_MOST_S * 1e3:g} ms, sums exact"
    return [Row(title, figure, asked, ok)]


_MEASURES: tuple[Callable[[Spell], float], ...] = (lambda s: s.fair, lambda s: s.longest_s)


def _told(spells: Sequence[Spell]) -> str:
    rate = median(spell.rate for spell in spells) / 1000
    fair, longest_s = (median(of(spell) for spell in spells) for of in _MEASURES)
    return f"{rate:.0f} k/s, least to most {fair:.2f}, longest wait {longest_s * 1e3:.1f} ms"


@contextmanager
def _ours(d: SharedDict[str, Any], key: str) -> Iterator[Add]:
    def add() -> None:
        with d.locked() as view:
            view[key]["hits"] += 1

    yield add


@contextmanager
def _its(folder: str, key: str) -> Iterator[Add]:
    name = key.encode()
    with lmdb_dict.opened(folder) as env:

        def add() -> None:
            with env.begin(write=True) as txn:
                value = loads(txn.get(name))
                value["hits"] += 1
                txn.put(name, dumps(value, 5))

        yield add


def _together(adders: Sequence[Any]) -> Spell:
    """Let children add for as long, each on the next core."""
    with ExitStack() as stack:
        lines = [
            stack.enter_context(forked(_working(adder), number))
            for number, adder in enumerate(adders)
        ]
        for line in lines:
            line.receive()
        end = perf_counter() + SPELL_S  # The same clock in all processes.
        for line in lines:
            line.send(end)
        found = [line.receive() for line in lines]
    return Spell([count for count, _ in found], max(longest_s for _, longest_s in found))


def _working(adder: Any) -> Callable[[Line], None]:
    def work(line: Line) -> None:
        with adder as add:
            for _ in range(WARM_UP):
                add()
            line.send("ready")
            end, count, longest_s = line.receive(), 0, 0.0
            before = perf_counter()
            while before < end:
                add()
                now = perf_counter()
                longest_s = max(longest_s, now - before)
                before = now
                count += 1
            line.send([count, longest_s])

    return work


# --- A reader beside a writer ------------------------------------------------------------------


def get_beside_writer(rounds: int) -> list[Row]:
    """`d[k]` while another process adds to that key without pause, beside LMDB's."""
    title = "`SharedDict`: `d[k]` beside a writer that never pauses"
    if not lmdb_dict.INSTALLED:
        return lmdb_dict.not_measured(title)
    first = items(10)
    d, key = SharedDict(first), next(iter(first))
    rates: dict[str, list[float]] = {"ours": [], "lmdb": []}
    off = 0
    with lmdb_dict.stored(first) as folder, on_core(0):

        def write(line: Line) -> None:
            with _ours(d, key) as ours, _its(folder, key) as its:
                while True:
                    add = ours if line.receive() == "ours" else its
                    line.send()
                    while not line.has_news():
                        for _ in range(CHANGES_BETWEEN_LOOKS):
                            add()

        with forked(write, 1) as writer, lmdb_dict.opened(folder) as env:
            reads = {"ours": lambda: d[key], "lmdb": lambda: lmdb_dict.read(env, key)}
            writer.send("ours")
            for _ in range(rounds):
                for store, get in reads.items():
                    writer.receive()
                    rate, went_back = _read(get)
                    rates[store].append(rate)
                    off += went_back
                    writer.send("lmdb" if store == "ours" else "ours")
            writer.receive()
    ratio = median(a / b for a, b in zip(rates["ours"], rates["lmdb"], strict=True))
    ours, its = (median(rates[store]) / 1000 for store in ("ours", "lmdb"))
    figure = f"{ratio:.2f} x LMDB's rate ({ours:.0f} : {its:.0f} k/s), {off} torn or of before"
    return [Row(title, figure, "at least 1 x, 0 torn", ratio >= 1 and not off)]


def _read(get: Callable[[], Any]) -> tuple[float, int]:
    """Reads a second, and how many of them were of an earlier time than the one before."""
    count = last = off = 0
    begin = perf_counter()
    while perf_counter() < begin + READ_S:
        value = get()
        off += value["hits"] < last or value["name"] != "abc"
        last = value["hits"]
        count += 1
    return count / (perf_counter() - begin), off
