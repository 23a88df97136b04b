"""A share on a server, as a process sees it that has no part in it.

All is read by what the share's own readers ask, so that looking disturbs nobody: no lock is taken,
and nothing is written. Any share can be looked at, whichever Python has made it and whoever has
signed it; one that is to be loaded is opened as a program opens it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ...errors import OpenError, ShareNotFoundError
from ..base import Base, Stats
from ..format import CONTENTS, LOG_KIND
from ..outside import Left
from .address import ServerAddress
from .holder import Holder
from .index import Place
from .keyed import RemoteKeyedStore
from .keys import keys_of
from .opening import FORMAT, find
from .remote import STORES, Found
from .sealing import SIGNED, SIGNED_BEGIN, Seal
from .value import RemoteValueStore
from .wire import Wire

_FACTS: Final = (b"id", b"kind", b"max", b"fmt", b"sg")
_SLEEP_S: Final = 0.5


class Unchecked(Seal):
    """Takes off signatures without the secret."""

    __slots__ = ("_signs",)

    def __init__(self, region_id: bytes, signs: bool) -> None:
        super().__init__(region_id, None)
        self._signs = signs

    @property
    def signs(self) -> bool:
        return self._signs

    def opened(self, field: bytes, version: int, blob: bytes | None) -> bytes:
        if blob is not None and blob[:1] == SIGNED:
            return blob[SIGNED_BEGIN:]
        return super().opened(field, version, blob)


class Outside:
    """A share on a server; nothing of it is changed but by `unlink`."""

    def __init__(self, wire: Wire, address: ServerAddress) -> None:
        """ShareNotFoundError where there is none; ``wire`` stays the caller's."""
        told = wire.call(b"HMGET", keys_of(address.name, ())[0], *_FACTS)
        region_id, kind, max_size, form, signed = told
        if region_id is None:
            raise ShareNotFoundError(f"there is no share {address}")
        if form != FORMAT or len(region_id) != 16 or kind not in {b"0", b"1"} or not max_size:
            raise OpenError(f"share {address} is of another mmapshare's format, or damaged")
        self.has_keys = int(kind) == LOG_KIND
        self._signs = signed == b"1"
        self._found = Found(address, wire, region_id, CONTENTS[int(kind)], int(max_size))
        self._facts = self.store(None, 0)

    @property
    def region_id(self) -> bytes:
        """What tells it from all others."""
        return self._found.region_id

    @property
    def content(self) -> str:
        """What it is: "Share" or "SharedDict"."""
        return self._found.content

    @property
    def version(self) -> int:
        """The newest committed version; StoreLostError where it is there no more."""
        version: int = self._facts.version
        return version

    def stats(self) -> Stats:
        """How much there is."""
        stats: Stats = self._facts.stats()
        return stats

    def holding(self) -> tuple[Holder, float] | None:
        """Who has its lock, and for how many seconds; None where it is free."""
        found: tuple[Holder, float] | None = self._facts.lock.holding()
        return found

    def counts(self) -> tuple[int, int]:
        """How often somebody had to wait for the lock, and how often a holder was found dead."""
        waits, dead = self._facts.fields(b"cw", b"fd")
        return int(waits or 0), int(dead or 0)

    def nap(self, version: int, seconds: float) -> None:
        """Wait until that may not be the newest version any more, at most so long."""
        self._facts.sleep(version, 0, min(seconds, _SLEEP_S))

    def unlink(self) -> None:
        """Take it off the server."""
        self._facts.unlink()

    def store(self, codec: Any, most: int | None) -> Any:
        """What is in it, to be read: see `_store.outside.Outside.store`.

        With ``most`` a value that takes more stays on the server, and is `Left`. Without, it is
        to be loaded: OpenError where a program could not open it, nor load what is signed.
        """
        found, codecs = self._found, (codec,) if self.has_keys else ()
        if most is None:
            trusted = find(found.address)
            if trusted is None:
                raise ShareNotFoundError(f"there is no share {found.address} any more")
            return STORES[self.has_keys](trusted, *codecs)
        store: Any = _KINDS[self.has_keys](found, *codecs)
        store.most = most
        if found.address.secret is None or not self._signs:
            store.seal = Unchecked(found.region_id, self._signs)
        return store


class OutsideValue(RemoteValueStore):
    """The one value of a share that is looked at."""

    __slots__ = ("most",)

    most: int

    def read(self) -> Base:
        size = self.used_bytes()
        return (self.version, (Left(size),)) if size > self.most else super().read()


class OutsideKeyed(RemoteKeyedStore):
    """The values by key of a share that is looked at."""

    __slots__ = ("most",)

    most: int

    def frames(self, place: Place) -> Sequence[Any]:
        return (Left(place.size),) if place.size > self.most else super().frames(place)


_KINDS: Final[dict[bool, type[Any]]] = {False: OutsideValue, True: OutsideKeyed}
