"""What Python brings: a Manager's dict, and Value, Array and SharedMemory for bare numbers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from tests.benchmarks.peers.peer import VALUE, Peer

FORK = multiprocessing.get_context("fork")


class Managed(Peer):
    """`Manager().dict()` with a Lock of multiprocessing's, which is faster than the Manager's."""

    notes = (
        "a dict of a server process, changed under a `multiprocessing.Condition` (the Manager's "
        "own lock costs two more round trips)"
    )

    def __init__(self, tag: str) -> None:
        self._manager = FORK.Manager()
        lock = FORK.Lock()
        self._open(self._manager.dict(value=VALUE), FORK.Condition(lock))

    def _open(self, shared: Any, changed: Any) -> None:
        self._dict, self._changed = shared, changed
        self.get = lambda: shared["value"]
        self.get_key = shared.__getitem__

    def address(self) -> Any:
        return self._dict, self._changed

    @classmethod
    def attach(cls, address: Any) -> Managed:
        self = cls.__new__(cls)
        self._open(*address)
        return self

    def set(self, value: dict[str, Any]) -> None:
        self._dict["value"] = value

    def add_one(self) -> None:
        self.add_to_key("value")

    def fill(self, items: dict[str, Any]) -> None:
        self._dict.update(items)

    def add_to_key(self, key: str) -> None:
        with self._changed:
            value = self._dict[key]
            value["hits"] += 1
            self._dict[key] = value

    def move(self, pause: Callable[[], object]) -> None:
        with self._changed:
            self._dict["left"] -= 1
            pause()
            self._dict["right"] += 1

    def set_array(self, array: Any) -> None:
        self._dict["array"] = array

    def get_array(self) -> Any:
        return self._dict["array"]

    def announce(self, value: dict[str, Any]) -> None:
        with self._changed:
            self.set(value)
            self._changed.notify_all()

    def next_hits(self, ready: Callable[[], object]) -> int:
        with self._changed:
            ready()
            self._changed.wait()
        return self.hits()

    def close(self) -> None:
        self._manager.shutdown()


class Bare(Peer):
    """A number each: no dict, no string, nothing that grows."""

    notes = (
        "`Value`, `Array` and `SharedMemory` under their lock, and a `Condition`: one bare number "
        "where the others have a dict; of an array a copy, though a view costs nothing"
    )
    _memory: SharedMemory | None = None

    def __init__(self, tag: str) -> None:
        self._value = FORK.Value("q", 0)
        self._changed = FORK.Condition(self._value.get_lock())
        self._array = FORK.Array("q", 0)
        self._lock = FORK.Lock()
        self._open()

    def _open(self) -> None:
        value = self._value
        self.get = lambda: value.value

    def address(self) -> Any:
        name = self._memory and self._memory.name
        return self._value, self._changed, self._array, self._lock, name

    @classmethod
    def attach(cls, address: Any) -> Bare:
        self = cls.__new__(cls)
        self._value, self._changed, self._array, self._lock, name = address
        self._open()
        if name:
            self._map(SharedMemory(name))
        return self

    def set(self, value: dict[str, Any]) -> None:
        self._value.value = value["hits"]

    def add_one(self) -> None:
        with self._value.get_lock():
            self._value.value += 1

    def hits(self) -> int:
        return self._value.value

    def fill(self, items: dict[str, Any]) -> None:
        first = [item if isinstance(item, int) else item["hits"] for item in items.values()]
        self._array = FORK.Array("q", first)

    def get_key(self, key: str) -> Any:
        return self._array[_place(key)]

    def add_to_key(self, key: str) -> None:
        with self._array.get_lock():
            self._array[_place(key)] += 1

    def move(self, pause: Callable[[], object]) -> None:
        with self._array.get_lock():
            self._array[0] -= 1
            pause()
            self._array[1] += 1

    def fill_array(self, array: Any) -> None:
        self._map(SharedMemory(create=True, size=array.nbytes))
        self.set_array(array)

    def _map(self, memory: SharedMemory) -> None:
        import numpy as np

        self._memory, self._shared_array = memory, np.frombuffer(memory.buf)

    def set_array(self, array: Any) -> None:
        with self._lock:
            self._shared_array[:] = array

    def get_array(self) -> Any:
        with self._lock:
            return self._shared_array.copy()

    def announce(self, value: dict[str, Any]) -> None:
        with self._changed:
            self.set(value)
            self._changed.notify_all()

    def next_hits(self, ready: Callable[[], object]) -> int:
        with self._changed:
            ready()
            self._changed.wait()
            return self.hits()

    def close(self) -> None:
        if self._memory:
            del self._shared_array
            self._memory.close()
            self._memory.unlink()


def _place(key: str) -> int:
    return {"left": 0, "right": 1}[key] if key in ("left", "right") else int(key[4:])
