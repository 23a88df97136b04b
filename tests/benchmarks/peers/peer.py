"""What a tool must do to be measured: one small interface, and the table of those who have it.

A peer is made once, in a process of its own, and *attached* by others: what travels there is its
address. What a tool does not have, it says in `lacks` instead of imitating it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pickle import dumps, loads
from typing import Any, ClassVar

VALUE: dict[str, Any] = {"hits": 1, "name": "abc", "xs": [1, 2, 3]}
ENTRY: dict[str, Any] = {"hits": 1, "name": "abc"}
PAIR = {"left": 1000, "right": 1000}

# In the order of the table's columns. The floor is no tool: it is what the others are measured by.
FLOOR = "floor"
PEERS = {
    FLOOR: "tests.benchmarks.peers.ours:Floor",
    "mmapshare": "tests.benchmarks.peers.ours:Ours",
    "naive": "tests.benchmarks.peers.ours:Naive",
    "Value & Co": "tests.benchmarks.peers.standard:Bare",
    "Manager": "tests.benchmarks.peers.standard:Managed",
    "lmdb": "tests.benchmarks.peers.stores:Lmdb",
    "diskcache": "tests.benchmarks.peers.stores:DiskCache",
    "redis": "tests.benchmarks.peers.redis_server:Redis",
    "UltraDict": "tests.benchmarks.peers.ultradict:UltraDict",
    "UltraDict2": "tests.benchmarks.peers.ultradict:UltraDict2",
    "sharedbox": "tests.benchmarks.peers.sharedboxes:Box",
    "EasyGlobals": "tests.benchmarks.peers.easyglobals:EasyGlobals",
}


class Peer:
    """A shared value, or shared keys, or a shared array: what was filled in last."""

    package: ClassVar[str] = ""
    """Its name among the installed packages; empty for what Python has itself."""
    start_method: ClassVar[str] = "fork"
    """How its other processes are started, as its documentation asks for."""
    lacks: ClassVar[Mapping[str, str]] = {}
    """By the name of a row: what stands there instead of a figure."""
    notes: ClassVar[str] = ""
    """How it is used here, and what one must know to read its figures."""
    get: Callable[[], Any]
    """The whole small dict."""
    get_key: Callable[[str], Any]

    def __init__(self, tag: str) -> None:
        """Make the store; whatever it leaves in /dev/shm has the tag in its name."""

    def address(self) -> Any:
        """What `attach` needs in another process."""
        raise NotImplementedError

    @classmethod
    def attach(cls, address: Any) -> Peer:
        """The same store, in this process."""
        raise NotImplementedError

    @classmethod
    def version(cls) -> str:
        return version(cls.package) if cls.package else ""

    def set(self, value: dict[str, Any]) -> None:
        """Store the whole small dict."""
        raise NotImplementedError

    def add_one(self) -> None:
        """Add 1 to the small dict's hits, under the tool's own lock or transaction."""
        raise NotImplementedError

    def hits(self) -> int:
        return self.get()["hits"]

    def fill(self, items: dict[str, Any]) -> None:
        """Store many keys, each by itself where the tool knows keys."""
        raise NotImplementedError

    def add_to_key(self, key: str) -> None:
        raise NotImplementedError

    def move(self, pause: Callable[[], object]) -> None:
        """Move 1 from `PAIR`'s left to its right, in one transaction, with a pause between.

        Who has no transaction holds the lock meanwhile.
        """
        raise NotImplementedError

    def fill_array(self, array: Any) -> None:
        """Make room for the array and store it."""
        self.set_array(array)

    def set_array(self, array: Any) -> None:
        raise NotImplementedError

    def get_array(self) -> Any:
        """A private copy."""
        raise NotImplementedError

    def announce(self, value: dict[str, Any]) -> None:
        """`set`, so that who waits in `next_hits` is woken."""
        self.set(value)

    def next_hits(self, ready: Callable[[], object]) -> int:
        """Wait for the next `announce` after calling ``ready``; the hits that it brought."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the store holds; a killed process's store is swept by its tag."""


class Buckets(Peer):
    """A peer that stores bytes by their keys: values are pickled."""

    def __init__(self, tag: str) -> None:
        self.get = lambda: loads(self.read("value"))
        self.get_key = lambda key: loads(self.read(key))

    def read(self, key: str) -> bytes:
        raise NotImplementedError

    def write(self, items: Iterable[tuple[str, bytes]]) -> None:
        raise NotImplementedError

    def set(self, value: dict[str, Any]) -> None:
        self.write([("value", dumps(value, 5))])

    def fill(self, items: dict[str, Any]) -> None:
        self.write((key, dumps(value, 5)) for key, value in items.items())

    def add_one(self) -> None:
        self.add_to_key("value")


def peer_class(name: str) -> type[Peer]:
    """The class of a peer by its name in the table, or by "module:Class"."""
    module, _, found = PEERS.get(name, name).partition(":")
    return getattr(importlib.import_module(module), found)


def version_of(name: str) -> str:
    """The version that is installed; "" for what has none of its own."""
    try:
        return peer_class(name).version()
    except (PackageNotFoundError, ImportError):
        return "not installed"
