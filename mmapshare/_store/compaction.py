"""Copies of all of a keyed store: for a snapshot in its log, and for who looks at one version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from .._bytes import Frame
from .base import Changes, Image, KeyCodec
from .format import align
from .index import State
from .log import END, Log
from .manifest import Extents, Manifest, lay_out, lengths_of, places_of

_PIECE: Final = 10_000
"""Values that are copied to a snapshot at a time."""


class LogImage(Image):
    """All of one version, in one copy of the log's bytes; its places are extents there."""

    __slots__ = ("_base", "_bytes")

    def __init__(self, state: State, base: int, raw: bytes) -> None:
        super().__init__(state.version, state.places.copy(), state.definitions)
        self._base = base
        self._bytes = raw

    def frames(self, place: Extents) -> list[Frame]:
        base, raw = self._base, self._bytes
        pairs = zip(place[2::2], place[3::2], strict=True)
        buffers = [bytearray(raw[begin - base : end - base]) for begin, end in pairs]
        return [raw[place[0] - base : place[1] - base], *buffers]


class Compaction:
    """Writes a snapshot: what was stored is copied, and not decoded."""

    def __init__(
        self, log: Log, memory: Any, codec: KeyCodec, frames: Callable[[Extents], Sequence[Frame]]
    ) -> None:
        self._log = log
        self._map = memory
        self._codec = codec
        self._frames = frames

    def commit(self, state: State, changes: Changes) -> State:
        """Commit everything, and the changes, as a snapshot; the state behind it."""
        gone, changed, needed = changes
        places: dict[Any, Any] = state.places.copy()
        for key in gone:
            places.pop(key, None)  # An interrupted commit of several shares is made again.
        places.update(changed)
        sizes, lengths, total = [], {}, 0
        for number, found in enumerate(places.values()):
            if type(found[0]) is int:
                size = found[-1] - found[0]
                if len(found) > 2:
                    lengths[number] = lengths_of(found)
            else:
                size = len(found[0])
                if len(found) > 1:
                    lengths[number] = tuple(map(len, found))
            if number in lengths:
                size = sum(map(align, lengths[number][:-1])) + lengths[number][-1]
                size += align(total) - total
            sizes.append(size)
            total += size
        definitions = self._still_needed(places, {**state.definitions, **needed})
        manifest: Manifest = ((), list(places), sizes, lengths, definitions)
        values = self._values(places, lengths)
        after = self._log.rewrite(self._codec.encode_key(manifest), values, total, state.position)
        new = State(after, *places_of(manifest, after[END] - total), after[END])
        new.definitions = definitions
        return new

    def _still_needed(self, places: dict[Any, Any], known: dict[bytes, Any]) -> dict[bytes, Any]:
        """Those of the definitions that values need; the others end with this snapshot."""
        if not known:
            return {}
        keys: dict[bytes, None] = {}
        for found in places.values():
            if type(found[0]) is int:
                named = self._codec.needs_of(self._map, found[1])
            else:
                named = self._codec.needs_of(found[0], len(found[0]))
            keys.update(dict.fromkeys(named))
        return self._codec.closure(keys, known)

    def _values(
        self, places: dict[Any, Any], lengths: dict[int, tuple[int, ...]]
    ) -> Iterator[Frame]:
        """The values of a snapshot, one behind the other, a good number at a time."""
        found = iter(places.values())
        total = number = 0
        while piece := list(islice(found, _PIECE)):
            values: list[Frame] = []
            for one in piece:
                stored = type(one[0]) is int
                if number not in lengths:
                    value = self._map[one[0] : one[1]] if stored else one[0]
                    values.append(value)
                    total += len(value)
                else:
                    frames = self._frames(one) if stored else one
                    total += lay_out(frames, values, total)
                number += 1
            yield b"".join(values)
