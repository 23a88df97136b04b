"""What the stores over memory have in common: a region, how it is made, opened and read.

Which region that is depends on the segment: a file's commits are checked, and may wait for the disk
(see `_store.file`); all else is the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, Self, TypeVar

from .._closed import CLOSED
from .._late import importing
from .._lock import current_owner, in_steps, token_by
from ..errors import OpenError, RegionFullError
from . import folder
from . import format as layout
from .base import Stats, Store
from .format import ALLOCATED, HEADER_BYTES, HOLDS, IDENTITY_BYTES, VERSION, Identity
from .holds import held_bytes
from .region import ORDERED_STORES, Region, oldest_ahead
from .segment import Segment

T = TypeVar("T")

WINDOW_MOST: Final = 4 << 20
"""See `_store.value`; an area has so much above what its largest value takes."""
_ATTEMPTS_BEFORE_LOCK: Final = 16


def create_region(
    memory: Callable[[int], Segment], max_size: int, content: int, spare_bytes: int, times: int = 1
) -> Region:
    """A new, empty region; RegionFullError where the machine cannot map its ceiling.

    ``memory`` makes new memory of a size. An area has ``max_size`` and ``spare_bytes``, so many
    ``times`` where the machine maps that: the rest is for what is held.
    """
    identity = Identity(os.urandom(16), max_size, 0, content)
    area_bytes = -(-(max_size + spare_bytes) // HEADER_BYTES) * HEADER_BYTES
    while True:
        identity = identity._replace(area_bytes=times * area_bytes)
        try:
            segment = memory(identity.region_bytes)
            break
        except RegionFullError:
            if times == 1:
                raise
            times = 1
    segment.allocate(0, HEADER_BYTES)
    segment.map[:IDENTITY_BYTES] = identity._replace(format=segment.format).pack()
    region = region_in(segment)
    for area in (0, 1):
        region.words[ALLOCATED[area]] = region.areas.start(area)
    return region


def region_in(segment: Segment) -> Region:
    """The region in a segment; CorruptRegionError where there is none."""
    if segment.format == layout.FORMAT:
        return Region(segment)
    with importing:
        from .file import FileRegion

    return FileRegion(segment)


def undisturbed(attempt: Callable[[], T | None]) -> T:
    """What ``attempt`` finds, for the lock's holder: nobody can have overtaken it."""
    found = attempt()
    if found is None:
        raise oldest_ahead()
    return found


class MemoryStore(Store):
    """What the two stores over memory have in common: a region, and how it is read.

    See `_store.base` for what its methods promise.
    """

    __slots__ = ("__weakref__", "_map", "_publish", "_words", "kept", "lock", "region")

    def __init__(self, region: Region) -> None:
        self.region = region
        self.lock = region.lock
        self.kept: Any = None
        # At hand for what is done all the time.
        self._map = region.map
        self._words = region.words
        self._publish = region.publish

    @classmethod
    def open(cls, segment: Segment, *codec: Any) -> Self:
        """That which is in a segment; CorruptRegionError where that is no region."""
        return cls(region_in(segment), *codec)

    @property
    def region_id(self) -> bytes:  # type: ignore[override]
        return self.region.identity.region_id

    @property
    def version(self) -> int:
        version: int = self._words[VERSION]
        return version

    @property
    def content(self) -> str:  # type: ignore[override]
        return layout.CONTENTS[self.region.identity.kind]

    @property
    def max_size(self) -> int:  # type: ignore[override]
        return self.region.identity.max_size

    @property
    def segment(self) -> Segment:
        return self.region.segment

    def location(self, for_child: bool) -> Any:
        """Its name's address, as long as it has that."""
        segment = self.region.segment
        has_name = segment.address is not None and os.fstat(segment.fd).st_nlink
        return segment.address if has_name else None

    def is_at(self, other: Any) -> bool:
        found, there = (os.fstat(store.segment.fd) for store in (self, other))
        return (found.st_dev, found.st_ino) == (there.st_dev, there.st_ino)

    @property
    def address(self) -> str | None:
        address = self.region.segment.address
        return None if address is None else str(address)

    def unlink(self) -> None:
        if self.address is None:
            super().unlink()
        with importing:
            from .named import unlink

        unlink(self.region.segment)

    def be_durable(self) -> None:
        """The same; it waits for the lock: a commit under way would not wait for the disk."""
        if folder.is_memory(self.region.segment.fd):
            raise OpenError(
                f"{self.address} lies in memory, and is gone when the machine stops: give "
                "durable=True a path on a disk"
            )
        token = token_by(current_owner())
        try:
            self.lock.acquire(token, None)  # Or the caller has it already.
            self.region.be_durable()
        finally:
            self.lock.abandon(token)

    @in_steps
    def read_or_lock(self, attempt: Callable[[], T | None]) -> T:
        """What ``attempt`` finds; None means that a writer overtook it, and it is asked again.

        A writer without pause overtakes every copy. It lets go between its commits, and then there
        is an attempt with the lock; while it does not, it commits nothing and the next one
        succeeds. Without ordered stores the first one is with the lock already.
        """
        lock = self.lock
        while True:
            for _ in range(_ATTEMPTS_BEFORE_LOCK if ORDERED_STORES else 0):
                found = attempt()
                if found is not None:
                    return found
            token = token_by(current_owner())
            try:
                own = lock.holds_own()
                if own or (
                    lock.try_acquire(token) if ORDERED_STORES else lock.acquire(token, None)
                ):
                    return undisturbed(attempt)
            finally:
                lock.abandon(token)

    def used_bytes(self) -> int:
        """What is stored takes so much."""
        raise NotImplementedError

    def sleep(self, version: int, until_ns: int, timeout_s: float) -> bool:
        return self.region.sleep(version, until_ns, timeout_s)

    def close(self) -> None:
        self._map = self._words = CLOSED
        self.region.close()

    def stats(self) -> Stats:
        region = self.region
        segment = region.segment
        held = held_bytes(segment.fd, segment.size_bytes) if self._words[HOLDS] else 0
        return Stats(
            version=self.version,
            used_bytes=self.used_bytes(),
            resident_bytes=segment.resident_bytes(),
            max_size=self.max_size,
            kind=segment.kind,
            held_bytes=held,
        )
