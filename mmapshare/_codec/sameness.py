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
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from .._bytes import Frame, same_bytes
from ..errors import MmapShareError
from .content import TooMuchError
from .definitions import stream_of
from .frames import EMPTY_SET, FROZENSET, GLOBAL, decode, encode, out_of_band
from .known import Definitions
from .pickler import Chunks, Pickler, changed_meanwhile

_ALWAYS: Final = 4
"""So many changes in a row are looked at twice before any is believed."""
_BELIEVED_MOST: Final = 128
_KEPT: Final = 1000
_ORDERED_BYTES_MOST: Final = 8 << 20
"""What members of sets may take that are pickled to be put in order."""
_ATOMS: Final = frozenset({str, int, float, complex, bool, bytes, type(None)})
"""Types whose objects hash by what they are, so that equal histories give equal orders."""


class Trust:
    """What this process knows of a value: whether it pickles the same again, and since when.

    After a few changes in a row of a value that does, the next ones are believed to be changes,
    as long as what they change is what this process's own block has stored. A block that only
    looks at what such a change has made unstable may then publish once; what it publishes is
    stable.
    """

    __slots__ = ("_checks", "_left", "_mark")

    def __init__(self) -> None:
        self._checks = 0
        """How often in a row the stored value was found to be stable."""
        self._left = 0
        """How many changes are to be believed."""
        self._mark: int | None = None
        """The hash of what this process has stored last."""

    def believes(self, before: Frame, stream: Frame) -> bool:
        """Whether ``stream`` where ``before`` is stored means another value, without a look."""
        if self._left and self._mark == hash(before):
            self._left -= 1
            self._mark = hash(stream)
            return True
        return False

    def looked(self, stable: bool, before: Frame, stream: Frame) -> None:
        """Take note of a second look at the value of ``before``, which ``stream`` may replace."""
        if not stable or self._mark != hash(before):
            self._checks = 0
        self._checks += stable
        past = self._checks - _ALWAYS
        self._left = min(1 << past, _BELIEVED_MOST) if past >= 0 else 0
        self._mark = hash(stream)


class Trusts(dict[Any, Trust]):
    """The trust in the values of many keys, the oldest go first."""

    def __missing__(self, key: Any) -> Trust:
        trust = self[key] = Trust()
        while len(self) > _KEPT:
            # Another thread may drop the same one, or add one in between.
            with suppress(RuntimeError, StopIteration):
                self.pop(next(iter(self)), None)
        return trust


def unchanged(
    value: object,
    frames: Sequence[Frame],
    before: Sequence[Frame],
    fresh: Callable[[], Sequence[Frame]],
    trust: Trust | None = None,
    definitions: Definitions | None = None,
) -> bool:
    """Whether ``value``, which pickles to ``frames``, was loaded from ``before`` and not touched.

    ``before`` may have become the memory of the value's arrays: ``fresh`` gives the stored frames
    anew, or nothing where they are gone. ``definitions``: where they are, of values that are
    encoded with them apart.
    """
    apart = definitions is not None

    def again_of(loaded: object) -> tuple[tuple[Frame, ...], Any]:
        again = encode(loaded, {} if apart else None)
        return again, stream_of(again[0], apart)

    stream, stored = stream_of(frames[0], apart), stream_of(before[0], apart)
    if stream == stored and len(frames) == len(before):
        return len(frames) == 1 or same_frames(frames[1:], fresh()[1:])
    try:
        loaded = decode(before, definitions)
    except MmapShareError:  # The draft was put in its place.
        return False
    again, stream_again = again_of(loaded)
    if trust is not None:
        trust.looked(stream_again == stored and len(again) == len(before), before[0], frames[0])
    if len(again) != len(frames) or len(stream_again) != len(stream):
        return False
    if len(before) > 1:  # So far like was compared with what aliases it.
        before = fresh()
        if not before:
            return False
        loaded = decode(before, definitions)
        again, stream_again = again_of(loaded)
    if stream_again == stream:
        return same_frames(frames[1:], again[1:])
    return _may_have_odd_sets(stream) and _same_but_for_sets(value, loaded)


def same_frames(some: Sequence[Frame], others: Sequence[Frame]) -> bool:
    """Whether frames are equal byte by byte; without a copy of any."""
    return len(some) == len(others) and all(
        same_bytes(memoryview(one), other) for one, other in zip(some, others, strict=True)
    )


# --- Sets as sets --------------------------------------------------------------------------


def _may_have_odd_sets(stream: Any) -> bool:
    """Whether a value may have sets of objects of classes, as far as its stream tells."""
    return GLOBAL in stream and (
        EMPTY_SET in stream
        or FROZENSET in stream
        or any(cls.__name__.encode() in stream for cls in _subclasses(set, frozenset))
    )


def _subclasses(*classes: type) -> Iterator[type]:
    for cls in classes:
        found: list[type] = type.__subclasses__(cls)
        yield from found
        yield from _subclasses(*found)


def _same_but_for_sets(value: object, loaded: object) -> bool:
    """Whether two values pickle to the same, the members of their sets put in order."""
    try:
        ordered = _Ordered(frozenset(), [0])
        stored = ordered.frames_of(loaded)
        if not ordered.orders:
            return False
        return same_frames(_Ordered(frozenset(), [0]).frames_of(value), stored)
    except (TooMuchError, RecursionError, pickle.PicklingError):
        return False
    except RuntimeError as err:
        if not changed_meanwhile(err):
            raise
        return False


class _Ordered(Pickler):
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
                raise TooMuchError
            return raw

        return key


_OWN_REDUCE: Final = (set.__reduce__, frozenset.__reduce__)
