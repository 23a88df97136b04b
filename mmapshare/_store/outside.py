"""A region from outside, as a process sees it that has no part in it.

All is read through a descriptor that can do nothing else: nothing is mapped, locked or written, so
that looking disturbs nobody, whatever the file is. Readers copy and ask afterwards, as others do
(see `_store.region`). One that is overtaken all the time gives up, as it cannot take the lock.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self, TypeVar

import attrs

from ..errors import CorruptRegionError, MmapShareError
from . import holds
from .areas import Areas
from .format import HEADER_BYTES, HOLDS, IDENTITY_BYTES, LOG_KIND, VERSION, Identity
from .keyed import MemoryKeyedStore
from .named import is_over
from .patched import Extents, copied, first_of
from .region import Region
from .value import MemoryValueStore

T = TypeVar("T")

_ATTEMPTS: Final = 100
_PAUSE_S: Final = 1e-3
_LOOKED_S: Final = 0.02
_READ_MOST: Final = 1 << 30
"""Linux reads little more at once."""


@attrs.frozen
class Left:
    """Stands for bytes that were left where they are."""

    size_bytes: int


class Outside(Region):
    """A region, for who may read its file; nothing of it can be changed."""

    __slots__ = ("_fd", "_size")

    def __init__(self, fd: int) -> None:
        """Owns ``fd``; CorruptRegionError where that is no region's."""
        self._fd = fd
        try:
            identity = Identity.unpack(os.pread(fd, IDENTITY_BYTES, 0))
            size = os.fstat(fd).st_size
            if identity.region_bytes != size:
                raise CorruptRegionError(
                    f"the file has {size:,} bytes, and was made with {identity.region_bytes:,}: "
                    "something has cut it off, or added to it"
                )
        except BaseException:
            os.close(fd)
            raise
        self._size = size
        nothing: Any = None
        found: Any = _Bytes(fd, size)
        words: Any = _Words(found)
        self.identity = identity
        self.segment = self.lock = nothing
        self.map, self.words = found, words
        self.areas = Areas(nothing, words, identity)

    @classmethod
    def open(cls, path: str) -> Self:
        """That of a file; OSError where it cannot be read, CorruptRegionError where it is none."""
        # Looked at first: opening a FIFO could block, and a device do anything.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise CorruptRegionError(f"{path} is no plain file")
        return cls(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the descriptor."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def version(self) -> int:
        """The newest committed version; 0 while it is empty."""
        return int(self.words[VERSION])

    def status(self) -> os.stat_result:
        """What the system says of its file."""
        return os.fstat(self._fd)

    @property
    def has_keys(self) -> bool:
        """Whether it is a SharedDict's."""
        return self.identity.kind == LOG_KIND

    def is_over(self, is_name: bool) -> bool:
        """Whether it was unlinked; of a name also, whether it is from before this boot."""
        return is_over(self.words[:HEADER_BYTES], is_name)

    def held(self) -> tuple[int, int]:
        """Bytes that are held (see `_store.holds`), and by how many processes; 0 where unknown."""
        held = holds.held_bytes(self._fd, self._size) if self.words[HOLDS] else 0
        return held, holds.holders(self._fd) if held else 0

    def nap(self, version: int, seconds: float) -> None:
        """Wait until that may not be the newest version any more, at most so long."""
        time.sleep(min(seconds, _LOOKED_S))

    def store(self, codec: Any, most: int | None) -> Any:
        """What is in it, to be read: an `OutsideValue` or an `OutsideKeyed`.

        ``codec``: of a `_store.base.KeyCodec` that part which decodes. With ``most`` a value's
        first frame is read up to so many bytes, and each further one is
        `Left` where it is.
        """
        if self.has_keys:
            return OutsideKeyed(self, codec, most)
        return OutsideValue(self, most)


class _Bytes:
    """A file's bytes, in the place of a mapping."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size

    def __getitem__(self, part: slice) -> bytes:
        begin, end, _ = part.indices(self._size)
        pieces = []
        while begin < end:
            piece = os.pread(self._fd, min(end - begin, _READ_MOST), begin)
            if not piece:
                raise CorruptRegionError("the file was cut off while it was looked at")
            pieces.append(piece)
            begin += len(piece)
        return b"".join(pieces)


class _Words:
    """The header's words, in the place of a view of a mapping."""

    def __init__(self, found: _Bytes) -> None:
        self._bytes = found

    def __getitem__(self, which: int | slice) -> Any:
        if isinstance(which, slice):
            return memoryview(self._bytes[:HEADER_BYTES]).cast("Q")
        return int.from_bytes(self._bytes[8 * which : 8 * which + 8], "little")


class _Unlocked:
    """Reading without a lock to fall back on."""

    def read_or_lock(self, attempt: Callable[[], T | None]) -> T:
        """What ``attempt`` finds; MmapShareError where it is overtaken all the time."""
        for _ in range(_ATTEMPTS):
            found = attempt()
            if found is not None:
                return found
            time.sleep(_PAUSE_S)
        raise MmapShareError("it changes faster than it can be read without its lock")


class OutsideValue(_Unlocked, MemoryValueStore):
    """The one value of a region that is looked at."""

    __slots__ = ("_most",)

    def __init__(self, region: Outside, most: int | None) -> None:
        super().__init__(region)
        self._most = most

    def _copy(self, extents: Sequence[tuple[int, int]]) -> Sequence[Any]:
        return _frames(self._map, extents, self._most)


class OutsideKeyed(_Unlocked, MemoryKeyedStore):
    """The values by key of a region that is looked at."""

    __slots__ = ("_most", "_mutex")

    def __init__(self, region: Outside, codec: Any, most: int | None) -> None:
        super().__init__(region, codec)
        self._most = most
        self._mutex = threading.RLock()

    def mutex(self) -> Any:
        return self._mutex

    def frames(self, place: Extents) -> Sequence[Any]:
        if self._most is None:
            return copied(place, self._map)
        extents = [*first_of(place), *place[2:]]
        return _frames(self._map, list(zip(extents[::2], extents[1::2], strict=True)), self._most)


def _frames(found: Any, extents: Sequence[tuple[int, int]], most: int | None) -> Sequence[Any]:
    if most is None:
        first, *others = [found[begin:end] for begin, end in extents]
        return [first, *map(bytearray, others)]
    begin, end = extents[0]
    return [
        found[begin : min(end, begin + most)],
        *[Left(end - begin) for begin, end in extents[1:]],
    ]
