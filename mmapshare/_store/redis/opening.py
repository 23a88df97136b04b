"""Shares on a server: found, made and listed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from ...errors import OpenError, ShareExistsError, ShareNotFoundError
from ..format import CONTENTS, LOG_KIND, VALUE_KIND
from ..named import ListedShare
from . import keyed, value
from .address import RedisMaker, Server, ServerAddress
from .holder import Holder
from .keys import keys_of, name_of
from .remote import STORES, Found, warn_of
from .wire import Wire

FORMAT: Final = b"1"
"""Of what a hash says of itself."""
_ATTEMPTS: Final = 100
_PAGE: Final = b"1000"

assert {False: value.RemoteValueStore, True: keyed.RemoteKeyedStore} == STORES


class Made(Protocol):
    """What `find_or_make` makes: something with a store, that can be closed."""

    def close(self) -> object: ...


M = TypeVar("M", bound=Made)


def find(address: ServerAddress) -> Found | None:
    """The share of that name; None where there is none."""
    address = address.as_known()
    wire = Wire(RedisMaker(address.server), address.server.reply_s)
    found = None
    try:
        found = _found(address, wire)
        return found
    finally:
        if found is None:
            wire.close()


def _found(address: ServerAddress, wire: Wire) -> Found | None:
    told = wire.call(
        b"HMGET", keys_of(address.name, ())[0], b"id", b"kind", b"max", b"fmt", b"py", b"sg"
    )
    region_id, kind, max_size, form, python, signed = told
    if region_id is None:
        return None
    if form != FORMAT or len(region_id) != 16 or kind is None or max_size is None:
        raise OpenError(
            f"share {address} was made by another mmapshare, in format {_shown(form)}; this one "
            f"knows {_shown(FORMAT)}"
        )
    if python != _python():
        raise OpenError(
            f"share {address} was made by Python {_shown(python)}, and this is "
            f"{_shown(_python())}: what is pickled by the one need not load in the other"
        )
    if address.is_signed and address.secret is None:
        raise OpenError(f"share {address} is signed: give secret=, or MMAPSHARE_SECRET")
    if (signed == b"1") != address.is_signed:
        raise OpenError(
            f"share {address} is signed: give secret=, or MMAPSHARE_SECRET"
            if signed == b"1"
            else f"share {address} is not signed, so nothing in it can be trusted by the secret "
            "that was given: unlink() it and make it anew"
        )
    return Found(address, wire, region_id, CONTENTS[int(kind)], int(max_size))


def find_or_make(
    address: ServerAddress, create: bool | None, make: Callable[[Callable[..., Any]], M]
) -> tuple[Found | None, M | None]:
    """The share of that name, or what ``make`` has made, which has got that name by then.

    ``make`` is given what makes a store, of a kind that is in memory otherwise. What it puts into
    that is kept here, and then made with it in one step: whole, or not, since the name is taken.
    """
    wire = Wire(RedisMaker(address.server), address.server.reply_s)
    warn_of(address)
    address.remember()
    stores: list[Any] = []

    def new(kind: Any, max_size: int, *codec: Any) -> Any:
        with_keys = bool(codec)
        content = CONTENTS[LOG_KIND if with_keys else VALUE_KIND]
        store = STORES[with_keys](Found(address, wire, os.urandom(16), content, max_size), *codec)
        store.is_unborn = True
        stores.append(store)
        return store

    made: M | None = None
    try:
        for _ in range(_ATTEMPTS):
            found = _found(address, wire)
            if found is not None:
                if create:
                    raise ShareExistsError(
                        f"there is a share {address} already; open it without create=True, or "
                        "unlink() it first"
                    )
                if made is None:
                    return found, None
                made.close()  # And the wire with it.
                return find(address), None
            if create is False:
                raise ShareNotFoundError(f"there is no share {address}")
            if made is None:
                made = make(new)
            if _give_name(address, wire, stores[0]):
                return None, made
        raise OpenError(f"share {address} is made and removed all the time")
    except BaseException:
        if made is not None:
            made.close()
        wire.close()
        raise


def _give_name(address: ServerAddress, wire: Wire, store: Any) -> bool:
    kind = LOG_KIND if store.content == CONTENTS[LOG_KIND] else VALUE_KIND
    signed = b"1" if store.seal.signs else b"0"
    facts = (b"%d" % kind, b"%d" % store.max_size, _python(), signed)
    told = wire.run(store.create_script, store.names, store.region_id, *facts, *store.first())
    # Sent twice, the first one made it.
    if told[0] == b"made" or wire.call(b"HGET", store.names[0], b"id") == store.region_id:
        store.is_unborn = False
        store.replicated()
        return True
    return False


def _python() -> bytes:
    return b"%d.%d" % sys.version_info[:2]


def _shown(raw: bytes | None) -> str:
    return "none" if raw is None else raw.decode("utf-8", "replace")


def listing(server: Server) -> list[ListedShare]:
    """The shares of a database, in the order of their names; what is no share is left out."""
    wire = Wire(RedisMaker(server), server.reply_s)
    try:
        listed = [_listed(wire, name) for name in names(wire)]
        return [one for one in listed if one is not None]
    finally:
        wire.close()


def names(wire: Wire) -> list[str]:
    """What may be shares, in the order of their names."""
    found, cursor = set(), b"0"
    while True:
        cursor, keys = wire.call(
            b"SCAN", cursor, b"MATCH", keys_of("*", ())[0].replace(b"{*}", b"*"), b"COUNT",
            _PAGE, b"TYPE", b"hash",
        )  # fmt: skip
        found |= {name for key in keys if (name := name_of(key)) is not None}
        if cursor == b"0":
            return sorted(found)


def _listed(wire: Wire, name: str) -> ListedShare | None:
    (key,) = keys_of(name, ())
    fields = (b"kind", b"max", b"v", b"fmt", b"lt", b"lh")
    kind, max_size, version, form, token, holder = wire.call(b"HMGET", key, *fields)
    if form != FORMAT:
        return None
    return ListedShare(
        name=name,
        kind=CONTENTS[int(kind)],
        version=int(version),
        resident_bytes=int(wire.call(b"MEMORY", b"USAGE", key) or 0),
        max_size=int(max_size),
        holder_pid=Holder.unpacked(holder).pid if token else None,
    )
