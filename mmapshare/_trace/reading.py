"""A recording: what processes wrote to a folder, put together."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from typing import Any, Final

import attrs

from .recorder import HOLD, NAMES

_RECORD: Final = struct.Struct("<8Q")


@attrs.frozen
class Event:
    """One thing that happened to a share; all times in nanoseconds of the monotonic clock.

    Attributes:
        kind: one of `_trace.recorder`'s.
        share: the begin of its region's id.
        begun: when the wait or sleep began; of a hold equal to ``got`` where there was no wait.
        got: when the lock was got; 0 where it was not.
        ended: when it was over.
        is_whole: the end is known; else a killed process wrote none, and it is a guess.
        site: file, line and function; None where they are not known.
        before, after: versions; of a found death ``before`` is the pid.
    """

    kind: int
    pid: int
    thread: int
    share: str
    begun: int
    got: int
    ended: int
    is_whole: bool
    site: tuple[str, int, str] | None
    before: int
    after: int

    @property
    def commits(self) -> int:
        """How many versions a hold has made."""
        return max(self.after - self.before, 0) if self.kind == HOLD and self.after else 0

    @property
    def where(self) -> str:
        """The place in the program, for people."""
        if self.site is None:
            return "?"
        file, line, function = self.site
        return f"{os.path.basename(file)}:{line} {function}"


@attrs.frozen
class Recording:
    """What was recorded, in the order of its beginnings.

    Attributes:
        processes: what each pid is called.
        names: what each share is called.
    """

    processes: dict[int, str]
    names: dict[str, str]
    events: list[Event]

    @property
    def began(self) -> int:
        return min((event.begun for event in self.events), default=0)

    @property
    def ended(self) -> int:
        return max((event.ended for event in self.events), default=0)

    def holds(self) -> list[Event]:
        """The times that locks were held."""
        return [event for event in self.events if event.kind == HOLD]


def read(folder: str, since: int = 0) -> Recording:
    """What processes have written to a folder until now, whether or not they have ended.

    ``since``: only what ended later, by the monotonic clock's nanoseconds.
    """
    processes: dict[int, str] = {}
    names: dict[str, str] = {}
    events: list[Event] = []
    for entry in sorted(os.listdir(folder)):
        if entry.endswith(NAMES):
            stem = os.path.join(folder, entry.removesuffix(NAMES))
            pid, process, numbers = _names(stem + NAMES)
            processes[pid] = process
            for each in numbers.values():
                if "share" in each:
                    names[each["share"]] = each["name"] or each["share"]
            events += [_event(words, pid, numbers) for words in _records(stem)]
    events = [event for event in _with_ends(events) if event.ended >= since]
    seen = {event.pid for event in events}
    return Recording({pid: name for pid, name in processes.items() if pid in seen}, names, events)


def _names(path: str) -> tuple[int, str, dict[int, Any]]:
    """The pid, what the process is called, and what its numbers mean."""
    numbers: dict[int, Any] = {}
    said: dict[str, Any] = {"pid": 0, "process": "python"}  # Until it has said so.
    with open(path, "rb") as file:
        for line in file.read().split(b"\n")[:-1]:  # Who was killed has ended within the last.
            found = json.loads(line)
            if "number" in found:
                numbers[found["number"]] = found
            else:
                said |= found
    return said["pid"], said["process"], numbers


def _records(stem: str) -> Iterator[tuple[int, ...]]:
    page = 0
    while os.path.exists(path := f"{stem}.{page}"):
        with open(path, "rb") as file:
            raw = file.read()
        yield from (words for words in _RECORD.iter_unpack(raw) if words[5])
        page += 1


def _event(words: tuple[int, ...], pid: int, numbers: dict[int, Any]) -> Event:
    thread, begun, got, site, before, kind, after, ended = words
    place = numbers.get(site)
    return Event(
        kind=kind & 0xFF,
        pid=pid,
        thread=thread,
        share=numbers[kind >> 8]["share"],
        begun=begun or got,
        got=got,
        ended=ended,
        is_whole=bool(ended),
        site=place and (place["file"], place["line"], place["function"]),
        before=before,
        after=after,
    )


def _with_ends(events: list[Event]) -> list[Event]:
    """All in order; a hold without an end has ended when the next one had the lock, at the latest.

    What nobody has had since is held to this day.
    """
    last = max((event.ended or event.got for event in events), default=0)
    following: dict[str, int] = {}
    found = []
    for event in sorted(events, key=lambda event: event.got or event.begun, reverse=True):
        end = event.ended or following.get(event.share, last)
        found.append(attrs.evolve(event, ended=end))
        if event.kind == HOLD:
            following[event.share] = event.got
    return found[::-1]
