"""What this process knows of definitions: its classes and code objects, and their keys.

It remembers what it has met for as long as that is in use: definitions hold no class. Only the
newest `_HOT` are kept alive on top of that, so that they need not be rebuilt each time.

Without the GIL: each of the tables is changed by one operation of a dict or a deque at a time, what
they hold is whole before, and where an entry is missing its class is looked at once more.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from . import descent as _descent

_HOT: Final = 256
"""How many classes and code objects are kept alive though nobody may use them any more."""

Stored = tuple[bytes, tuple[bytes, ...]]
"""A definition as it is stored: its body, and the keys of those that it needs in turn."""
Definitions = Mapping[bytes, Stored]
"""Such, by key."""


class UnknownDefinitionError(Exception):
    """A stream names a definition that this process has not met; learn it and load again."""


@attrs.define(eq=False, repr=False)
class Definition:
    """One definition, those that it needs in turn, and what stands for it in streams."""

    key: bytes
    body: bytes = b""
    needs: tuple[Definition, ...] = ()
    named: tuple[Any, ...] | None = None


class Known(weakref.ref[Any]):
    """A class or code object of this process, held weakly, with its definition.

    Attributes:
        kept: the object itself, while it is among the hot ones.
        shape: of a class, as it was here when it became known.
        contents: its attributes as they were when the shape was last looked at; they may hold the
            class, so they are there only while ``kept`` is.
    """

    __slots__ = ("address", "contents", "definition", "kept", "shape")

    address: int
    definition: Definition
    shape: bytes
    kept: Any
    contents: tuple[Any, ...]


def known_as(obj: Any, definition: Definition, shape: bytes = b"") -> Known:
    """What stands for an object under one key; it is not `remember`ed yet."""
    known = Known(obj, _gone)
    known.address, known.definition, known.shape = id(obj), definition, shape
    known.kept, known.contents = None, ()
    return known


by_address: dict[int, Known] = {}
by_key: dict[bytes, Known] = {}
_hot: deque[Known] = deque()
unpicklable: list[Any] = []
"""Classes that can be rebuilt nowhere: were one forgotten, its instances could not be read."""


def _gone(known: Any) -> None:
    """A class or code object has died."""
    address, key = known.address, known.definition.key
    if by_address.get(address) is known:
        by_address.pop(address, None)
    if by_key.get(key) is known:
        by_key.pop(key, None)
    _descent.forget(address)


def remember(known: Known, obj: Any) -> None:
    """From now on the object is known by that key.

    It is stored under its first one, for as long as it can do the same.
    """
    before = by_address.get(known.address)
    if before is None or before() is not obj or before.shape != known.shape:
        by_address[known.address] = known
    by_key[known.definition.key] = known
    warm(known, obj)


def warm(known: Known, obj: Any) -> None:
    """Keep an object alive, instead of one that has been for long."""
    if known.kept is None:
        known.kept = obj
        _hot.append(known)
        if len(_hot) > _HOT:
            cold = _hot.popleft()
            cold.kept, cold.contents = None, ()


class Workshop:
    """What is being made: definitions whose bodies are not whole, classes without their contents.

    They may name one another, so they become known together, when the outermost is whole; until
    then only the thread that makes them sees them.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.busy = False
        self._clear()

    def _clear(self) -> None:
        self.made: list[tuple[Known, Any]] = []
        self.by_address: dict[int, Known] = {}
        self.by_key: dict[bytes, Known] = {}
        self.definitions: dict[bytes, Definition] = {}
        self.sources: list[Definitions] = []
        """Where definitions that are being learned are found: loading one may need another."""

    def make(self, work: Callable[..., Any], *args: Any) -> Any:
        """Do a piece of work, which may call for others, as the only thread."""
        with self.lock:
            # No call stands between this and the try: no signal can come in between.
            outermost, self.busy = not self.busy, True
            try:
                made = work(self, *args)
                if outermost:
                    for known, obj in self.made:
                        remember(known, obj)
                return made
            finally:
                if outermost:
                    self._clear()
                    self.busy = False

    def add(self, known: Known, obj: Any) -> None:
        """Let the rest of the work know a class or code object, whole or not."""
        self.made.append((known, obj))
        self.by_address[known.address] = self.by_key[known.definition.key] = known

    def definition(self, key: bytes) -> Definition:
        """The definition of a key, whether or not what it defines has been loaded here."""
        known = self.by_key.get(key) or by_key.get(key)
        found = self.definitions.get(key) if known is None else known.definition
        if found is None:
            body, needs = self.stored(key)
            found = self.definitions[key] = Definition(key, body)
            found.needs = tuple([self.definition(each) for each in needs])
        return found

    def stored(self, key: bytes) -> Stored:
        """What the innermost stream that is being loaded brings along, with all that it needs."""
        found = self.sources[-1].get(key) if self.sources else None
        if found is None:
            raise UnknownDefinitionError(key.hex())
        return found


workshop = Workshop()


def _after_fork_in_child() -> None:
    """Another thread of the parent may have been at work: it is not here to finish."""
    global workshop  # noqa: PLW0603
    workshop = Workshop()


if hasattr(os, "register_at_fork"):  # only with fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
