"""What one call costs with a small value, beside the pickling and locking that it cannot avoid."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from timeit import Timer
from typing import Any

from mmapshare import Share
from tests.benchmarks.naive import NaiveShare
from tests.benchmarks.table import Row, ratio_row
from tests.benchmarks.timing import Times, take_turns

VALUE: dict[str, Any] = {"hits": 1, "name": "abc", "xs": [1, 2, 3]}

BLOCK = "with share.locked() as view: view['hits'] += 1"
LOCK, UNLOCK = "flock(fd, TRY)", "flock(fd, RELEASE)"


def get(rounds: int) -> list[Row]:
    """`get()`, beside loading the same pickle."""
    times = _compare("share.get()", "loads(stream)", "naive.get()", rounds)
    return _rows("`get()` of a small dict", times, "`pickle.loads`", 1.8)


def set_(rounds: int) -> list[Row]:
    """`set()`, beside a flock pair around the same pickling."""
    floor = f"{LOCK}; dumps(value); {UNLOCK}"
    times = _compare("share.set(value)", floor, "naive.set(value)", rounds)
    return _rows("`set()` of a small dict", times, "flock pair + `pickle.dumps`", 2.5)


def block(rounds: int) -> list[Row]:
    """A `locked()` block that adds 1, beside a flock pair around loading and pickling."""
    floor = f"{LOCK}; loads(stream); dumps(value); {UNLOCK}"
    times = _compare(BLOCK, floor, "naive.add_one()", rounds)
    return _rows(
        "`locked()` block adding 1 to a small dict", times, "flock pair + loads + dumps", 2.2
    )


def _rows(what: str, times: Times, baseline: str, most: float) -> list[Row]:
    return [
        ratio_row(what, times, "ours", "floor", most, baseline),
        ratio_row("naive mmap + lockf + pickle: the same", times, "naive", "floor", None, baseline),
    ]


def _compare(ours: str, floor: str, naive: str, rounds: int) -> Times:
    with names() as given:
        statements = {"floor": floor, "ours": ours, "naive": naive}
        timers = {name: Timer(code, globals=given) for name, code in statements.items()}
        return take_turns(timers, rounds)


@contextmanager
def names() -> Iterator[dict[str, Any]]:
    """The statements' globals. The floor locks a description that it opened for itself."""
    memfd = os.memfd_create("floor")
    fd = os.open(f"/proc/self/fd/{memfd}", os.O_RDWR)
    naive = NaiveShare(VALUE)
    try:
        yield {
            "share": Share(VALUE),
            "naive": naive,
            "value": dict(VALUE),
            "stream": pickle.dumps(VALUE),
            "loads": pickle.loads,
            "dumps": pickle.dumps,
            "flock": fcntl.flock,
            "fd": fd,
            "TRY": fcntl.LOCK_EX | fcntl.LOCK_NB,
            "RELEASE": fcntl.LOCK_UN,
        }
    finally:
        naive.close()
        os.close(fd)
        os.close(memfd)
