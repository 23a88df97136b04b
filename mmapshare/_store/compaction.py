"""Copies of all of a keyed store: for a snapshot in its log, and for who looks at one version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from .._bytes import Frame
from . import holds, patched
from .base import Changes, KeyCodec
from .format import align
from .image import Image
from .index import State
from .log import END, Log
from .manifest import Manifest, lay_out, lengths_of, places_of
from .patched import Extents, Patched
from .segment import Segment

_PIECE: Final = 10_000
"""Values that are copied to a snapshot at a time."""


class LogImage(Image):
    """All of one version, in one copy of the log's bytes; its places are extents there."""

    __slots__ = ("_base", "_bytes")

    def __init__(self, state: State, base: int, raw: bytes | memoryview) -> None:
        super().__init__(state.version, state.places.copy(), state.definitions)
        self._base = base
        self._bytes = raw

    def frames(self, place: Extents) -> list[Frame]:
        return patched.copied(place, self._bytes, self._base)


class HeldImage(LogImage):
    """The same, where nothing was copied: the log's bytes are mapped, and stay as they are."""

    __slots__ = ("_segment",)

    def __init__(self, state: State, base: int, raw: memoryview, segment: Segment) -> None:
        super().__init__(state, base, raw)
        self._segment = segment

    def frames(self, place: Extents) -> list[Frame]:
        # Each value that is loaded is one of its own: large ones are mapped once more.
        held = patched.held(place, self._segment, self._bytes, self._base)
        return super().frames(place) if held is None else held


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
        large = self._log.may_hold and any(sizes[number] >= holds.LARGE_BYTES for number in lengths)
        raw = self._codec.encode_key(manifest)
        after = self._log.rewrite(raw, values, total, state.position, large)
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
                end = found.first[1] if type(found) is Patched else found[1]
                named = self._codec.needs_of(self._map, end)
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
