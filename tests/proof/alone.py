"""A share in one process: what each operation does and raises, in plain Python; and values."""

from __future__ import annotations

import copy
import threading
import zlib
from collections.abc import Callable
from typing import Any

import attrs

from mmapshare import (
    DeadlockError,
    EmptyShareError,
    RegionFullError,
    Snapshot,
    TransactionError,
    UnpicklableError,
    VersionConflict,
)

EMPTY: Any = ("empty",)


# --- Values, which travel as they are described ----------------------------------------------


@attrs.frozen
class Blob:
    """Some bytes; a bytearray travels out of band."""

    kind: str
    size: int
    fill: int


UNPICKLABLE = Blob("lock", 0, 0)


def build(described: Any) -> Any:
    """A new value."""
    if described == UNPICKLABLE:
        return threading.Lock()
    if isinstance(described, Blob):
        kind = bytearray if described.kind == "bytearray" else bytes
        return kind([described.fill]) * described.size
    if isinstance(described, dict):
        return {key: build(item) for key, item in described.items()}
    return copy.deepcopy(described)


def told(value: Any) -> Any:
    """A value as it is compared: with the types of all that is in it."""
    kind = type(value).__name__
    if kind == "lock":
        return kind
    if isinstance(value, dict):
        return kind, [(key, told(item)) for key, item in value.items()]
    if isinstance(value, bytes | bytearray):
        return kind, len(value), zlib.crc32(value)
    if isinstance(value, set):
        return kind, sorted(map(repr, value))
    return kind, repr(value)


def _any_part(value: Any, has: Callable[[Any], bool]) -> bool:
    parts = value.values() if isinstance(value, dict) else ()
    return has(value) or any(map(has, parts))


def _encode(value: Any) -> None:
    if _any_part(value, lambda part: type(part).__name__ == "lock"):
        raise UnpicklableError("it cannot")


# --- The share -------------------------------------------------------------------------------


class Alone:
    """A share that nobody shares.

    Attributes:
        dead: somebody died who had the lock, and nobody has noticed.
        found_dead: how many were noticed.
    """

    def __init__(self, value: Any, max_size: int) -> None:
        self.value, self.max_size = value, max_size
        self.version = 0 if value is EMPTY else 1
        self.view: View | None = None
        self.held = self.dead = False
        self.found_dead = 0

    def take(self) -> None:
        """Take the lock, or have it already."""
        if self.view is None and not self.held:
            self.found_dead += self.dead
            self.dead = False

    def die(self) -> None:
        self.view, self.held, self.dead = None, False, True

    def get(self) -> Any:
        if self.value is EMPTY:
            raise EmptyShareError
        return copy.deepcopy(self.value)

    def snapshot(self) -> Any:
        return Snapshot(self.get(), self.version)

    def set(self, value: Any, *, if_version: int | None = None) -> int:
        _encode(value)
        self.take()
        if self.view is not None:
            raise TransactionError
        if if_version not in {None, self.version}:
            raise VersionConflict(found=self.version)
        return self.commit(value)

    def commit(self, value: Any) -> int:
        def too_large(part: Any) -> bool:
            return isinstance(part, bytes | bytearray) and len(part) > self.max_size

        if _any_part(value, too_large):
            raise RegionFullError
        self.value = copy.deepcopy(value)
        self.version += 1
        return self.version

    def update(self, change: Callable[[Any], Any], *, optimistic: bool = False) -> Any:
        if optimistic and self.view is None and not self.held:
            value = self.get()
            result = change(value)
            value = value if result is None else result
            _encode(value)
            if told(value) != told(self.value):
                self.set(value)
            return value
        with self.locked() as view:
            result = change(view.value)
            if result is not None:
                view.value = result
            return view.value

    def lock(self) -> None:
        self.take()
        if self.held or self.view is not None:
            raise DeadlockError
        self.held = True

    def unlock(self) -> None:
        self.held = False

    def locked(self) -> Block:
        return Block(self)

    def wait(self, predicate: Any = None, *, since: int | None = None, timeout: float) -> bool:
        if predicate is None:
            return self.version not in {0, self.version if since is None else since}
        return self.version > 0 and bool(predicate(self.get()))


class View:
    """The draft of the block that runs."""

    def __init__(self, share: Alone) -> None:
        self.share, self.failed = share, False
        self.draft = copy.deepcopy(share.value)
        self.version = share.version

    @property
    def value(self) -> Any:
        if self.draft is EMPTY:
            raise EmptyShareError
        return self.draft

    @value.setter
    def value(self, value: Any) -> None:
        self.draft = value

    def __setitem__(self, key: Any, item: Any) -> None:
        self.draft[key] = item

    def rollback(self) -> None:
        self.draft, self.failed = copy.deepcopy(self.share.value), False


class Block:
    """Joins the outer block where there is one."""

    def __init__(self, share: Alone) -> None:
        self.share = share
        self.joined = False

    def __enter__(self) -> View:
        share = self.share
        share.take()
        self.joined = share.view is not None
        if share.view is None:
            share.view = View(share)
        return share.view

    def __exit__(self, kind: Any, *_: Any) -> None:
        share = self.share
        view = share.view
        assert view is not None
        if self.joined:
            view.failed = view.failed or kind is not None
            return
        share.view = None
        if kind is not None:
            return
        if view.failed:
            raise TransactionError
        if view.draft is not EMPTY:
            _encode(view.draft)
            if told(view.draft) != told(share.value):
                share.commit(view.draft)
