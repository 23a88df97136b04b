"""A third medium: stores that are a value and a dict of this process, under its own lock.

It shows that nothing above a store knows where that keeps anything. It crosses no fork.
"""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace
from typing import Any

from mmapshare import RegionFullError

from .inside import (
    CLOSED,
    VERSION,
    KeyedStore,
    Lock,
    MemoryStore,
    Places,
    Stats,
    check_keys,
    conflict,
    keyed_check,
    keyed_put,
)


class NoOtherProcess:
    """The lock among processes, where there is but one."""

    fd, closed = 0, False

    def flock(self, fd: int, operation: int) -> None: ...

    def take(self, words: Any, watch: Any, way: Any) -> Any:
        yield from ()
        return False

    def checked(self) -> int:
        return self.fd

    def stands(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


class InProcess:
    """What the two have in common."""

    put, put_inside = MemoryStore.put, MemoryStore.put_inside

    def __init__(self, max_size: int) -> None:
        self.region_id, self.max_size, self.kept = os.urandom(16), max_size, None
        words = memoryview(bytearray(9 * 8)).cast("Q")
        self.lock = Lock(NoOtherProcess(), words, 0, int.from_bytes(self.region_id[:8], "little"))
        self._rlock = threading.RLock()

    def mutex(self) -> Any:
        return self._rlock

    def sleep(self, version: int, until_ns: int, timeout_s: float) -> bool:
        return False

    def close(self) -> None:
        self._newest = self.state = CLOSED
        self.lock.close()

    def stats(self) -> Any:
        used = self._used_bytes()
        return Stats(self.version, used, used, self.max_size, "process")

    def _check_fits(self, size: int) -> None:
        if size > self.max_size:
            facts = {"needed_bytes": size, "max_size_bytes": self.max_size}
            why = f"it takes {size:,} bytes, the ceiling is {self.max_size:,} bytes"
            raise RegionFullError(why, **facts)


def _own(frames: Any) -> list[Any]:
    return [bytes(frames[0]), *map(bytearray, frames[1:])]


class Value(InProcess):
    """One value."""

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        self._newest: tuple[int, list[Any]] = (0, [])

    @property
    def version(self) -> int:
        return self._newest[0]

    def read(self) -> tuple[int, Any]:
        version, frames = self._newest
        return version, tuple(frames) if len(frames) < 2 else _own(frames)

    current = read

    def holds(self, frames: Any) -> bool:
        return list(frames) == self._newest[1]

    def reserve(self, frames: Any) -> None:
        self._check_fits(sum(map(len, frames)))

    def commit(self, frames: Any) -> int:
        self.reserve(frames)
        self._newest = (self.version + 1, _own(frames))
        return self.version

    _put = commit

    def _check(self, expect: int) -> None:
        if expect != self.version:
            raise conflict(expect, self.version)

    def keep(self, changes: Any, kept: Any) -> None:
        self.kept = kept

    def glimpse(self, most: int) -> bytes:
        return bytes(self._newest[1][0][:most])

    def _used_bytes(self) -> int:
        return sum(map(len, self._newest[1]))


class Keyed(InProcess):
    """Many values, by key; a place is the version that set it, and its frames."""

    keep = KeyedStore.keep
    _put, _check = keyed_put, keyed_check

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        self.kept = {}
        self.state = SimpleNamespace(version=0, run=0, places=Places(), definitions={})

    @property
    def version(self) -> int:
        return self.state.version

    @property
    def _words(self) -> Any:
        return {VERSION: self.version}

    def current(self) -> Any:
        return self.state

    def read(self, look: Any) -> Any:
        return look(self.state)

    def newest(self, key: Any) -> Any:
        return None

    def fetch(self, key: Any) -> tuple[Any, Any]:
        state = self.state
        return self.frames(state.places[key]), state.definitions

    def single(self, place: Any) -> Any:
        return place[1][0] if len(place[1]) == 1 else None

    def frames(self, place: Any) -> Any:
        return _own(place[1])

    def holds(self, place: Any, frames: Any) -> bool:
        return list(frames) == place[1]

    def stands(self, state: Any) -> bool:
        return True

    def keys(self, backward: bool) -> Any:
        return iter([*(reversed(self.state.places) if backward else self.state.places)])

    def image(self) -> Any:
        return SimpleNamespace(**vars(self.state), frames=self.frames)

    def size_of(self, place: Any) -> int:
        return sum(map(len, place[1]))

    def _used_bytes(self) -> int:
        return sum(map(self.size_of, self.state.places.values()))

    def reserve(self, changes: Any) -> None:
        self._check_fits(sum(map(self.size_of, self._after(changes).values())))
        check_keys([key for key, _ in changes[1]])

    def _after(self, changes: Any) -> Any:
        places = Places(self.state.places)
        for key in changes[0]:
            places.pop(key, None)
        places.update({key: (self.version + 1, _own(frames)) for key, frames in changes[1]})
        return places

    def commit(self, changes: Any) -> None:
        self.reserve(changes)
        new = {"version": self.version + 1, "places": self._after(changes)}
        new["definitions"] = {**self.state.definitions, **changes[2]}
        self.state = SimpleNamespace(run=0, **new)
