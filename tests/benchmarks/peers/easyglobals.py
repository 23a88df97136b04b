"""EasyGlobals: variables in shared memory, each with one process that may write it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

from tests.benchmarks.peers.peer import VALUE, Peer

CAPACITY, SLOTS = 2 << 30, 300_000
"""The slots for 100 000 keys; memory is taken as it is touched."""


class EasyGlobals(Peer):
    """It has no lock; what several write is disowned under one of multiprocessing's."""

    package = "EasyGlobals"
    start_method = "spawn"
    notes = (
        "one writer per variable and no lock: where several write, a `multiprocessing.Lock` with "
        "`disown` after each change; `wait_change` polls every 0.05 to 2 ms"
    )

    def __init__(self, tag: str) -> None:
        self._lock = multiprocessing.get_context("spawn").Lock()
        self._open(tag)
        self.set(VALUE)
        self._globals.disown("value")

    def _open(self, tag: str) -> None:
        from EasyGlobals import Globals

        self._tag = tag
        self._globals = shared = Globals(tag, capacity=CAPACITY, slot_count=SLOTS)
        self.get = lambda: shared.value
        self.get_key = shared.__getitem__

    def address(self) -> Any:
        return self._tag, self._lock

    @classmethod
    def attach(cls, address: Any) -> EasyGlobals:
        self = cls.__new__(cls)
        tag, self._lock = address
        self._open(tag)
        return self

    def set(self, value: dict[str, Any]) -> None:
        self._globals.value = value

    def add_one(self) -> None:
        self.add_to_key("value")

    def fill(self, items: dict[str, Any]) -> None:
        for key, value in items.items():
            self._globals[key] = value
            self._globals.disown(key)

    def add_to_key(self, key: str) -> None:
        with self._lock:
            value = self._globals[key]
            value["hits"] += 1
            self._globals[key] = value
            self._globals.disown(key)

    def move(self, pause: Callable[[], object]) -> None:
        with self._lock:
            self._globals["left"] -= 1
            self._globals.disown("left")
            pause()
            self._globals["right"] += 1
            self._globals.disown("right")

    def fill_array(self, array: Any) -> None:
        self.set_array(array)
        self._globals.disown("array")

    def set_array(self, array: Any) -> None:
        self._globals.array = array

    def get_array(self) -> Any:
        return self._globals.array

    def next_hits(self, ready: Callable[[], object]) -> int:
        ready()
        return self._globals.wait_change("value")["hits"]

    def close(self) -> None:
        self._globals.close()
