"""Manifests: what a record of a log says of keys and values, and how values are laid out.

One is a pickled tuple: the keys that are gone, the keys that were set, the size of each one's
value, the lengths of the frames of those few that have several (or, of one that was patched, what
`_store.patched` calls a Patch), and the definitions (see `_codec.definitions`) that values need and
that the log has not had before, by key. It is applied in that order, as a dict's methods would: a
key that is set again keeps its place and the object that it is; one that is new goes to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from .._bytes import Frame
from .format import align
from .order import Places
from .patched import Extents, first_of

Manifest = tuple[
    Sequence[Any], Sequence[Any], Sequence[int], dict[int, tuple[Any, ...]], dict[bytes, Any]
]


def places_of(manifest: Manifest, begin: int) -> tuple[Places, int]:
    """The extents by key of a snapshot whose values begin there, and what they take."""
    _, keys, sizes, lengths, _ = manifest
    ends = list(accumulate(sizes, initial=begin))
    places = Places(zip(keys, pairwise(ends), strict=True))
    for number, key in enumerate(places) if lengths else ():
        if number in lengths:
            places[key] = extents_at(ends[number], lengths[number])
    if lengths:
        return places, sum(extents[-1] - extents[0] for extents in places.values())
    return places, ends[-1] - begin


def extents_at(begin: int, lengths: tuple[int, ...]) -> Extents:
    extents: list[int] = []
    for length in lengths:
        begin = align(begin)
        extents += (begin, begin + length)
        begin += length
    return tuple(extents)


def lengths_of(place: Extents) -> tuple[int, ...]:
    extents = (*first_of(place), *place[2:])
    return tuple(end - begin for begin, end in zip(extents[::2], extents[1::2], strict=True))


def lay_out(frames: Sequence[Frame], values: list[Frame], at: int) -> int:
    """Append frames to ``values``, each at a multiple of 64; returns how much that takes."""
    begin = at
    for frame in frames:
        values += (bytes(align(at) - at), frame)
        at = align(at) + len(frame)
    return at - begin
