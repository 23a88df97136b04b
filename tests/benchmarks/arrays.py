"""numpy arrays: beside one copy into shared memory, and one copy out of it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from timeit import Timer
from typing import Any

from mmapshare import Share
from tests.benchmarks.naive import NaiveShare
from tests.benchmarks.table import Row, ratio_row
from tests.benchmarks.timing import take_turns

MOST = 1.3
LOOP_S = 6e-3
"""Longer than elsewhere: each statement begins with its memory out of the caches, and ours has
more of it, since commits rotate."""

STATEMENTS = {
    "memcpy": "shared[:] = flat",
    "set": "share.set(array)",
    "naive set": "naive.set(array)",
    "np.copy": "np.copy(shared_array)",
    "bytearray": "bytearray(shared)",
    "get": "share.get()",
    "naive get": "naive.get()",
}


def array_1_mib(rounds: int) -> list[Row]:
    """`set` and `get` of 1 MiB."""
    return _rows("1 MiB", 1 << 20, rounds)


def array_256_mib(rounds: int) -> list[Row]:
    """`set` and `get` of 256 MiB."""
    return _rows("256 MiB", 256 << 20, rounds)


def _rows(size: str, size_bytes: int, rounds: int) -> list[Row]:
    try:
        import numpy  # noqa: F401
    except ImportError:
        return [Row(f"a numpy array of {size}", "not measured: numpy is not installed")]
    with _names(size_bytes) as names:
        timers = {name: Timer(code, globals=names) for name, code in STATEMENTS.items()}
        for timer in timers.values():
            timer.timeit(5)  # All memory has been touched, by ours and the baseline alike.
        times = take_turns(timers, rounds, LOOP_S)
    # numpy asks the kernel for huge pages, where those exist; bytearray takes what it gets.
    into, out = "memcpy into touched shared memory", "`np.copy` out of shared memory, fresh memory"
    naive = "naive mmap + lockf + pickle: the same"
    return [
        ratio_row(f"`set()` of a numpy array of {size}", times, "set", "memcpy", MOST, into),
        ratio_row(naive, times, "naive set", "memcpy", None, into),
        ratio_row(f"`get()` of a numpy array of {size}", times, "get", "np.copy", MOST, out),
        ratio_row(
            "the same, beside another copy out",
            times,
            "get",
            "bytearray",
            MOST,
            "`bytearray` of shared memory",
        ),
        ratio_row(naive, times, "naive get", "np.copy", None, out),
    ]


@contextmanager
def _names(size_bytes: int) -> Iterator[dict[str, Any]]:
    """The statements' globals; the baselines' shared memory is a mapped memfd, as ours is."""
    import numpy as np

    array = np.random.default_rng(1).random(size_bytes // 8)
    fd = os.memfd_create("memcpy")
    os.ftruncate(fd, size_bytes)
    # Not closed: numpy holds it for as long as the names live.
    mapped = mmap.mmap(fd, size_bytes)
    os.close(fd)
    naive = NaiveShare(array, size_bytes + mmap.PAGESIZE)
    try:
        yield {
            "np": np,
            "array": array,
            "flat": array.data.cast("B"),
            "shared": memoryview(mapped),
            "shared_array": np.frombuffer(mapped),
            "share": Share(array),
            "naive": naive,
        }
    finally:
        naive.close()
