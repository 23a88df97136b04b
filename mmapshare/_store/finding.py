"""What `Share.open` takes: a name or a path of this machine, or the URL of a share on a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .._late import importing
from . import named
from .address import Address, address_of

M = TypeVar("M", bound=named.Made)


def place_of(where: object, lease_s: float, secret: str | bytes | None) -> Any:
    """The address that a user has written; TypeError or ValueError where it is none."""
    if isinstance(where, str) and "://" in where:
        with importing:
            from .redis import address

        return address.address_of(where, lease_s, address.secret_of(secret))
    if secret is not None:
        raise ValueError(
            "secret= signs what a server has; a name or a path is this user's alone already"
        )
    return address_of(where)


def listing(url: str | None) -> list[named.ListedShare]:
    """The named shares of this user, or those that a server has."""
    if url is None:
        return named.listing()
    with importing:
        from .redis import address, opening

    return opening.listing(address.server_of(url))


def find(place: Any) -> Any:
    """What is there, to open a store in; None where there is nothing."""
    if isinstance(place, Address):
        return named.find(place)
    with importing:
        from .redis import opening

    return opening.find(place)


def find_or_make(
    place: Any, create: bool | None, make: Callable[[Callable[..., Any]], M], durable: bool
) -> tuple[Any, M | None]:
    """What is there, or what ``make`` has made, which is found there by then.

    ``make`` is given what makes a new store: of a kind over memory, and with what its ``create_in``
    takes after the memory. See `named.find_or_make`.
    """
    if isinstance(place, Address):

        def make_in(memory: Callable[[int], Any]) -> M:
            return make(lambda kind, *rest: kind.create_in(memory, *rest))

        return named.find_or_make(place, create, make_in, durable)
    with importing:
        from .redis import opening

    return opening.find_or_make(place, create, make)
