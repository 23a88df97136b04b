"""A recording for people and programs: a table, a Chrome trace, and a picture."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any, Final

from .reading import Event, Recording
from .recorder import CONFLICT, FOUND_DEAD, GAVE_UP, HOLD, SLEEP

_LONGEST: Final = 5
_COUNTED: Final = {
    GAVE_UP: "gave up waiting",
    CONFLICT: "version conflicts",
    FOUND_DEAD: "holders found dead",
    SLEEP: "sleeps until a commit",
}
_HEADS: Final = ("share", "holds", "commits", "waits", "wait p50", "p99", "hold p50", "p99")


def took(ns: float) -> str:
    """A time as people read it."""
    for unit, size in (("s", 1e9), ("ms", 1e6)):
        if ns >= size:
            return f"{ns / size:.2f} {unit}"
    return f"{ns / 1e3:.1f} µs"


def _at(sizes: Sequence[int], part: float) -> int:
    """The size below which that part of all is; 0 where there is none."""
    return sorted(sizes)[int(part * (len(sizes) - 1))] if sizes else 0


def summary(recording: Recording) -> str:
    """A row a share, those that were waited for longest first; and the longest holds.

    ``waits`` says how many of the holds had to wait; ``wait`` is of these alone.
    """
    holds = recording.holds()
    if not holds:
        return "nothing was recorded"
    by_share: dict[str, list[Event]] = defaultdict(list)
    for event in holds:
        by_share[event.share].append(event)

    def waited(share: str) -> int:
        return sum(event.got - event.begun for event in by_share[share])

    rows: list[tuple[str, ...]] = [_HEADS]
    for share in sorted(by_share, key=waited, reverse=True):
        own = by_share[share]
        waits = [event.got - event.begun for event in own if event.got > event.begun]
        held = [event.ended - event.got for event in own]
        rows.append(
            (
                recording.names[share],
                f"{len(own):,}",
                f"{sum(event.commits for event in own):,}",
                f"{len(waits):,}",
                *(took(_at(waits, part)) if waits else "-" for part in (0.5, 0.99)),
                *(took(_at(held, part)) for part in (0.5, 0.99)),
            )
        )
    return "\n".join([*_table(rows), *_counts(recording), "longest holds:", *_longest(recording)])


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([name.ljust(widths[0]), *cells])


def _counts(recording: Recording) -> Iterator[str]:
    for kind, what in _COUNTED.items():
        shares = Counter(event.share for event in recording.events if event.kind == kind)
        if shares:
            each = ", ".join(f"{recording.names[share]} {n:,}" for share, n in shares.most_common())
            yield f"{what}: {each}"


def _longest(recording: Recording) -> Iterator[str]:
    holds = sorted(recording.holds(), key=lambda event: event.got - event.ended)
    for event in holds[:_LONGEST]:
        who = f"{recording.processes[event.pid]} ({event.pid})"
        open_end = "" if event.is_whole else ", and let go never itself"
        held = took(event.ended - event.got)
        yield f"  {held:>9}  {recording.names[event.share]}  {event.where}  {who}{open_end}"


# --- For Perfetto, and chrome://tracing -------------------------------------------------------


def save_chrome(recording: Recording, path: str | os.PathLike[str]) -> None:
    """Write a Chrome trace, whole or not at all."""
    beside = f"{os.fspath(path)}.{os.getpid()}.part"
    try:
        # Letters as they are: at some escapes by number versions of Perfetto refuse all.
        with open(beside, "w", encoding="utf-8", errors="replace") as file:
            file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
            lines = (json.dumps(event, ensure_ascii=False) for event in chrome(recording))
            file.write(",\n".join(lines))
            file.write("\n]}\n")
        os.replace(beside, path)
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise


def chrome(recording: Recording) -> Iterator[dict[str, Any]]:
    """Its events, in the Trace Event Format, of which Perfetto reads a part.

    There spans of one track may lie within one another, and must not cross. So a track is for one
    share in one thread, and tasks of a thread that wait side by side have several. No track has a
    process's number, which would be taken for that one's main thread.
    """
    began, track = recording.began, max(recording.processes, default=0)
    for pid, name in recording.processes.items():
        yield _named("process_name", name, {"pid": pid, "tid": pid})
    threads: dict[tuple[int, int], int] = {}
    tracks: dict[tuple[int, int, str], list[tuple[int, int]]] = defaultdict(list)
    for event in sorted(recording.events, key=lambda event: event.begun):
        own = tracks[event.pid, event.thread, event.share]
        name = recording.names[event.share]
        at = next((n for n, (_, end) in enumerate(own) if end <= event.begun), len(own))
        place = {"pid": event.pid, "tid": own[at][0] if at < len(own) else track + 1}
        if at == len(own):
            track += 1
            own.append((track, 0))
            number = sum(pid == event.pid for pid, _ in threads) + 1
            thread = threads.setdefault((event.pid, event.thread), number)
            beside = f" ({at + 1})" if at else ""
            yield _named("thread_name", f"{name}, thread {thread}{beside}", place)
        own[at] = place["tid"], event.ended
        yield from _chrome(event, name, place, began)


def _named(what: str, name: str, place: dict[str, int]) -> dict[str, Any]:
    return {"ph": "M", "name": what, "ts": 0, **place, "args": {"name": name}}


def _us(ns: int) -> float:
    """Microseconds as they are read: times a thousand, and cut off. Spans that met would cross."""
    return (ns + 0.2) / 1e3 if ns % 1000 else ns // 1000


def _chrome(event: Event, name: str, place: dict[str, int], began: int) -> Iterator[dict[str, Any]]:
    def span(what: str, start: int, end: int, **more: Any) -> dict[str, Any]:
        times = {"ts": _us(start - began), "dur": _us(end - start)}
        args = {"args": {"at": event.where, **more}}
        return {"ph": "X", "name": f"{what} {name}", "cat": what, **times, **place, **args}

    def moment(what: str, at: int, **more: Any) -> dict[str, Any]:
        about = {"ts": _us(at - began), "args": {"at": event.where, **more}}
        return {"ph": "i", "s": "t", "name": f"{what} {name}", "cat": what, **about, **place}

    if event.kind == HOLD:
        if event.got > event.begun:
            yield span("wait", event.begun, event.got)
        yield span("hold", event.got, event.ended, commits=event.commits, whole=event.is_whole)
        if event.commits:
            yield moment("commit", event.ended, version=event.after)
    elif event.kind == SLEEP:
        yield span("sleep", event.begun, event.ended, woken=event.after != event.before)
    elif event.kind == GAVE_UP:
        yield span("gave up", event.begun, event.ended)
    elif event.kind == CONFLICT:
        yield moment("conflict", event.ended)
    else:
        yield moment("found dead", event.ended, dead_pid=event.before)


# --- The picture ------------------------------------------------------------------------------

_WIDTH, _LEFT, _ROW = 900, 170, 26
_AMBER, _GREEN = "#f59e0b", "#22c55e"


def svg(recording: Recording) -> str:
    """A row a process: amber where it waits, green where it holds, a tick a commit.

    What is narrower than a pixel is drawn one pixel wide. It stands on light and on dark.
    """
    began, span = recording.began, max(recording.ended - recording.began, 1)

    def x(at: int) -> int:
        return _LEFT + int((at - began) / span * (_WIDTH - _LEFT - 2))

    parts = []
    for row, (pid, name) in enumerate(recording.processes.items()):
        top = 20 + row * _ROW
        own = [event for event in recording.events if event.pid == pid]
        holds = [event for event in own if event.kind == HOLD]
        waits = [event for event in own if event.kind == GAVE_UP] + holds
        amber = [(x(e.begun), x(e.got or e.ended)) for e in waits if (e.got or e.ended) > e.begun]
        green = [(x(event.got), x(event.ended)) for event in holds]
        ticks = sorted({x(event.ended) for event in holds if event.commits})
        said = f"{name} ({pid})"
        parts.append(
            f'<text x="0" y="{top + 13}">{escape(said[:26])}</text>'
            f'<g fill="{_AMBER}">{_bars(amber, top + 2, 14)}</g>'
            f'<g fill="{_GREEN}">{_bars(green, top + 5, 8)}</g>'
            f'<path d="{"".join(f"M{at + 0.5} {top}v2" for at in ticks)}" stroke="currentColor"/>'
        )
    height = 20 + len(recording.processes) * _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" font-family="sans-serif" font-size="11" fill="currentColor">'
        f"<title>{took(span)}: amber waits, green holds, a tick a commit</title>"
        f'<text x="{_LEFT}" y="11">0</text>'
        f'<text x="{_WIDTH}" y="11" text-anchor="end">{took(span)}</text>{"".join(parts)}</svg>\n'
    )


def _bars(spans: Iterable[tuple[int, int]], top: int, height: int) -> str:
    """Bars for spans of pixels, those that touch as one."""
    joined: list[list[int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1] + 1:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return "".join(
        f'<rect x="{start}" y="{top}" width="{end - start + 1}" height="{height}"/>'
        for start, end in joined
    )
