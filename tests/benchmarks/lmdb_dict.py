"""What one would take instead of a `SharedDict`: LMDB in shared memory, never synced to a disk.

An environment is opened by each process for itself, and by none before it forks: LMDB asks for
that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pickle import dumps, loads
from tempfile import TemporaryDirectory
from time import perf_counter
from timeit import Timer
from typing import Any

from tests.benchmarks.table import Row

INSTALLED = find_spec("lmdb") is not None
MAP_BYTES = 4 << 30
SHARED_MEMORY = "/dev/shm"

_UPDATE = """
with env.begin(write=True) as txn:
    key = next(keys).encode()
    value = loads(txn.get(key))
    value["hits"] += 1
    txn.put(key, dumps(value, 5))
"""


@contextmanager
def stored(items: Mapping[str, Any]) -> Iterator[str]:
    """The folder of an environment that holds the items, for the time of the block."""
    parent = SHARED_MEMORY if os.path.isdir(SHARED_MEMORY) else None
    with TemporaryDirectory(prefix="lmdb-", dir=parent) as folder:
        with opened(folder) as env:
            put_all(env, items)
        yield folder


def put_all(env: Any, items: Mapping[str, Any]) -> None:
    """Set all of them in one transaction."""
    with env.begin(write=True) as txn:
        for key, value in items.items():
            txn.put(key.encode(), dumps(value, 5))


@contextmanager
def opened(folder: str) -> Iterator[Any]:
    """The environment, in this process, for the time of the block."""
    import lmdb

    env = lmdb.open(folder, map_size=MAP_BYTES, sync=False, metasync=False)
    try:
        yield env
    finally:
        env.close()


def updater(env: Any, keys: Iterator[str], timer: Callable[[], float] = perf_counter) -> Timer:
    """The statement that adds 1 to the next key's value, in a transaction of its own."""
    return Timer(
        _UPDATE, timer=timer, globals={"env": env, "keys": keys, "loads": loads, "dumps": dumps}
    )


def read(env: Any, key: str) -> Any:
    """One key's value, in a transaction of its own."""
    with env.begin() as txn:
        return loads(txn.get(key.encode()))


def read_all(env: Any) -> int:
    """Read each key and value; how many there are."""
    with env.begin() as txn:
        return sum(1 for _ in txn.cursor())


def not_measured(what: str) -> list[Row]:
    """The row that stands where LMDB would be compared with."""
    return [Row(what, "not measured: lmdb is not installed")]
