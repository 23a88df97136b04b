"""Stores of bytes in files, here files in shared memory: LMDB and diskcache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pickle import dumps, loads
from tempfile import mkdtemp
from typing import Any

from tests.benchmarks.lmdb_dict import MAP_BYTES, SHARED_MEMORY
from tests.benchmarks.peers.peer import Buckets, Peer


class Lmdb(Buckets):
    """An environment on /dev/shm that is never synced to a disk."""

    package = "lmdb"
    start_method = "spawn"
    lacks = {"wake": "none"}
    notes = (
        "write transactions, `sync=False` on /dev/shm; arrays as bare bytes, without pickle; on "
        "a disk and with `sync` it is durable, as diskcache, redis and mmapshare's files can be"
    )

    def __init__(self, tag: str) -> None:
        self._open(mkdtemp(prefix=tag, dir=SHARED_MEMORY))

    def _open(self, folder: str) -> None:
        import lmdb

        super().__init__("")
        self._folder = folder
        self._env = lmdb.open(folder, map_size=MAP_BYTES, sync=False, metasync=False)

    def address(self) -> Any:
        return self._folder

    @classmethod
    def attach(cls, address: Any) -> Lmdb:
        self = cls.__new__(cls)
        self._open(address)
        return self

    def read(self, key: str) -> bytes:
        with self._env.begin() as txn:
            return txn.get(key.encode())

    def write(self, items: Iterable[tuple[str, bytes]]) -> None:
        with self._env.begin(write=True) as txn:
            for key, stream in items:
                txn.put(key.encode(), stream)

    def add_to_key(self, key: str) -> None:
        with self._env.begin(write=True) as txn:
            name = key.encode()
            value = loads(txn.get(name))
            value["hits"] += 1
            txn.put(name, dumps(value, 5))

    def move(self, pause: Callable[[], object]) -> None:
        with self._env.begin(write=True) as txn:
            txn.put(b"left", dumps(loads(txn.get(b"left")) - 1))
            pause()
            txn.put(b"right", dumps(loads(txn.get(b"right")) + 1))

    def set_array(self, array: Any) -> None:
        with self._env.begin(write=True) as txn:
            txn.put(b"array", array.data.cast("B"))

    def get_array(self) -> Any:
        import numpy as np

        with self._env.begin(buffers=True) as txn:
            return np.frombuffer(txn.get(b"array")).copy()

    def close(self) -> None:
        self._env.close()
        shutil.rmtree(self._folder)


class DiskCache(Peer):
    """A `Cache` on /dev/shm; changes are in `transact()`."""

    package = "diskcache"
    start_method = "spawn"
    lacks = {"wake": "none"}
    notes = "`Cache.transact()` on /dev/shm, `sqlite_synchronous=0`; durable on a disk"

    def __init__(self, tag: str) -> None:
        self._open(mkdtemp(prefix=tag, dir=SHARED_MEMORY))

    def _open(self, folder: str) -> None:
        from diskcache import Cache

        self._cache = cache = Cache(folder, size_limit=1 << 34, sqlite_synchronous=0)
        self.get = lambda: cache["value"]
        self.get_key = cache.__getitem__

    def address(self) -> Any:
        return os.fspath(self._cache.directory)

    @classmethod
    def attach(cls, address: Any) -> DiskCache:
        self = cls.__new__(cls)
        self._open(address)
        return self

    def _changing(self) -> AbstractContextManager[None]:
        return self._cache.transact(retry=True)

    def set(self, value: dict[str, Any]) -> None:
        self._cache.set("value", value, retry=True)

    def add_one(self) -> None:
        self.add_to_key("value")

    def fill(self, items: dict[str, Any]) -> None:
        with self._changing():
            for key, value in items.items():
                self._cache[key] = value

    def add_to_key(self, key: str) -> None:
        with self._changing():
            value = self._cache[key]
            value["hits"] += 1
            self._cache[key] = value

    def move(self, pause: Callable[[], object]) -> None:
        with self._changing():
            self._cache["left"] -= 1
            pause()
            self._cache["right"] += 1

    def set_array(self, array: Any) -> None:
        self._cache.set("array", array, retry=True)

    def get_array(self) -> Any:
        return self._cache["array"]

    def close(self) -> None:
        folder = self._cache.directory
        self._cache.close()
        shutil.rmtree(folder)
