"""A `SharedDict` among processes: what another one changed, and a late one.

Run as a script, it is the late process, and prints its times as JSON.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import Any

from mmapshare import SharedDict
from tests.benchmarks import lmdb_dict
from tests.benchmarks.dicts import SIZES, items, random_keys, updater
from tests.benchmarks.forking import Line, forked, on_core
from tests.benchmarks.table import Row, ratio_row
from tests.benchmarks.timing import Times

READ_MOST = {0: 0.8, 100_000: 1.0}
KEYS_BETWEEN_READS = 1000
LATE_KEYS, LATE_MOST = 100_000, 3.0


# --- What another process changed --------------------------------------------------------------


def read_changed(rounds: int) -> list[Row]:
    """`d[k]` in another process than the one that has just changed the key."""
    return [row for number in SIZES for row in _read_changed(number, rounds)]


def _read_changed(number: int, rounds: int) -> list[Row]:
    title = f"`SharedDict` of {number:,} keys: `d[k]` after another process changed it"
    if not lmdb_dict.INSTALLED:
        return lmdb_dict.not_measured(title)
    first, times, stale = items(number), Times(), 0
    d, hits, keys = SharedDict(first), Counter(dict.fromkeys(first, 2)), random_keys(number)

    def read(line: Line) -> None:
        with lmdb_dict.opened(folder) as env:
            reads: dict[str, Callable[[str], Any]] = {
                "ours": lambda key: d[key],
                "lmdb": lambda key: lmdb_dict.read(env, key),
                "all": lambda _: {"hits": [len(d.snapshot()), lmdb_dict.read_all(env)]},
            }
            line.send()
            while True:
                store, key = line.receive()
                get = reads[store]
                begin = perf_counter()
                value = get(key)
                line.send([perf_counter() - begin, value["hits"]])

    with lmdb_dict.stored(first) as folder, on_core(0), forked(read, 1) as reader:
        reader.receive()
        with lmdb_dict.opened(folder) as env:
            change = {
                "ours": updater(d, random_keys(number)),
                "lmdb": lmdb_dict.updater(env, random_keys(number)),
            }
            # Pages that the fork shares, and those that are to be mapped, are no read's to pay:
            # each key is changed once before.
            for n, key in enumerate(first):
                d[key] = {**first[key], "hits": 2}
                if n % KEYS_BETWEEN_READS == 0:
                    _exchange(reader, "ours", key)
            lmdb_dict.put_all(env, {key: {**value, "hits": 2} for key, value in first.items()})
            _exchange(reader, "all")
            for _ in range(rounds):
                key = next(keys)
                hits[key] += 1
                for store, timer in change.items():
                    timer.timeit(1)
                    took, found = _exchange(reader, store, key)
                    times.note(store, took)
                    stale += found != hits[key]
    if stale:
        return [Row(title, f"{stale} stale reads", "none", False)]
    most = READ_MOST.get(number, READ_MOST[0])
    return [ratio_row(title, times, "ours", "lmdb", most, "LMDB's transaction, get and loads")]


def _exchange(reader: Line, store: str, key: str = "") -> Any:
    reader.send([store, key])
    return reader.receive()


# --- A late process ----------------------------------------------------------------------------


def late(rounds: int) -> list[Row]:
    """The first `d[k]` of a process that was started late, beside loading a plain dict."""
    plain = items(LATE_KEYS)
    grown: SharedDict[str, Any] = SharedDict()
    for key, value in plain.items():
        grown[key] = value
    dicts = {"made at once": SharedDict(plain), "grown key by key": grown}
    rows = []
    for how, d in dicts.items():
        times = Times()
        for number in range(rounds):
            job = pickle.dumps((pickle.dumps(d), pickle.dumps(plain, 5), number % 2 == 0))
            command = [sys.executable, __file__]
            found = subprocess.run(command, input=job, stdout=subprocess.PIPE, check=True)
            for name, seconds in json.loads(found.stdout).items():
                times.note(name, seconds)
        title = f"`SharedDict` of {LATE_KEYS:,} keys, {how}: a late process's first read"
        baseline = "`pickle.loads` of the same plain dict"
        rows.append(ratio_row(title, times, "ours", "plain", LATE_MOST, baseline))
    return rows


def _be_late() -> dict[str, float]:
    handle, plain, ours_first = pickle.load(sys.stdin.buffer)
    jobs: dict[str, Callable[[], object]] = {
        "ours": lambda: _first_read(handle),
        "plain": lambda: pickle.loads(plain),
    }
    took = {}
    for name in sorted(jobs, reverse=not ours_first):  # The first one's memory is the freshest.
        begin = perf_counter()
        kept = jobs[name]()
        took[name] = perf_counter() - begin
        del kept  # Letting go of it is not in the time.
    return took


def _first_read(handle: bytes) -> tuple[Any, Any]:
    d = pickle.loads(handle)
    return d, d["key-7"]


if __name__ == "__main__":
    print(json.dumps(_be_late()))
