"""Values that this process has seen lately, so that they are not sent again while they stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .index import Place

_BYTES_MOST: Final = 8 << 20
_ONE_MOST: Final = 1 << 20
_COUNT_MOST: Final = 10_000

Told = tuple[bytes, bytes, bytes | None]
"""A field, the version of its value, and that as it is stored."""


class Values:
    """By field; emptied where it grows too large. What it has never changes: see `Place`."""

    __slots__ = ("_bytes", "_stored")

    def __init__(self) -> None:
        self._stored: dict[bytes, tuple[int, bytes]] = {}
        self._bytes = 0

    def add(self, field: bytes, version: int, blob: bytes) -> None:
        if len(blob) > _ONE_MOST:
            self._stored.pop(field, None)
            return
        if self._bytes > _BYTES_MOST or len(self._stored) > _COUNT_MOST:
            self._stored.clear()
            self._bytes = 0
        self._stored[field] = version, blob
        self._bytes += len(blob)

    def get(self, place: Place) -> bytes | None:
        """The value of that version, if it is here."""
        found = self._stored.get(place.field)
        return found[1] if found is not None and found[0] == place.version else None

    def wanted(self, fields: Iterable[bytes]) -> list[bytes]:
        """What to ask the server for: each field, with the version that is here."""
        asked: list[bytes] = []
        for field in fields:
            found = self._stored.get(field)
            asked += (field, b"0" if found is None else b"%d" % found[0])
        return asked

    def told(self, values: list[Told]) -> dict[bytes, tuple[int, bytes]]:
        """Remember what the server has told; all of it is returned, too."""
        found = {}
        for field, version, blob in values:
            if blob is not None:
                found[field] = int(version), blob
                self.add(field, int(version), blob)
        return found
