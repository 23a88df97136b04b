"""``watch`` and ``top``: shares as they change."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from typing import Any, Final

from .._codec import placeholders
from .._display import ITEMS, shortened
from ..errors import StoreLostError
from . import output, reading
from .facts import Facts
from .finding import again, blocked, everything, one
from .found import File, Found
from .looking import Seen, cells, chosen_of, holder, see
from .servers import OnServer

_KEYS_COMPARED_MOST: Final = 10_000
_RATED: Final = (
    "where", "what", "holder", "waiters", "commits/s", "waits/s", "used", "resident", "held",
    "dead", "users",
)  # fmt: skip


def watch(where: str, seconds: float | None, times: int | None, as_json: bool) -> int:
    """Print a line for each version that is seen, until the share ends."""
    found = one(where)
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    with found.open() as region:
        changes = _Changes(region)
        before = -1
        while times is None or times > 0:
            ended = _has_ended(region, found)  # Asked first: its last version is told then.
            # What a server has lost: whether it has ended, or went back, is told below.
            with contextlib.suppress(StoreLostError):
                if region.version != before:
                    version, value = changes.told()
                    commits = version - before if before >= 0 else 0
                    _say(value, found.facts(region), version, commits, as_json)
                    before = version
                    if times is not None:
                        times -= 1
                    continue
            if ended:
                if not as_json:
                    print("it has ended")
                return 0
            left = deadline - time.monotonic()
            if left <= 0:
                return 0
            with contextlib.suppress(StoreLostError):
                region.nap(before, left)
    return 0


def _has_ended(region: Any, found: Found) -> bool:
    """Whether nobody can commit to it any more, by a name or because somebody has it open."""
    if isinstance(found, OnServer):
        return not found.stands(region)
    if found.has_name:
        return region.is_over(is_name=False) or not region.status().st_nlink
    if _file_at(found.path) == found.file:
        return False
    opened = again(found)  # The process has ended through which it was found.
    if opened is not None:
        found.path = opened.path
    return opened is None


def _file_at(path: str) -> File | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _say(value: str, facts: Facts, version: int, commits: int, as_json: bool) -> None:
    if as_json:
        held = {"holder_pid": facts.holder_pid}
        output.as_json_line({"time": time.time(), "version": version, "value": value, **held})
        return
    missed = f" (of {commits:,} since)" if commits > 1 else ""
    held_by = f"  held by {holder(facts)}" if facts.holder_pid else ""
    now = time.strftime("%H:%M:%S")
    print(output.clean(f"{now}  version {version:,}{missed}  {value}{held_by}"), flush=True)


class _Changes:
    """What is new since the last look: the value, or of a dict the keys that changed."""

    def __init__(self, region: Any) -> None:
        self._region = region
        self._store: Any = None
        self._places: dict[Any, Any] | None = None
        self._epoch: Any = None

    def told(self) -> tuple[int, str]:
        """A version, the newest, and what is new in it."""
        if not self._region.has_keys:
            return reading.versioned(self._region)
        if self._store is None:
            self._store = self._region.store(placeholders, reading.SHOWN_MOST)
        found: tuple[int, str] = self._store.read(lambda state: (state.version, self._keys(state)))
        return found

    def _keys(self, state: Any) -> str:
        before, places = self._places, state.places
        same_area = self._epoch == state.epoch
        self._epoch = state.epoch
        count = f"{len(places):,} key{'' if len(places) == 1 else 's'}"
        if len(places) > _KEYS_COMPARED_MOST:
            self._places = None
            return count
        self._places = dict(places)
        if before is None or not same_area:
            return reading.keys_in_a_line(self._store, state)
        gone = [f"-{shortened(key)}" for key in before if key not in places]
        changed = [key for key in places if before.get(key) != places[key]]
        said = [
            f"{shortened(key)}: {reading.sketched_in_a_line(self._store, state, key)}"
            for key in changed[:ITEMS]
        ]
        if len(changed) > ITEMS:
            said.append(f"... {len(changed) - ITEMS:,} more")
        return f"{count}; {', '.join([*said, *gone[:ITEMS]])}"


def top(where: list[str], every: float, times: int | None, as_json: bool) -> int:
    """Show shares, those that change most first, again and again."""
    rounds = _rounds(where, every, times)
    if as_json:
        for rows, rates in rounds:
            output.as_json_line({"time": time.time(), "shares": _as_json(rows, rates)})
        return 0
    with output.screen() as screen:
        for rows, rates in rounds:
            shown = [_cells(seen, rates) for seen in rows]
            screen.draw(shown or [{"where": "no shares"}], _RATED)
    return 0


Rates = dict[str, tuple[float, float]]
"""Commits and contended waits a second, by region."""


def _rounds(
    where: list[str], every: float, times: int | None
) -> Iterator[tuple[list[Seen], Rates]]:
    before: dict[str, tuple[float, int, int]] = {}
    while times is None or times > 0:
        waiters = blocked()
        rates, last, before = {}, before, {}
        chosen = chosen_of(where) if where else everything()[0]
        rows = [seen for found in chosen if (seen := see(found, waiters, with_value=False))]
        for seen in rows:
            if seen.facts is not None:
                key, facts = seen.key, seen.facts
                before[key] = now = time.monotonic(), facts.version, facts.contended_waits
                then = last.get(key, now)
                took = max(now[0] - then[0], 1e-9)
                rates[key] = (now[1] - then[1]) / took, (now[2] - then[2]) / took
        rows.sort(key=lambda seen: -rates.get(seen.key, (-1.0, 0.0))[0])
        yield rows, rates
        if times is not None:
            times -= 1
        if times != 0:
            time.sleep(every)


def _cells(seen: Seen, rates: Rates) -> dict[str, str]:
    row = cells(seen)
    if seen.facts is not None:
        commits, waits = rates[seen.key]
        row |= {"commits/s": f"{commits:,.0f}", "waits/s": f"{waits:,.0f}" if waits else ""}
    return row


def _as_json(rows: list[Seen], rates: Rates) -> list[dict[str, Any]]:
    found = []
    for seen in rows:
        commits, waits = rates.get(seen.key, (None, None))
        found.append(seen.as_json() | {"commits_per_s": commits, "waits_per_s": waits})
    return found
