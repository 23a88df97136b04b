"""One value on a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..._bytes import Frame
from ...errors import VersionConflict
from ..base import Base, ValueStore, too_large
from .orders import Order
from .remote import STORES, Found, RemoteStore
from .scripts import COMMIT, CREATE, PUT, TAKE
from .sealing import SIGNED_BEGIN, body_of, frames_of

_FIELD: Final = b"f"
_CACHED_BYTES: Final = 64 << 10
_UNSEEN: Final[tuple[int, bytes | None]] = (-1, None)


class RemoteValueStore(RemoteStore, ValueStore):
    """A value on a server; see `_store.base`.

    Without the GIL: ``_seen`` is swapped whole by one store; which of two threads swapped last
    does not matter but for what `version` promises, and so `_see` looks first.
    """

    __slots__ = ("_base", "_seen")

    take_script, commit_script, create_script = TAKE, COMMIT, CREATE
    parts = (b":free", b":wait")

    def __init__(self, found: Found) -> None:
        super().__init__(found)
        self._seen = _UNSEEN
        """The newest version that this process has seen, and what it is, while that is small."""
        self._base: tuple[int, bytes | None] = (0, None)
        """The newest version and what it is, of the holder."""

    # --- Reading ---------------------------------------------------------------------------

    @property
    def version(self) -> int:
        seen = self._seen
        return self._see(seen, int(self.fields(b"v")[0]))

    @property
    def base_version(self) -> int:
        return self._base[0]

    @property
    def seen_version(self) -> int:
        return self._seen[0]

    def _see(self, seen: tuple[int, bytes | None], version: int, blob: bytes | None = None) -> int:
        """That is there now; ``seen`` is what had been seen when it was asked for."""
        if version < seen[0]:
            self._seen = _UNSEEN
            raise self.older(seen[0], version)
        if version > self._seen[0]:
            kept = blob if blob is not None and len(blob) <= _CACHED_BYTES else None
            self._seen = (version, kept)
        return version

    def read(self) -> Base:
        seen = self._seen
        found, blob = self.fields(b"v", b"f")
        version = self._see(seen, int(found), blob)
        if version == seen[0] and seen[1] is not None and blob != seen[1]:
            self._seen = _UNSEEN
            raise self.older(version, version)
        return self._opened(version, blob)

    def _opened(self, version: int, blob: bytes | None) -> Base:
        if not version:
            return 0, ()
        return version, frames_of(self.seal.opened(_FIELD, version, blob))[0]

    # --- The lock brings what is new -------------------------------------------------------

    def take_arguments(self) -> tuple[bytes, ...]:
        self._base = self._seen  # Should it be the newest still, it is not sent again.
        version = self._base[0] if self._base[1] is not None or not self._base[0] else -1
        return (b"%d" % version,)

    def taken(self, rest: list[Any]) -> None:
        version = int(rest[0])
        seen = self._base
        blob = rest[1] if len(rest) > 1 else seen[1]
        self._base = version, blob
        self._see(seen, version, blob)

    def current(self) -> Base:
        return self._opened(*self._base)

    # --- Writing ---------------------------------------------------------------------------

    def reserve(self, frames: Sequence[Frame]) -> None:
        size = sum(map(len, frames))
        if size > self.max_size:
            what = f"the value takes {size:,} bytes, the ceiling is {self.max_size:,} bytes"
            raise too_large(what, size, self.max_size)

    def check(self, expect: int) -> None:
        if expect != self._base[0]:
            raise _conflict(expect, self._base[0])

    def _put(self, frames: Sequence[Frame]) -> int:
        return self._commit(frames, True)

    def put_inside(self, frames: Sequence[Frame], expect: int | None, kept: Any) -> int:
        if expect is not None:
            self.check(expect)
        version = self._commit(frames, False)
        self.keep(frames, kept)
        return version

    def order(self, frames: Sequence[Frame], last: bool) -> Order:
        self.reserve(frames)
        base = self._base[0]
        blob = self.seal.sealed(_FIELD, base + 1, body_of(frames))
        return Order(frames, base, last, [blob])

    def committed(self, order: Order, version: int) -> None:
        self._base = version, order.arguments[0]
        if not self.is_unborn:
            # Another thread may have seen a later one by now.
            self._see((order.base, None), *self._base)

    def put(
        self, frames: Sequence[Frame], expect: int | None, timeout_s: float | None, kept: Any
    ) -> int | None:
        if self.lock.token is None:
            version = self._put_at_once(frames, expect)
            if version is not None:
                if kept or self.kept:
                    self.keep(frames, kept)
                return version
        return super().put(frames, expect, timeout_s, kept)

    def _put_at_once(self, frames: Sequence[Frame], expect: int | None) -> int | None:
        """Commit in one step; None, with nothing done, where one has to stand in line."""
        self.reserve(frames)
        seen = self._seen
        base = expect
        if base is None and self.seal.signs:  # What is signed is of one version.
            base = max(seen[0], 0)
        blob = self.seal.sealed(_FIELD, (base or 0) + 1, body_of(frames))
        with self.writing() as tag:
            expected = b"" if base is None else b"%d" % base
            reply = self.wire.run(PUT, self.names, self.region_id, tag, expected, blob)
        if reply[0] == b"ok":
            version = self._see(seen, int(reply[1]), blob)
            self.replicated()
            return version
        if reply[0] == b"conflict" and expect is not None:
            raise _conflict(expect, int(reply[1]))
        if reply[0] not in {b"held", b"conflict"}:
            self.refuse(reply)
        return None

    # --- To be looked at -------------------------------------------------------------------

    def used_bytes(self) -> int:
        size = int(self.wire.call(b"HSTRLEN", self.names[0], _FIELD))
        return max(0, size - (SIGNED_BEGIN if self.seal.signs else 1) - 1)

    def first(self) -> tuple[bytes, ...]:
        version, blob = self._base
        if not version:
            return ()
        self._seen = version, blob
        return (blob or b"",)


STORES[False] = RemoteValueStore


def _conflict(expect: int, found: int) -> VersionConflict:
    return VersionConflict(
        f"expected version {expect}, found {found}; take a new snapshot() and try again",
        expected=expect,
        found=found,
    )
