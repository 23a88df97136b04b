"""A third medium: stores that are a value and a dict of this process, under its own lock.

It shows that nothing above a store knows where that keeps anything. It crosses no fork.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from .inside import CLOSED, KeyedStore, Lock, Places, Stats, ValueStore, check_keys, too_large


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


def _own(frames: Any) -> list[Any]:
    return [bytes(frames[0]), *map(bytearray, frames[1:])]


class InProcess:
    """What the two have in common: a lock, and a state that each commit makes anew."""

    def __init__(self, max_size: int) -> None:
        self.region_id, self.max_size, self.kept = os.urandom(16), max_size, None
        words = memoryview(bytearray(9 * 8)).cast("Q")
        self.lock = Lock(NoOtherProcess(), words, 0, int.from_bytes(self.region_id[:8], "little"))
        self.state = self.empty

    version = property(lambda self: self.state.version)

    def reserve(self, changes: Any) -> None:
        self._after(changes)

    def commit(self, changes: Any) -> int:
        self.state = self._after(changes)
        return int(self.version)

    def _next(self, used: int, **state: Any) -> Any:
        if used > self.max_size:
            raise too_large(f"{used:,} bytes of {self.max_size:,} bytes", used, self.max_size)
        return SimpleNamespace(version=self.version + 1, used=used, epoch=0, **state)

    def stats(self) -> Any:
        return Stats(self.version, self.state.used, self.state.used, self.max_size, "process")

    def close(self) -> None:
        self.state = CLOSED
        self.lock.close()


class Value(InProcess, ValueStore):
    """One value."""

    content = "Share"
    empty = SimpleNamespace(version=0, used=0, frames=())

    def read(self) -> Any:
        state = self.state
        return state.version, _own(state.frames) if len(state.frames) > 1 else tuple(state.frames)

    def _after(self, frames: Any) -> Any:
        return self._next(sum(map(len, frames)), frames=_own(frames))


class Keyed(InProcess, KeyedStore):
    """Many values, by key; a place is the version that set it, and its frames."""

    content = "SharedDict"
    empty = SimpleNamespace(version=0, used=0, epoch=0, places=Places(), definitions={})

    def read(self, look: Any) -> Any:
        return look(self.state)

    def frames(self, place: Any) -> Any:
        return _own(place[1])

    def _after(self, changes: Any) -> Any:
        gone, changed, needed = changes
        check_keys([key for key, _ in changed])
        places = Places(self.state.places)
        for key in gone:
            places.pop(key, None)
        places.update({key: (self.version + 1, _own(frames)) for key, frames in changed})
        used = sum(map(self.size_of, places.values()))
        return self._next(used, places=places, definitions={**self.state.definitions, **needed})
