"""The floor, mmapshare, and the naive answer."""

from __future__ import annotations

import fcntl
import mmap
import os
import select
from collections.abc import Callable
from functools import partial
from pickle import dumps, loads
from typing import Any

from mmapshare import Share, SharedDict
from tests.benchmarks.naive import NaiveShare
from tests.benchmarks.peers.peer import ENTRY, VALUE, Peer

ROOM = 512 << 20
"""Taken as it is touched."""


class Floor(Peer):
    """What cannot be avoided: pickling, a flock pair around changes, one copy of an array."""

    def __init__(self, tag: str) -> None:
        self._memfd = os.memfd_create(tag)
        os.ftruncate(self._memfd, ROOM)
        self._pipe = os.pipe()
        self._open()

    def _open(self) -> None:
        self._map = mmap.mmap(self._memfd, ROOM)
        # A description that this process opened for itself: an inherited one shares the lock.
        self._fd = os.open(f"/proc/self/fd/{self._memfd}", os.O_RDWR)
        self.get = partial(loads, dumps(VALUE, 5))
        self._entry = dumps(ENTRY, 5)

    def address(self) -> Any:
        return self._memfd, self._pipe

    @classmethod
    def attach(cls, address: Any) -> Floor:
        self = cls.__new__(cls)
        self._memfd, self._pipe = address
        self._open()
        return self

    def set(self, value: dict[str, Any]) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        stream = dumps(value, 5)
        self._map[: len(stream)] = stream
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def add_one(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        value = loads(self._map)
        value["hits"] += 1
        stream = dumps(value, 5)
        self._map[: len(stream)] = stream
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def hits(self) -> int:
        return loads(self._map)["hits"]

    def fill(self, items: dict[str, Any]) -> None:
        """One key is as good as many: this floor has no index."""
        self.set(ENTRY)

    def get_key(self, key: str) -> Any:
        return loads(self._entry)

    def add_to_key(self, key: str) -> None:
        self.add_one()

    def set_array(self, array: Any) -> None:
        import numpy as np

        shared = np.frombuffer(self._map, count=len(array))
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        np.copyto(shared, array)
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._shared_array = shared

    def get_array(self) -> Any:
        return self._shared_array.copy()

    def announce(self, value: dict[str, Any]) -> None:
        os.write(self._pipe[1], bytes([value["hits"] % 256]))

    def next_hits(self, ready: Callable[[], object]) -> int:
        ready()
        select.select([self._pipe[0]], [], [])
        return os.read(self._pipe[0], 1)[0]


class Ours(Peer):
    package = "mmapshare"

    def __init__(self, tag: str) -> None:
        self._open(Share(VALUE), SharedDict())

    def _open(self, share: Share[Any], shared_dict: SharedDict[str, Any]) -> None:
        self._share, self._dict = share, shared_dict
        self.get = self.get_array = share.get
        self.set = self.set_array = share.set  # type: ignore[method-assign]
        self.get_key = shared_dict.__getitem__

    def address(self) -> Any:
        return self._share, self._dict

    @classmethod
    def attach(cls, address: Any) -> Ours:
        self = cls.__new__(cls)
        self._open(*address)
        return self

    def add_one(self) -> None:
        with self._share.locked() as view:
            view["hits"] += 1

    def fill(self, items: dict[str, Any]) -> None:
        self._dict.update(items)

    def add_to_key(self, key: str) -> None:
        with self._dict.locked() as view:
            view[key]["hits"] += 1

    def move(self, pause: Callable[[], object]) -> None:
        with self._dict.locked() as view:
            view["left"] -= 1
            pause()
            view["right"] += 1

    def next_hits(self, ready: Callable[[], object]) -> int:
        since = self._share.version
        ready()
        self._share.wait(since=since)
        return self.hits()

    def close(self) -> None:
        self._share.close()
        self._dict.close()


class Naive(Peer):
    notes = (
        "anonymous mmap + lockf + pickle: cannot grow, forked children only; a key's read or "
        "change loads the whole dict, a change stores it; torn where it is killed while it copies"
    )
    lacks = {"wake": "none"}

    def __init__(self, tag: str) -> None:
        self._open(NaiveShare(VALUE, ROOM))

    def _open(self, share: NaiveShare) -> None:
        self._share = share
        self.get = self.get_array = share.get
        self.set = self.fill = self.set_array = share.set  # type: ignore[method-assign]
        self.add_one = share.add_one  # type: ignore[method-assign]

    def address(self) -> Any:
        return self._share

    @classmethod
    def attach(cls, address: Any) -> Naive:
        self = cls.__new__(cls)
        self._open(address)
        return self

    def get_key(self, key: str) -> Any:
        return self._share.get()[key]

    def add_to_key(self, key: str) -> None:
        def add(items: dict[str, Any]) -> None:
            items[key]["hits"] += 1

        self._share.change(add)

    def move(self, pause: Callable[[], object]) -> None:
        def move(pair: dict[str, Any]) -> None:
            pair["left"] -= 1
            pause()
            pair["right"] += 1

        self._share.change(move)

    def close(self) -> None:
        self._share.close()
