"""``rm``: takes a share's name away."""

from __future__ import annotations

import sys

from .. import _proc
from ..errors import OpenError
from . import output
from .finding import one, users_of


def rm(where: str, yes: bool, as_json: bool) -> int:
    """Remove a named share, a durable file or what a server has, once that was agreed to."""
    found = one(where)
    if not found.has_name:
        raise OpenError(f"{where} has no name that could be taken away: it ends with its users")
    where = found.where if "://" in where else where  # Which may have a password.
    users = found.users or users_of(found)
    if not yes and not _agreed(where, users):
        print("not removed", file=sys.stderr)
        return 1
    found.remove()
    if as_json:
        output.as_json_line({"removed": where, "users": users})
    else:
        print(f"removed {output.clean(where)}{_open_in(users)}")
    return 0


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
