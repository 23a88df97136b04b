"""Drafts of large values by key: a block holds them, and the commit writes what was changed.

A draft is known by the place that it was taken of. As long as it is held nothing else is written
there, so who finds that place finds that value; and once the value has been changed it has
another one.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Final

from .._bytes import Frame
from . import holds, patched
from .held import Copies, Held
from .patched import Extents, Patch, Patched
from .segment import Segment

_KEPT: Final = 1000


class KeyDrafts:
    """Those of one store. The caller holds the lock."""

    __slots__ = ("_copies", "_drafts")

    def __init__(self) -> None:
        self._drafts: weakref.WeakValueDictionary[int, Held] = weakref.WeakValueDictionary()
        """By the base's begin. They are the blocks', and end with them."""
        self._copies: dict[Any, Copies] = {}
        """By key; the oldest go first."""

    def take(self, key: Any, place: Extents, segment: Segment, raw: Any) -> Held | None:
        """A draft of a key's value, held; None where it has to be copied."""
        if place[-1] - place[0] < holds.LARGE_BYTES or self._copies_of(key).is_next():
            return None
        draft = patched.held(place, segment, raw)
        if draft is not None:
            draft.copies = self._copies_of(key)
            self._drafts[place[0]] = draft
        return draft

    def _copies_of(self, key: Any) -> Copies:
        copies = self._copies.setdefault(key, Copies())
        if len(self._copies) > _KEPT:
            del self._copies[next(iter(self._copies))]
        return copies

    def find(self, place: Extents, frames: Sequence[Frame], raw: memoryview) -> Held | None:
        """The draft that these frames are of, with its changes; None where they are of none."""
        draft = self._drafts.get(place[0])
        if draft is None or draft.of != place:
            return None
        if type(place) is not Patched:
            return draft if draft.is_base_of(frames, lambda at, end: raw[at:end]) else None
        piece = place.piece
        return draft if draft.is_base_of(frames, lambda at, end: piece(raw, at, end)) else None

    def patch(
        self, place: Extents | None, frames: Sequence[Frame], raw: memoryview
    ) -> tuple[Patch, list[Frame]] | None:
        """What a record says and brings of the draft that these are; None to store them whole."""
        draft = self.find(place, frames, raw) if place else None
        return None if draft is None else patched.patch_of(draft, frames)
