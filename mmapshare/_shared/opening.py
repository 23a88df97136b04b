"""Opening shares by name, path or URL: what `Share.open` and `SharedDict.open` have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from .._arguments import size_bytes, timeout_s
from .._store import finding
from ..errors import OpenError
from . import registry
from .base import Shared

S = TypeVar("S", bound=Shared[Any])

_MAX_SIZE: Final = "1G"


def open_shared(
    cls: type[S],
    where: object,
    create: bool | None,
    max_size: int | str | None,
    timeout: float | None,
    durable: bool,
    lease: float,
    secret: str | bytes | None,
    fill: Callable[[S], object],
) -> S:
    """The share of that name, path or URL, or a new one that ``fill`` has put its first value into.

    A process has one share for a name, however often it opens it.
    """
    lease_s = timeout_s(lease)
    if not lease_s:
        raise ValueError(f"lease is a number of seconds, more than 0; not {lease!r}")
    place = finding.place_of(where, lease_s, secret)
    if create is not None and not isinstance(create, bool):
        raise TypeError(f"create is True, False, or None for either; not {create!r}")
    if durable and place.is_name:
        raise ValueError(
            f"a name is gone when the machine starts again: give durable=True a path, such as "
            f'"./{place.entry}"'
        )
    ceiling = None if max_size is None else size_bytes(max_size)
    seconds = timeout_s(timeout)

    def bind(store: Any) -> S:
        shared = cls.__new__(cls)
        shared._bind(store, seconds)
        return shared

    def make(new: Callable[..., Any]) -> S:
        shared = bind(cls._new_store(new, ceiling or size_bytes(_MAX_SIZE)))
        try:
            fill(shared)
            if durable:
                shared._store.be_durable()
            registry.register(shared)  # Before it has its name: another thread may find it by that.
        except BaseException:
            shared.close()
            raise
        return shared

    found, made = finding.find_or_make(place, create, make, durable)
    if found is None:
        assert made is not None
        return made
    opened = _opened(cls, place, found, ceiling, bind)
    if durable:
        opened._store.be_durable()
    return opened


def _opened(
    cls: type[S],
    place: Any,
    found: Any,
    ceiling: int | None,
    bind: Callable[[Any], S],
) -> S:
    try:
        store = cls._open_store(found)
    except BaseException:
        found.close()
        raise
    shared = None
    try:
        if store.content != cls._content:
            raise OpenError(f"{place} is a {store.content}: open it with {store.content}.open()")
        if ceiling not in {None, store.max_size}:
            raise OpenError(
                f"share {place} has max_size {store.max_size:,}, and {ceiling:,} was asked for. "
                "What is there stands: leave max_size out, or unlink() the share first"
            )
        shared = registry.adopt(store, bind)
        if shared._store is not store and not shared._store.is_at(store):
            raise OpenError(
                f"{place} is a copy of {shared.address}, which is open here; this process can "
                "have one of the two. Copy the file itself, not its file system"
            )
        if not isinstance(shared, cls):
            raise OpenError(
                f"share {place} is open in this process already, as a {type(shared).__name__}"
            )
        return shared
    finally:
        if shared is None or shared._store is not store:
            store.close()
