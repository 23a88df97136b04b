"""UltraDict and the fork of it that is kept up, both with the lock for independent processes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, ClassVar

from tests.benchmarks.peers.peer import VALUE, Peer

BUFFER_BYTES = 1 << 20
"""For the stream of changes: a larger change is a dump of the whole dict."""
STEALING = {"timeout": 1.0, "steal_after_timeout": True}


class UltraDict(Peer):
    package: ClassVar[str] = "UltraDict"
    lacks = {"wake": "none", "array-get-1": "no copy", "array-get-256": "no copy"}
    notes = (
        "`shared_lock=True`; each process keeps a copy of the dict and hands out the object "
        "itself, unpickled once, not a copy; after a kill its `lock(timeout=1, "
        "steal_after_timeout=True)` comes back, its plain `lock` and `d[k] = v` do not"
    )

    def __init__(self, tag: str) -> None:
        self._open(self._kind()(name=tag, create=True, shared_lock=True, buffer_size=BUFFER_BYTES))
        self._dict["value"] = VALUE

    @classmethod
    def _kind(cls) -> Any:
        return importlib.import_module(cls.package).UltraDict

    def _open(self, shared: Any) -> None:
        self._dict = shared
        self.get = lambda: shared["value"]
        self.get_key = shared.__getitem__

    def address(self) -> Any:
        return self._dict.name

    @classmethod
    def attach(cls, address: Any) -> UltraDict:
        self = cls.__new__(cls)
        self._open(cls._kind()(name=address, create=False, shared_lock=True))
        return self

    def set(self, value: dict[str, Any]) -> None:
        self._dict["value"] = value

    def add_one(self) -> None:
        self.add_to_key("value")

    def fill(self, items: dict[str, Any]) -> None:
        self._dict.update(items)

    def add_to_key(self, key: str) -> None:
        with self._dict.lock:
            value = self._dict[key]
            value["hits"] += 1
            self._dict[key] = value

    def move(self, pause: Callable[[], object]) -> None:
        with self._dict.lock(**STEALING):
            self._dict["left"] -= 1
            pause()
            self._dict["right"] += 1

    def set_array(self, array: Any) -> None:
        self._dict["array"] = array

    def get_array(self) -> Any:
        return self._dict["array"]

    def close(self) -> None:
        self._dict.close(unlink=True)


class UltraDict2(UltraDict):
    package = "UltraDict2"
    notes = "the fork of UltraDict that is kept up; used and to be read like it"
