"""Whether a value is the stored one still, though it pickles to other bytes.

Many values do not pickle twice to the same bytes: an attribute's name is interned when it is
loaded, and is no longer the same string as the key that it was; a strided array comes back
contiguous; a set that is built again lists its members in another order. So like is compared with
like: the draft, which was loaded once, with what is stored, loaded once more. Sets whose members
hash by their address are compared as sets.

That costs a load and a dump. Where nothing was changed it is what a block that only looks pays. A
block that has changed something is spared most of it by trust (see `Trust`), and by this: data
without classes and sets always pickles to the same bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any, Final

from . import _definitions
from ._codec import Chunks, Frame, decode, encode, out_of_band
from ._definitions import without_bundle
from ._region import same_bytes
from .errors import MmapShareError

_ALWAYS: Final = 4
"""So many changes in a row are looked at twice before any is believed."""
_BELIEVED_MOST: Final = 128
_KEPT: Final = 1000
_ORDERED_BYTES_MOST: Final = 8 << 20
"""What members of sets may take that are pickled to be put in order."""
_ATOMS: Final = frozenset({str, int, float, complex, bool, bytes, type(None)})
"""Types whose objects hash by what they are, so that equal histories give equal orders."""


class Trust:
    """What this process knows of the values under each key: whether they pickle the same again.

    After a few changes in a row of a value that does, the next ones are believed to be changes,
    for as long as nobody else writes the value. A block that only looks at what such a change has
    made unstable may then publish once; what it publishes is stable.
    """

    __slots__ = ("_by_key",)

    def __init__(self) -> None:
        self._by_key: dict[Any, tuple[int, int, object]] = {}
        """By key: how many checks in a row found it stable, how many changes are to be believed,
        and which stored value that is about; None between a look and its commit."""

    def believes(self, key: Any, mark: object) -> bool:
        """Whether other bytes mean another value; ``mark`` tells which value is stored."""
        checks, left, about = self._by_key.get(key, (0, 0, None))
        if about is None or about != mark:
            self._by_key.pop(key, None)
            return False
        if left:
            self._by_key[key] = (checks, left - 1, None)
        return left > 0

    def checked(self, key: Any, stable: bool) -> None:
        """Take note of a check."""
        checks = self._by_key.pop(key, (0,))[0] + 1
        if stable:
            left = 0 if checks < _ALWAYS else min(1 << checks - _ALWAYS, _BELIEVED_MOST)
            self._by_key[key] = (checks, left, None)
        while len(self._by_key) > _KEPT:
            self._by_key.pop(next(iter(self._by_key)), None)  # Another thread may drop the same.

    def wrote(self, key: Any, mark: object) -> None:
        """This process's own block has changed the value: what was found is about the new one."""
        found = self._by_key.get(key)
        if found is not None:
            self._by_key[key] = (*found[:2], mark)


def unchanged(
    value: object,
    frames: Sequence[Frame],
    before: Sequence[Frame],
    fresh: Callable[[], Sequence[Frame]],
    found: Callable[[bool], None] | None = None,
) -> bool:
    """Whether ``value``, which pickles to ``frames``, was loaded from ``before`` and not touched.

    ``before`` may have become the memory of the value's arrays: ``fresh`` gives the stored frames
    anew, or nothing where they are gone. ``found`` is told whether the stored value is stable,
    where that was looked at.
    """
    stream, stored = without_bundle(frames[0]), without_bundle(before[0])
    if stream == stored and len(frames) == len(before):
        return len(frames) == 1 or same_frames(frames[1:], fresh()[1:])
    try:
        loaded = decode(before)
    except MmapShareError:  # The draft was put in its place.
        return False
    again = encode(loaded)
    stream_again = without_bundle(again[0])
    if found is not None:
        found(stream_again == stored and len(again) == len(before))
    if len(again) != len(frames) or len(stream_again) != len(stream):
        return False
    if len(before) > 1:  # So far like was compared with what aliases it.
        before = fresh()
        if not before:
            return False
        loaded = decode(before)
        again = encode(loaded)
    if stream_again == stream:
        return same_frames(frames[1:], again[1:])
    return _same_but_for_sets(value, loaded)


def same_frames(some: Sequence[Frame], others: Sequence[Frame]) -> bool:
    """Whether frames are equal byte by byte; without a copy of any."""
    return len(some) == len(others) and all(
        same_bytes(memoryview(one), other) for one, other in zip(some, others, strict=True)
    )


# --- Sets as sets --------------------------------------------------------------------------


def _same_but_for_sets(value: object, loaded: object) -> bool:
    """Whether two values pickle to the same, the members of their sets put in order."""
    try:
        ordered = _Ordered(frozenset(), [0])
        stored = ordered.frames_of(loaded)
        if not ordered.orders:
            return False
        return same_frames(_Ordered(frozenset(), [0]).frames_of(value), stored)
    except (_TooMuchError, RecursionError, pickle.PicklingError):
        return False


class _TooMuchError(Exception):
    """It would cost too much to put a set in order."""


class _Ordered(_definitions.Pickler):
    """A pickler that puts members of sets in order: by what they pickle to. Not to be loaded."""

    def __init__(self, under_way: frozenset[int], spent: list[int]) -> None:
        self._chunks = Chunks()
        self._buffers: list[memoryview] = []
        super().__init__(self._chunks, out_of_band(self._buffers))
        self.orders: dict[int, tuple[object, object]] = {}
        """By the set's id: the set, and what stands for it."""
        self._under_way = under_way
        self._spent = spent

    def frames_of(self, value: object) -> tuple[Frame, ...]:
        self.dump(value)
        return (b"".join(self._chunks), *self._buffers)

    def persistent_id(self, obj: Any) -> object:
        """What stands for a set whose members are not in the order of what they are."""
        if not isinstance(obj, set | frozenset):
            return None
        known = self.orders.get(id(obj))
        if known is not None:
            return known[1]
        if id(obj) in self._under_way:
            return "the set that is being put in order"
        kind = type(obj)
        plain = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ in _OWN_REDUCE
        if not plain or len(obj) < 2 or _ATOMS.issuperset(map(type, obj)):
            return None
        order = (kind, sorted(obj, key=self._key_within(obj)), obj.__reduce__()[2])
        self.orders[id(obj)] = (obj, order)
        return order

    def _key_within(self, obj: object) -> Callable[[object], bytes]:
        under_way = self._under_way | {id(obj)}

        def key(member: object) -> bytes:
            frames = _Ordered(under_way, self._spent).frames_of(member)
            raw = b"".join(frames)
            self._spent[0] += len(raw)
            if self._spent[0] > _ORDERED_BYTES_MOST:
                raise _TooMuchError
            return raw

        return key


_OWN_REDUCE: Final = (set.__reduce__, frozenset.__reduce__)
