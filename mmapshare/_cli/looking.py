"""``ls``, ``show`` and ``get``: how shares stand, and what is in them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from .. import _proc
from .._display import size
from ..errors import MmapShareError, ShareNotFoundError
from . import output, reading
from .facts import Facts
from .finding import Others, blocked, everything, one, shares_of, users_of
from .found import File, Found

LISTED: Final = (
    "where", "kind", "what", "version", "used", "resident", "held", "holder", "waiters",
    "dead", "users", "value",
)  # fmt: skip
_PIDS_SHOWN: Final = 4


@attrs.define
class Seen:
    """A share as it was at one moment; without facts where it could not be read."""

    found: Found
    facts: Facts | None = None
    value: str = ""
    trouble: str = ""
    waiters: list[int] | None = None

    @property
    def key(self) -> str:
        """What tells it from others, copies of it and what has its name later."""
        return f"{self.found.where} {self.facts and self.facts.region_id}"

    def as_json(self) -> dict[str, Any]:
        """Names and plain data."""
        said: dict[str, Any] = {
            "where": self.found.where,
            "kind": self.found.kind,
            "has_name": self.found.has_name,
            "users": None if self.found.is_remote else self.found.users,
            "waiters": self.waiters,
        }
        if self.facts is None:
            return said | {"trouble": self.trouble}
        return said | attrs.asdict(self.facts) | {"value": self.value}


def see(found: Found, waiters: Mapping[File, list[int]] | None, with_value: bool) -> Seen | None:
    """Look at a share; None where it has ended meanwhile."""
    seen = Seen(found)
    if waiters is not None and not found.is_remote:
        seen.waiters = waiters.get(found.file, [])
    try:
        with found.open() as region:
            seen.facts = found.facts(region)
            if with_value:
                seen.value = reading.in_a_line(region)
    except (FileNotFoundError, ProcessLookupError, ShareNotFoundError):
        return None
    except (OSError, MmapShareError) as err:
        seen.trouble = str(err)
        seen.value = f"not shown: {type(err).__name__}: {err}"  # If there are facts beside it.
    return seen


def cells(seen: Seen) -> dict[str, str]:
    """A row of a table."""
    found, facts = seen.found, seen.facts
    row = {"where": found.where, "kind": found.kind, "users": pids(found.users)}
    if facts is None:
        return row | {"value": seen.trouble}
    return row | {
        "what": facts.what,
        "version": f"{facts.version:,}",
        "used": size(facts.used_bytes),
        "resident": size(facts.resident_bytes),
        "held": size(facts.held_bytes) if facts.held_bytes else "",
        "holder": holder(facts),
        "waiters": str(len(seen.waiters)) if seen.waiters else "",
        "dead": f"{facts.holders_found_dead:,}" if facts.holders_found_dead else "",
        "value": seen.value,
    }


def holder(facts: Facts) -> str:
    """Who has the lock, and for how long; nothing where it is free."""
    if facts.holder_pid is None:
        return ""
    who = _proc.called(facts.holder_pid)
    if facts.holder_host is not None:
        who = f"pid {facts.holder_pid} on {facts.holder_host}"
    return f"{who}, {facts.held_s:.1f} s"


def held(facts: Facts) -> str:
    """What processes hold without a copy; nothing where they hold nothing."""
    if not facts.held_bytes:
        return ""
    processes = "process" if facts.held_by == 1 else "processes"
    return f"{size(facts.held_bytes)} by {facts.held_by or 'some'} {processes}"


def pids(found: Sequence[int]) -> str:
    """Processes, or how many there are."""
    if len(found) > _PIDS_SHOWN:
        return f"{len(found)} processes"
    return " ".join(map(str, found))


# --- The commands ----------------------------------------------------------------------------


def ls(where: list[str], as_json: bool) -> int:
    """List shares."""
    if where:
        chosen, others = chosen_of(where), None
        for found in chosen:
            found.users = found.users or users_of(found)
    else:
        chosen, others = everything()
    waiters = blocked()
    rows = [seen for found in chosen if (seen := see(found, waiters, with_value=True))]
    if as_json:
        beside = {} if others is None else {"others": attrs.asdict(others)}
        output.as_json_line({"shares": [seen.as_json() for seen in rows], **beside})
    elif rows:
        output.table([cells(seen) for seen in rows], LISTED)
    else:
        print("no shares")
    return 0 if others is None else _say_of_others(others)


def chosen_of(where: list[str]) -> list[Found]:
    """The shares of these addresses."""
    return [found for each in where for found in shares_of(each)]


def _say_of_others(others: Others) -> int:
    """What is not in the list; the exit code."""
    if others.shares:
        print(f"{others.shares:,} shares of other users", file=sys.stderr)
    if others.processes:
        print(f"{others.processes:,} processes may not be looked into", file=sys.stderr)
    if others.names is None:
        return 0
    print(f"mmapshare: {others.names}", file=sys.stderr)
    return 1


def show(where: str, as_json: bool) -> int:
    """Tell all that is known of one share."""
    found = one(where)
    found.users = found.users or users_of(found)
    seen = see(found, blocked(), with_value=True)
    if seen is None or seen.facts is None:
        raise MmapShareError(f"{where}: {seen.trouble if seen else 'it has ended just now'}")
    if as_json:
        output.as_json_line(seen.as_json())
        return 0
    facts = seen.facts
    said = {
        "where": found.where,
        "kind": f"{facts.what}, {_KINDS[found.kind]}{'' if found.has_name else _NO_NAME}",
        "value": seen.value,
        "version": f"{facts.version:,}",
        "used": f"{size(facts.used_bytes)} of {size(facts.max_size)}",
        "resident": size(facts.resident_bytes),
        "held without a copy": held(facts),
        "held by": holder(facts) or "nobody",
        "holder waits for": facts.waits_for or "",
        "waiting": ", ".join(map(_proc.called, seen.waiters or [])),
        "contended waits": f"{facts.contended_waits:,}",
        "holders found dead": f"{facts.holders_found_dead:,}",
        "open in": ", ".join(map(_proc.called, found.users)),
        "durable": _durable(facts),
        "region": facts.region_id,
        "file": "" if found.is_remote else found.path,
    }
    output.facts({name: fact for name, fact in said.items() if fact})
    return 0


_KINDS: Final = {
    "name": "by name",
    "path": "in a file",
    "memfd": "anonymous",
    "file": "anonymous, in a private file",
    "redis": "on a server",
}
_NO_NAME: Final = "; nobody finds it by name"


def _durable(facts: Facts) -> str:
    if facts.is_refused:
        return "the disk has refused a commit: nothing more is written"
    return "yes, each commit waits for the disk" if facts.is_durable else ""


def get(where: str, key: str | None, load: bool, as_json: bool) -> int:
    """Print a value."""
    found = one(where)
    with found.open() as region:
        if load:
            found.check_trust(region)
            sys.path.insert(0, os.getcwd())  # As `python -m` has it: for the value's own classes.
            value = reading.loaded(region, key)
        else:
            value = reading.sketched(region, key)
    print(reading.as_json(value) if as_json else repr(value))
    return 0
