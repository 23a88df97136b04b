"""``rm``: takes a share's name away."""

from __future__ import annotations

import sys

from .. import _proc
from .._store import address, named
from ..errors import OpenError
from . import output
from .finding import one, users_of


def rm(where: str, yes: bool, as_json: bool) -> int:
    """Remove a named share or a durable file, once that was agreed to."""
    found = one(where)
    if not found.has_name:
        raise OpenError(f"{where} has no name that could be taken away: it ends with its users")
    users = found.users or users_of(found)
    if not yes and not _agreed(where, users):
        print("not removed", file=sys.stderr)
        return 1
    place = address.address_of(found.where)
    segment, _ = named.find_or_make(place, False, _Never)
    assert segment is not None
    try:
        named.unlink(segment)
    finally:
        segment.close()
    if as_json:
        output.as_json_line({"removed": where, "users": users})
    else:
        print(f"removed {output.clean(where)}{_open_in(users)}")
    return 0


class _Never:
    """What would be made where there is nothing."""

    def __init__(self, memory: object) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def _agreed(where: str, users: list[int]) -> bool:
    """Ask; without an answer it is no."""
    question = f"remove {output.clean(where)}{_open_in(users)}? [y/N] "
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _open_in(users: list[int]) -> str:
    if not users:
        return ""
    who = output.clean(", ".join(map(_proc.called, users)))
    return f" (open in {who}: who has it goes on with it, who opens the name makes a new one)"
