"""The index: which keys a server has, and at which versions, as one process knows it.

Each process keeps its own, and catches up by asking for what has changed since. Without the GIL: it
is changed under the store's mutex only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from ..base import KeyCodec
from ..order import Places
from .sealing import Seal

_HEAD: Final = struct.Struct("<QQQ")
_KEY: Final = b"k"
VALUE: Final = b"v"
"""Before a field's name, in the signature of its value."""


class Place(NamedTuple):
    """One version of a key's value; equal ones are the same value."""

    field: bytes
    version: int
    serial: int
    size: int
    raw: bytes
    """The key's pickle."""


Heads = Iterable[tuple[bytes, bytes | None]]
"""Fields with their heads, None where the key is gone."""


def place_at(field: bytes, head: bytes, version: int | None, seal: Seal) -> Place:
    """What a head says; checked where there is a secret. ``version``: as it was told beside."""
    begin = 33 if seal.signs else 1
    said, serial, size = _HEAD.unpack_from(head.ljust(begin + _HEAD.size, b"\0"), begin)
    body = seal.opened(_KEY + field, said, head)
    if version is not None and said > version:
        seal.opened(b"", 0, None)  # Nobody can have written that yet.
    return Place(field, said, serial, size, body[_HEAD.size :])


def mark_of(place: Place, seal: Seal) -> bytes:
    """The signature of the head that says this; nothing where nothing is signed."""
    if not seal.signs:
        return b""
    body = _HEAD.pack(place.version, place.serial, place.size) + place.raw
    return seal.mark(_KEY + place.field, place.version, body)


class Index:
    """All keys at one version; see `_store.base.State`.

    Attributes:
        fields: the key of each field.
        serial: the last serial number.
        epoch: another number where it was read anew, since the server had lost something.
        changing: a change is being made: not to be used by who has interrupted that.
    """

    __slots__ = ("changing", "definitions", "epoch", "fields", "places", "serial", "version")

    def __init__(self, epoch: int, definitions: dict[bytes, Any]) -> None:
        """``definitions``: of the store, which learns them as it reads values."""
        self.version = 0
        self.serial = 0
        self.epoch = epoch
        self.places = Places()
        self.fields: dict[bytes, Any] = {}
        self.definitions = definitions
        self.changing = False

    def follow(self, version: int, serial: int, heads: Heads, codec: KeyCodec, seal: Seal) -> None:
        """Bring it up to a version by what has changed since."""
        found: list[tuple[Place, Any]] = []
        gone: list[bytes] = []
        for field, head in heads:
            if head is None:
                gone.append(field)
                continue
            place = place_at(field, head, version, seal)
            known = self._known(place)
            found.append((place, codec.decode_key(place.raw) if known is None else None))
        found.sort(key=lambda one: one[0].serial)
        self.change(version, serial, gone, found)

    def _known(self, place: Place) -> Place | None:
        """The place that it takes, of the same key of now."""
        if place.field not in self.fields:
            return None
        before: Place = self.places[self.fields[place.field]]
        return before if before.serial == place.serial else None

    def change(
        self,
        version: int,
        serial: int,
        gone: Sequence[bytes],
        found: Sequence[tuple[Place, Any]],
    ) -> None:
        """Take out what is gone, then set what is found, in this order; new ones with keys."""
        self.changing = True
        for field in gone:
            self._take_out(field)
        for place, key in found:
            if self._known(place) is None:
                self._take_out(place.field)
                self.fields[place.field] = key
                self.places[key] = place
            else:
                self.places[self.fields[place.field]] = place
        self.version, self.serial = version, serial
        self.changing = False

    def _take_out(self, field: bytes) -> None:
        if field in self.fields:
            self.places.take_out(self.fields.pop(field))
