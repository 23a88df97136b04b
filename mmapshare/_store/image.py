"""All of one version of a keyed store, copied."""

from __future__ import annotations

from typing import Any

from .._bytes import Frame


class Image:
    """All of one version, as bytes of this process's own; ``places`` are its own too."""

    __slots__ = ("definitions", "places", "version")

    def __init__(self, version: int, places: Any, definitions: Any) -> None:
        self.version = version
        self.places = places
        self.definitions = definitions

    def frames(self, place: Any) -> list[Frame]:
        """A value's frames; those of arrays are copied once more, to be their memory."""
        return [bytes(place[0]), *map(bytearray, place[1:])]
