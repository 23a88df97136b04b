"""A value whose bytes travel out of band, so that it can be held."""

from __future__ import annotations

import pickle
from typing import Any


class Blob:
    """Some bytes that travel out of band."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Blob, (pickle.PickleBuffer(self.raw) if protocol >= 5 else bytes(self.raw),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blob) and bytes(self.raw) == bytes(other.raw)

    __hash__ = None  # type: ignore[assignment]
