"""sharedbox: a record of typed fields in shared memory, without pickle, in C++."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from tests.benchmarks.peers.peer import PAIR, VALUE, Peer


class Box(Peer):
    """Fields are read and written together by `snapshot` and `update`; `writing` is its lock."""

    package = "sharedbox"
    start_method = "spawn"
    notes = (
        "a record of declared fields, without pickle; adding 1 is under a `multiprocessing.Lock`, "
        "since its own lock is for the filling of arrays, where a dead holder's is freed by hand "
        "(`force_unlock()`) and others get an error after 5 s; a dict is one field, read and "
        "written whole"
    )

    def __init__(self, tag: str) -> None:
        self._lock = multiprocessing.get_context("spawn").Lock()
        self._make(tag, "Small", VALUE["hits"], VALUE["name"], VALUE["xs"])

    def _make(self, tag: str, kind: str, *args: Any) -> None:
        size = len(args[0]) if kind in ("Table", "Array") else 0
        self._tag, self._kind, self._size = tag, kind, size
        self._open(_class(kind, size).create(f"{tag}-{kind}", *args))

    def _open(self, box: Any) -> None:
        self._box = box
        self.get = box.snapshot
        if self._kind == "Array":
            self.get_array = lambda: box.array

    def address(self) -> Any:
        return self._tag, self._kind, self._size, self._lock

    @classmethod
    def attach(cls, address: Any) -> Box:
        self = cls.__new__(cls)
        self._tag, self._kind, self._size, self._lock = address
        self._open(_class(self._kind, self._size).attach(f"{self._tag}-{self._kind}"))
        return self

    def set(self, value: dict[str, Any]) -> None:
        # "name" is taken: a box has one itself.
        self._box.update(hits=value["hits"], label=value["name"], xs=value["xs"])

    def add_one(self) -> None:
        with self._lock:
            self._box.hits += 1

    def hits(self) -> int:
        return self._box.hits

    def fill(self, items: dict[str, Any]) -> None:
        self.close()
        if items == PAIR:
            import numpy as np

            self._make(self._tag, "Array", np.array([float(n) for n in items.values()]))
        else:
            self._make(self._tag, "Table", items)

    def get_key(self, key: str) -> Any:
        if key in PAIR:
            return int(self._box.array[list(PAIR).index(key)])
        return self._box.table[key]

    def add_to_key(self, key: str) -> None:
        with self._lock:
            table = self._box.table
            table[key]["hits"] += 1
            self._box.table = table

    def move(self, pause: Callable[[], object]) -> None:
        with self._box.writing("array") as pair:
            pair[0] -= 1
            pause()
            pair[1] += 1

    def fill_array(self, array: Any) -> None:
        self.close()
        self._make(self._tag, "Array", array)

    def set_array(self, array: Any) -> None:
        self._box.array = array

    def next_hits(self, ready: Callable[[], object]) -> int:
        changes = iter(self._box.watch("hits"))
        ready()
        return next(changes)

    def close(self) -> None:
        self._box.close()
        type(self._box).unlink(f"{self._tag}-{self._kind}")


def _class(kind: str, size: int) -> Any:
    import numpy as np
    from sharedbox import Capacity, DType, Shape, SharedBox

    text = Annotated[str, Capacity(16)]
    fields: dict[str, Any]
    if kind == "Array":
        fields = {"array": Annotated[np.ndarray, Shape(size), DType("float64")]}
    elif kind == "Table":
        fields = {"table": Annotated[dict[text, _entry(text)], Capacity(size)]}
    else:
        fields = {"hits": int, "label": text, "xs": Annotated[list[int], Capacity(16)]}
    return type(SharedBox)(kind, (SharedBox,), {"__annotations__": fields})


def _entry(text: Any) -> Any:
    # The functional form: annotations of a class would be kept as words that mean nothing there.
    return TypedDict("Entry", {"hits": int, "name": text})  # noqa: UP013
