"""The compiled core beside Python's, and both beside the floor or LMDB.

Here a time is the processor's: they take turns in one process, on a machine that is busy too. The
cores do not take turns with one another: by a change of the core the interpreter forgets what it
knows of the classes.
"""

from __future__ import annotations

from time import process_time
from timeit import Timer
from typing import Any

from mmapshare import SharedDict
from tests.benchmarks import lmdb_dict
from tests.benchmarks.dicts import items, random_keys
from tests.benchmarks.small_values import BLOCK, LOCK, UNLOCK, names
from tests.benchmarks.table import Row, ratio_row
from tests.benchmarks.timing import take_turns
from tests.support import inside

_KEYS = (10, 1_000, 100_000, 1_000_000)
_UPDATE = "with d.locked() as view: view[next(keys)]['hits'] += 1"
_BY = {"c": "by the compiled core", "python": "by Python's"}


def small_values(rounds: int) -> list[Row]:
    """`get`, `set` and a block, beside what cannot be avoided."""
    rows, used = [], inside.used()
    for what, ours, floor, most in (
        ("get()", "share.get()", "loads(stream)", 1.2),
        ("set()", "share.set(value)", f"{LOCK}; dumps(value); {UNLOCK}", 1.5),
        ("`locked()` block", BLOCK, f"{LOCK}; loads(stream); dumps(value); {UNLOCK}", 1.45),
    ):
        for core, by in _BY.items():
            with names() as given:
                timers = {core: _timer(ours, given, core), "floor": _timer(floor, given)}
                times = take_turns(timers, rounds)
            wanted = most if core == "c" else None
            rows.append(ratio_row(f"{what} {by}", times, core, "floor", wanted, "the floor"))
    inside.use(used)
    return rows


def dicts(rounds: int) -> list[Row]:
    """A block that adds 1 to one key's value, beside LMDB's transaction."""
    rows, used = [], inside.used()
    for number in _KEYS:
        title = f"`SharedDict` of {number:,} keys, block"
        if not lmdb_dict.INSTALLED:
            rows += lmdb_dict.not_measured(title)
            continue
        first = items(number)
        for core, by in _BY.items():
            d = SharedDict(first)
            timers = {core: _timer(_UPDATE, {"d": d, "keys": random_keys(number)}, core)}
            with lmdb_dict.stored(first) as folder, lmdb_dict.opened(folder) as env:
                timers["lmdb"] = lmdb_dict.updater(env, random_keys(number), process_time)
                times = take_turns(timers, rounds)
            wanted = 0.85 if core == "c" else None
            rows.append(ratio_row(f"{title} {by}", times, core, "lmdb", wanted, "LMDB's"))
    inside.use(used)
    return rows


def _timer(statement: str, given: dict[str, Any], core: str | None = None) -> Timer:
    setup = "pass" if core is None else f"use({core!r})"
    return Timer(statement, setup, process_time, {**given, "use": inside.use})
