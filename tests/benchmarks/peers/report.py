"""The cells in words: one Markdown table, and below it what one must know to read it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import median

from tests.benchmarks.peers.driver import Cell
from tests.benchmarks.peers.peer import peer_class, version_of
from tests.benchmarks.peers.rows import BACK_S, ROWS
from tests.benchmarks.table import duration, machine

Table = Mapping[str, Mapping[str, Cell]]
"""By row and peer."""
COMMAND = "python -m tests.benchmarks.peers"
OURS = "mmapshare"
BRIEF_ROWS = (
    "block: add 1 to it", "block by 4 processes at once", "change one of 1 000 keys",
    "get a numpy array, 256 MiB", "set, until a waiting process has seen it",
    "kill -9 within a block of two changes",
)  # fmt: skip
BRIEF_PEERS = ("mmapshare", "naive", "Value & Co", "Manager", "lmdb", "redis", "UltraDict2")
"""What of it is in the project's README."""


def ratio(cell: Cell) -> float | None:
    """To the floor, the median over the rounds; None where nothing was measured."""
    if cell.said or not cell.results or "floor" not in cell.results[0]:
        return None
    return median(result["s"] / result["floor"] for result in cell.results)


def lost(cell: Cell) -> tuple[int, int]:
    """How many updates are not in the sum, and of how many."""
    last = cell.results[-1] if cell.results else {}
    return last.get("lost", 0), last.get("of", 0)


def markdown(table: Table, missing: Mapping[str, str] | None = None) -> str:
    """The table with its footnotes; `missing` are peers that there was nothing to measure of."""
    notes: list[str] = []
    peers = list(next(iter(table.values())))
    head = ["", "floor", *[_noted(peer, _about(peer), notes) for peer in peers]]
    lines = [head]
    for row, cells in table.items():
        texts = [_text(row, peer, cell, notes) for peer, cell in cells.items()]
        lines.append([ROWS[row].title, _floor(cells), *texts])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "| " + " | ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rows.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    listed = [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join([*rows, "", *listed, *_closing(peers, missing or {})])


def excerpt(text: str) -> str:
    """A few rows and columns of what `markdown` has made, and the machine."""
    lines = [
        [re.sub("<sup>.*?</sup>", "", cell).strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    head, by_title = lines[0], {line[0]: line for line in lines[2:]}
    columns = [0, *[n for n, name in enumerate(head) if name in BRIEF_PEERS]]
    rows = [head, ["---"] * len(head), *[by_title[title] for title in BRIEF_ROWS]]
    brief = ["| " + " | ".join(row[n] for n in columns) + " |" for row in rows]
    (where,) = re.findall(r"^(CPython .*?);", text, re.MULTILINE)
    return "\n".join([*brief, "", f"{where}."])


def _about(peer: str) -> str:
    notes = peer_class(peer).notes
    return f"{peer}: {notes}." if notes else ""


def _closing(peers: Sequence[str], missing: Mapping[str, str]) -> list[str]:
    lines = [f"\nNot measured: {peer} ({why})." for peer, why in missing.items()]
    versions = {peer: version_of(peer) for peer in peers}
    named = ", ".join(f"{peer} {found}" for peer, found in versions.items() if found)
    return [*lines, f"\n{machine()}; {named}."]


def _noted(text: str, note: str, notes: list[str]) -> str:
    if not note:
        return text
    if note not in notes:
        notes.append(note)
    return f"{text}<sup>{notes.index(note) + 1}</sup>"


def _floor(cells: Mapping[str, Cell]) -> str:
    for cell in cells.values():
        if ratio(cell) is not None:
            return duration(median(result["floor"] for result in cell.results))
    return ""


def _text(row: str, peer: str, cell: Cell, notes: list[str]) -> str:
    if cell.lacks:
        return cell.said
    # What anybody can run to see it.
    seen = f"`{COMMAND} {peer!r} {row}`" if " " in peer else f"`{COMMAND} {peer} {row}`"
    named = f"{peer} {version_of(peer)}".strip()
    if cell.hangs or cell.fails:
        word = "**hangs**" if cell.hangs else "**fails**"
        return _noted(word, f"{named}: {cell.said} ({seen}).", notes)
    off, of = lost(cell)
    if off:
        note = f"{named}: the sum is off by {off:,} of {of:,} ({seen})."
        return _noted(f"**loses {off / of:.2%}**", note, notes)
    if ROWS[row].by_floor:
        return _ratio_text(peer, cell)
    return {"held": _held_text, "kill": _kill_text, "kill-set": _kill_set_text}[row](cell)


def _ratio_text(peer: str, cell: Cell) -> str:
    found = ratio(cell)
    assert found is not None
    if peer != OURS:
        return number(found)
    return f"**{number(found)}** ({duration(median(result['s'] for result in cell.results))})"


def _held_text(cell: Cell) -> str:
    if any("waits" in result for result in cell.results):
        return "waits"
    return f"{number(median(result['s'] for result in cell.results))} of free"


def _kill_text(cell: Cell) -> str:
    times = [result["s"] for result in cell.results]
    never = None in times
    states = {result["state"] for result in cell.results}
    state = next(name for name in ("unreadable", "torn", "whole") if name in states)
    back = f"not within {BACK_S:g} s" if never else f"back in {duration(median(times))}"
    return f"**{back}**, {_stressed(state)}" if never else f"{back}, {_stressed(state)}"


def _stressed(state: str) -> str:
    return state if state == "whole" else f"**{state}**"


def _kill_set_text(cell: Cell) -> str:
    found = cell.results[-1]
    torn = f"**torn {found['torn']} times**" if found["torn"] else "whole"
    stuck = f"**{found['stuck']} after {found['kills']}**" if found["stuck"] else ""
    return stuck if stuck and not found["torn"] else ", ".join(filter(None, [torn, stuck]))


def number(figure: float) -> str:
    """Two digits that count, and spaces between thousands."""
    if figure < 10:
        return f"{figure:.2g}" if figure < 1 else f"{figure:.1f}"
    return f"{float(f'{figure:.2g}'):,.0f}".replace(",", " ")
