"""Shares on a Redis or Valkey, by its URL. What is said of them has no password."""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Iterator
from typing import Any, Final

import attrs

from .._late import importing
from ..errors import OpenError, ShareNotFoundError, StoreUnreachableError
from .facts import Facts
from .found import Found

_LEASE_S: Final = 30.0
"""Asked for with an address, and of no meaning to a process that takes no lock."""


@attrs.define
class OnServer(Found):
    """One on a server; ``address`` leads there."""

    is_remote = True

    address: Any = attrs.field(kw_only=True, repr=False)

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        with importing:
            from .._store.redis.outside import Outside

        with _asking(self.address.server) as wire:
            yield Outside(wire, self.address)

    def facts(self, region: Any) -> Facts:
        stats, holding, (waits, dead) = region.stats(), region.holding(), region.counts()
        holder, held_s = holding or (None, None)
        return Facts(
            region_id=region.region_id.hex(),
            what=region.content,
            version=stats.version,
            used_bytes=stats.used_bytes,
            resident_bytes=stats.resident_bytes,
            max_size=stats.max_size,
            holder_pid=holder and holder.pid,
            holder_host=None if holder is None or holder.is_beside_us() else holder.host,
            held_s=held_s,
            contended_waits=waits,
            holders_found_dead=dead,
        )

    def check_trust(self, region: Any) -> None:
        """As a program is told that opens it; `Outside.store` refuses what is not signed aright."""
        with importing:
            from .._store.redis.remote import warn_of

        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            warn_of(self.address)
        for warning in told:
            print(f"mmapshare: {warning.message}", file=sys.stderr)

    def stands(self, region: Any) -> bool:
        """Whether what was opened is still what is there by that name."""
        try:
            with self.open() as now:
                return bool(now.region_id == region.region_id)
        except ShareNotFoundError:
            return False

    def remove(self) -> None:
        with self.open() as region:
            region.unlink()


def one(url: str) -> OnServer:
    """The share of a URL; ShareNotFoundError where there is none."""
    with importing:
        from .._store.redis import address

    with _plainly():
        found = _found(address.address_of(url, _LEASE_S, address.secret_of(None)))
    with found.open():
        return found


def shares_of(url: str) -> list[OnServer]:
    """All on a server, or the one that its URL names."""
    with importing:
        from .._store.redis import address, opening

    with _plainly():
        server, name = address.split(url)
    if name:
        return [one(url)]
    with _asking(server) as wire:
        names = opening.names(wire)
    secret = address.secret_of(None)
    return [
        _found(address.ServerAddress(server, each, _LEASE_S, secret, secret is not None))
        for each in names
    ]


def _found(address: Any) -> OnServer:
    where = str(address)
    return OnServer(where, "redis", where, (0, 0), has_name=True, address=address)


@functools.cache
def _wire(server: Any) -> Any:
    """What asks it, with connections that all looks at its shares have in common."""
    with importing:
        from .._store.redis.address import RedisMaker
        from .._store.redis.wire import Wire

    return Wire(RedisMaker(server), server.reply_s)


@contextlib.contextmanager
def _asking(server: Any) -> Iterator[Any]:
    """What asks a server; OpenError where that cannot be reached."""
    with _plainly():
        wire = _wire(server)
    try:
        yield wire
    except StoreUnreachableError as err:
        raise OpenError(f"{server} cannot be reached: {err.__cause__}") from err


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    """What a URL has wrong is an OpenError."""
    try:
        yield
    except ValueError as err:
        raise OpenError(str(err)) from None
