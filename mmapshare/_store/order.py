"""The order of keys: the first and the last without a list of all of them.

A dict keeps a gap where an item was taken out, and looks for its first and its last item past all
gaps there, until it is laid out anew: what takes items from one end, as a queue does, would go
slower and slower. `Places` leaves no gap at the end, and remembers some keys from the front.

Who iterates is promised the keys as they were when it began. The first one is had at once, and the
list of the others is made when they are asked for, or before anything is taken out (`Begun`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Container, Iterable, Iterator
from itertools import chain, islice
from typing import Any, Final

from .._weak import members

NO_KEY: Final[Any] = object()
"""Stands for a key where there is none."""
FEW: Final = 256
"""Up to so many keys are listed at once: that takes no longer."""
_AHEAD_LEAST: Final = 16
_AHEAD_PART: Final = 16
"""At most this part of all keys is remembered from the front."""


class _Front:
    """The first keys of a dict, as they were when it was asked for them.

    What is taken out is noted in ``passed``; ``at`` is the first key that has not been.
    """

    __slots__ = ("at", "keys", "passed")

    def __init__(self, keys: list[Any]) -> None:
        self.keys = keys
        self.at = 0
        self.passed: set[Any] = set()

    def left(self) -> Iterator[Any]:
        return (key for key in islice(self.keys, self.at, None) if key not in self.passed)


def _note(self: Any, begun: Begun) -> None:
    """Somebody iterates over the keys as they are now."""
    if self._begun is None:
        self._begun = weakref.WeakSet()
    self._begun.add(begun)


def _settle(self: Any) -> None:
    """Something is about to be taken out: make the lists of those that have begun."""
    if self._begun is not None:
        for one in members(self._begun):
            one.keys()
        self._begun.clear()


class Places(dict[Any, Any]):
    """Where the values lie, by key. What is taken out goes by `take_out`, under the mutex."""

    __slots__ = ("_ahead", "_begun", "_front")

    note, settle = _note, _settle  # No class of its own: with two bases a dict is slower.

    def __init__(self, items: Any = ()) -> None:
        super().__init__(items)
        self._front = _Front([])
        self._ahead = _AHEAD_LEAST
        self._begun = None

    def take_out(self, key: Any) -> Any:
        """What lay there, None where nothing did; the key is gone."""
        self.settle()
        last = next(reversed(self), None)
        found = self.pop(key, None)
        front = self._front
        if front.keys:
            self._pass(front, key)
        if next(reversed(self), last) is not last:
            # To take out and put back the last one closes the gap behind it.
            key, extents = self.popitem()
            self[key] = extents
        return found

    def _pass(self, front: _Front, key: Any) -> None:
        keys, passed = front.keys, front.passed
        passed.add(key)
        while front.at < len(keys) and keys[front.at] in passed:
            passed.discard(keys[front.at])
            front.at += 1
        if len(passed) > len(keys):  # Most of them are of elsewhere.
            self._front = _Front([])

    def from_front(self) -> Iterator[Any]:
        """The keys from the first on; to be used only while none is taken out."""
        number, front = 0, self._front
        while True:
            for key in islice(front.left(), number, None):
                number += 1
                yield key
            # Gaps are passed each time, so the more there may be, the more is remembered.
            self._ahead = min(2 * self._ahead, max(_AHEAD_LEAST, len(self) // _AHEAD_PART))
            longer = _Front(list(islice(self, number + self._ahead)))
            if len(longer.keys) == number:
                return
            self._front = front = longer

    def iterate(self, backward: bool, mutex: Callable[[], Any]) -> Iterator[Any]:
        """The keys as they are now, whatever becomes of them; called under the mutex."""
        if len(self) <= FEW:
            return iter(list(reversed(self) if backward else self))
        first = next(reversed(self) if backward else self.from_front())
        count = len(self)

        def all_keys() -> list[Any]:
            keys = list(self)
            del keys[count:]  # New ones come at the end.
            return keys[::-1] if backward else keys

        return begin([first], all_keys, mutex, self)


class Begun:
    """An iteration that has begun: the list of all its keys, which is made late."""

    __slots__ = ("__weakref__", "_keys", "_list", "_mutex")

    def __init__(self, list_all: Callable[[], list[Any]], mutex: Callable[[], Any]) -> None:
        self._list = list_all
        self._mutex = mutex
        self._keys: list[Any] | None = None

    def keys(self) -> list[Any]:
        """All of them, as they were; the same list each time."""
        if self._keys is None:
            with self._mutex():
                # Whoever had it until now may have made the list, and taken something out then.
                if self._keys is None:
                    self._keys = self._list()
        return self._keys


def begin(
    first: list[Any], list_all: Callable[[], list[Any]], mutex: Callable[[], Any], *of: Any
) -> Iterator[Any]:
    """Iterate over a list that is made when more than its ``first`` keys are asked for.

    Under the mutex; or earlier: each of ``of`` takes note of it.
    """
    begun = Begun(list_all, mutex)
    for noting in of:
        noting.note(begun)
    return chain.from_iterable(_pieces(first, begun))


def _pieces(first: list[Any], begun: Begun) -> Iterator[Iterable[Any]]:
    yield first
    rest = iter(begun.keys())
    for _ in first:
        next(rest)
    yield rest


class Ends:
    """What a block has left of the stored keys: the first and the last, while it takes some out."""

    __slots__ = ("_begun", "_first", "_from_back", "_from_front", "_last")

    note, settle = _note, _settle

    def __init__(self, places: Any) -> None:
        self._from_front: Iterator[Any] = iter(places.from_front())
        self._from_back = reversed(places)
        self._first = next(self._from_front, NO_KEY)
        self._last = next(self._from_back, NO_KEY)
        self._begun = None

    def first(self, gone: Container[Any]) -> Any:
        """The first key that is not gone, NO_KEY without one. What is gone stays gone."""
        while self._first is not NO_KEY and self._first in gone:
            self._first = next(self._from_front, NO_KEY)
        return self._first

    def last(self, gone: Container[Any]) -> Any:
        """The last one, likewise."""
        while self._last is not NO_KEY and self._last in gone:
            self._last = next(self._from_back, NO_KEY)
        return self._last
