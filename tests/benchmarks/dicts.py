"""A `SharedDict` in one process: an update beside LMDB's, among ten keys and among a million."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import cycle, repeat
from pickle import dumps, loads
from statistics import median
from time import perf_counter
from timeit import Timer
from typing import Any

from mmapshare import SharedDict
from tests.benchmarks import lmdb_dict
from tests.benchmarks.table import Row, duration, ratio_row
from tests.benchmarks.timing import take_turns

SIZES = (10, 1_000, 100_000, 1_000_000)
FEW, MANY = SIZES[0], SIZES[-1]
_UPDATE = "with d.locked() as view: view[next(keys)]['hits'] += 1"
DRAWS = 200_000
"""Random keys, before they come again."""
CHUNK = 5_000
"""Updates in one round of those that are counted, whatever comes up on their way."""
BLOCK_KEYS = 10_000
FEW_MOST = 1.3
MEMORY_CHUNK = 10_000
MEMORY_MOST, MEMORY_SPARE_BYTES = 2.5, 1 << 20


def items(number: int) -> dict[str, dict[str, Any]]:
    """What the dicts begin with: small values, none of them the same object as another."""
    return {f"key-{n}": {"hits": 1, "name": "abc"} for n in range(number)}


def random_keys(number: int) -> Iterator[str]:
    """Keys of a dict with so many, without end; the same ones each time."""
    return cycle([f"key-{n}" for n in random.Random(1).choices(range(number), k=DRAWS)])


# --- Time ---------------------------------------------------------------------------------------


def update(rounds: int) -> list[Row]:
    """A block that changes one value, beside LMDB's; and among many keys, beside among few."""
    rows, dicts = [], {}
    for number in SIZES:
        first = items(number)
        dicts[number] = SharedDict(first)
        rows += _beside_lmdb(dicts[number], first, rounds)
    return [*rows, *_many_beside_few(dicts[MANY], dicts[FEW], rounds)]


def _beside_lmdb(d: SharedDict[str, Any], first: dict[str, Any], rounds: int) -> list[Row]:
    title = f"`SharedDict` of {len(first):,} keys: block adding 1 to one value"
    if not lmdb_dict.INSTALLED:
        return lmdb_dict.not_measured(title)
    with lmdb_dict.stored(first) as folder, lmdb_dict.opened(folder) as env:
        keys = random_keys(len(first)), random_keys(len(first))
        timers = {"ours": updater(d, keys[0]), "lmdb": lmdb_dict.updater(env, keys[1])}
        times = take_turns(timers, rounds)
    return [ratio_row(title, times, "ours", "lmdb", 0.8, "one write transaction of LMDB")]


def updater(d: SharedDict[str, Any], keys: Iterator[str]) -> Timer:
    """The statement that adds 1 to the next key's value, in a block of its own."""
    return Timer(_UPDATE, globals={"d": d, "keys": keys})


def _many_beside_few(
    many: SharedDict[str, Any], few: SharedDict[str, Any], rounds: int
) -> list[Row]:
    """All updates together, not their median: what comes up seldom is paid for too."""
    timers, took = [updater(d, random_keys(len(d))) for d in (many, few)], [0.0, 0.0]
    used = [many.info().used_bytes]
    for _ in range(rounds):
        for which, timer in enumerate(timers):
            took[which] += timer.timeit(CHUNK)
        used.append(many.info().used_bytes)
    number = rounds * CHUNK
    each, each_few = (seconds / number for seconds in took)
    rows = [_many_row(f"{number:,} updates of one key each, random", each, each_few)]
    if used == sorted(used):  # None of them compacted the large one, so its part is added.
        compaction_s, freed_bytes = _compaction(many)
        apart = round(freed_bytes * number / (used[-1] - used[0]))
        what = f"the same, with a part of the compaction ({duration(compaction_s)} each {apart:,})"
        rows.append(_many_row(what, each + compaction_s / apart, each_few))
    return rows


def _many_row(what: str, each: float, each_few: float) -> Row:
    return Row(
        f"`SharedDict` of {MANY:,} keys: {what}",
        f"{each / each_few:.2f} x the same with {FEW} keys "
        f"({duration(each)} : {duration(each_few)}, compactions included)",
        f"at most {FEW_MOST:g} x",
        each / each_few <= FEW_MOST,
    )


def _compaction(d: SharedDict[str, Any]) -> tuple[float, int]:
    """What the next compaction takes beyond its block's updates, and how many bytes it frees."""
    keys, times, freed = random_keys(len(d)), [], 0
    while freed <= 0:
        before, begin = d.info().used_bytes, perf_counter()
        with d.locked() as view:
            for _ in range(BLOCK_KEYS):
                view[next(keys)]["hits"] += 1
        times.append(perf_counter() - begin)
        freed = before - d.info().used_bytes
    return times[-1] - median(times), freed


def get(rounds: int) -> list[Row]:
    """`d[k]` of a key that nobody has changed, beside loading the same pickle."""
    d = SharedDict(items(1_000))
    names = {"d": d, "key": "key-7", "loads": loads, "stream": dumps(d["key-7"], 5)}
    timers = {
        name: Timer(code, globals=names)
        for name, code in (("ours", "d[key]"), ("floor", "loads(stream)"))
    }
    times = take_turns(timers, rounds)
    title = f"`d[k]` of a `SharedDict` of {len(d):,} keys, unchanged"
    return [ratio_row(title, times, "ours", "floor", 2.0, "`pickle.loads`")]


# --- Memory -------------------------------------------------------------------------------------


def memory(rounds: int) -> list[Row]:
    """What a region takes while one key is updated over and over."""
    return [_memory(number, rounds) for number in (1, 100_000)]


def _memory(number: int, rounds: int) -> Row:
    d = SharedDict(items(number))
    timer, sizes = updater(d, repeat("key-0")), []
    for _ in range(rounds):
        timer.timeit(MEMORY_CHUNK)
        sizes.append(d.info().resident_bytes)
    live = sum(len(dumps(key, 5)) + len(dumps(value, 5)) for key, value in d.items())
    most = MEMORY_MOST * live + MEMORY_SPARE_BYTES
    keys = f"{number:,} keys" if number > 1 else "1 key"
    return Row(
        f"`SharedDict` of {keys}: resident over {rounds * MEMORY_CHUNK:,} updates of one",
        f"{_mib(sizes[-1])} at the end, {_mib(max(sizes))} at most; "
        f"keys and values as pickled: {_mib(live)}",
        f"at most {MEMORY_MOST:g} x + {_mib(MEMORY_SPARE_BYTES)} ({_mib(most)})",
        max(sizes) <= most,
    )


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:.2f} MiB"
