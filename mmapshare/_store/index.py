"""The index: which key's value lies where in a log, as one process knows it.

Each process keeps its own and catches up by reading only the records that are new to it, whose
manifests say what has changed (see `_store.manifest`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ..errors import CorruptRegionError
from .base import KeyCodec
from .log import BASE, END, EPOCH, Log, Position, Record, V
from .manifest import Manifest, extents_at, places_of
from .order import Places
from .patched import Extents, Patched, is_patch

SPARE_BYTES: Final = 64 << 10
"""So much may be dead, or added to a snapshot, before it is worth while to write a new one."""


class State:
    """What is known at one position. Replaced as a whole, but for deltas, which change ``places``.

    Without the GIL: it is changed under the store's mutex only. Who reads without that takes the
    version first, one key's extents by one operation of a dict, and asks the region's version (or
    OLDEST_READABLE) afterwards. The lock's holder needs no mutex once it is current: nobody can
    commit.

    Attributes:
        version: of the position; apart, since each read asks for it.
        places: extents by key, in the dict's order.
        definitions: those that the log has, by key; more may come, none goes. The next snapshot
            has only those that values need.
        live: bytes of the values that are there.
        dead: bytes of the values that were replaced or deleted since the snapshot.
        snapshot_keys: of how many keys the area's snapshot was.
        most: up to where deltas may reach before it is worth while to write a new snapshot.
        changing: a delta is being applied: not to be copied, and not to be used in a forked child.
    """

    __slots__ = (
        "changing",
        "dead",
        "definitions",
        "live",
        "most",
        "places",
        "position",
        "snapshot_keys",
        "version",
    )

    def __init__(self, position: Position, places: Places, live: int, end: int) -> None:
        """``end``: where the snapshot that ``places`` were read from ends."""
        self.position = position
        self.version = position[V]
        self.places = places
        self.definitions: dict[bytes, Any] = {}
        self.live = live
        self.dead = 0
        self.snapshot_keys = len(places)
        self.most = end + (end - position[BASE]) + SPARE_BYTES
        self.changing = False

    def place(self, key: Any, extents: Extents) -> None:
        """A key's value lies there from now on."""
        old = self.places.get(key)
        if old is not None:
            size = old[-1] - old[0]
            self.dead += size
            self.live -= size
        self.live += extents[-1] - extents[0]
        self.places[key] = extents

    def patch(self, key: Any, begin: int, size: int, patch: Any) -> None:
        """A key's value is patched from now on, by what begins there.

        That is dead at once: the next snapshot has the value whole.
        """
        self.places[key] = Patched.of(self.places.get(key), begin, patch)
        self.dead += size

    def follow_one(self, key: Any, begin: int, position: Position) -> None:
        """Apply the next record, which sets one key, to a value that begins there."""
        self.changing = True
        end = position[END]
        old = self.places.get(key)  # As `place`, without a call: each d[key] = value comes here.
        if old is not None:
            size = old[-1] - old[0]
            self.dead += size
            self.live -= size
        self.live += end - begin
        self.places[key] = (begin, end)
        self.position = position
        self.version = position[V]
        self.changing = False

    def stand_at(self, position: Position) -> None:
        """What changed up to there has been applied."""
        self.position = position
        self.version = position[V]
        self.changing = False

    @property
    def epoch(self) -> int:
        """Of the states of one epoch equal places are equal values."""
        return self.position[EPOCH]


def load(log: Log, codec: KeyCodec) -> State | None:
    """A state from the area's snapshot on; None where a writer was faster."""
    newest = log.newest()
    state = newest and load_snapshot(log, codec, newest)
    if state is not None and newest is not None and state.version < newest[V]:
        begin = state.position[END] + 7 & -8
        records = log.records(begin, state.version + 1, newest)
        if records is None:
            return None
        follow(state, records, newest, codec)
    return state


def load_snapshot(log: Log, codec: KeyCodec, newest: Position | None = None) -> State | None:
    """A state at the area's snapshot, behind which one follows; None where a writer was faster."""
    newest = newest or log.newest()
    if newest is None or not newest[V]:
        return newest and State(newest, Places(), 0, 0)
    _, epoch, base, end, easy, parts = newest
    records = log.records(base, epoch, (epoch, epoch, base, end, easy, parts))
    if records is None:
        return None
    raw, begin, end, one_key = records[0]
    if one_key:
        raise CorruptRegionError("the area does not begin with a snapshot")
    manifest: Manifest = codec.decode_key(raw)
    position = (epoch, epoch, base, end, easy, parts)
    state = State(position, *places_of(manifest, begin), end)
    state.definitions.update(manifest[4])
    return state


def follow(state: State, records: Iterable[Record], newest: Position, codec: KeyCodec) -> None:
    """Bring a state up to what later records say."""
    decode = codec.decode_key
    decoded = [(decode(raw), begin, end if one_key else 0) for raw, begin, end, one_key in records]
    state.changing = True
    for found, begin, end in decoded:
        if end:
            state.place(found, (begin, end))
        else:
            apply(state, found, begin)
    state.stand_at(newest)


def apply(state: State, manifest: Manifest, begin: int) -> None:
    """Change what a delta says whose values begin there."""
    gone, keys, sizes, lengths, definitions = manifest
    state.definitions.update(definitions)  # At hand before any value is loaded that needs them.
    for key in gone:
        old = state.places.take_out(key)
        if old is not None:
            state.dead += old[-1] - old[0]
            state.live -= old[-1] - old[0]
    for number, (key, size) in enumerate(zip(keys, sizes, strict=True)):
        if number not in lengths:
            state.place(key, (begin, begin + size))
        elif is_patch(lengths[number]):
            state.patch(key, begin, size, lengths[number])
        else:
            state.place(key, extents_at(begin, lengths[number]))
        begin += size
