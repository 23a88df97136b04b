"""How it is printed: plain text for all that reads it, `rich`'s where a person looks at it."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from .._late import importing

_RIGHT: Final = {"version", "used", "resident", "held", "waiters", "commits/s", "waits/s", "dead"}
_STYLES: Final = {"where": "bold", "holder": "yellow", "waiters": "yellow", "dead": "red"}
_CUT: Final = ("value", "users")
"""What is cut off where the line is full, and then to how much."""
_CUT_TO: Final = 12
_LEFT_OUT: Final = (
    "resident", "kind", "users", "used", "version", "held", "dead", "waiters", "what",
)  # fmt: skip
"""What goes next."""
_CUT_LAST: Final = ("holder", "where")
_GAP: Final = 2

Row = Mapping[str, str]


def clean(text: str) -> str:
    """Text that moves no cursor, whatever it came from."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def as_json_line(found: Any) -> None:
    """One line of JSON, on its way at once."""
    print(json.dumps(found), flush=True)


def table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Rows under the names of their columns; a column that has nothing is left out."""
    grid = Grid(rows, columns)
    rich = _rich()
    if rich is not None:
        rich.print(grid.rich())
    else:
        print(grid.plain())


class Grid:
    """Cells, ready to be printed; where a terminal is too narrow for all, what matters most."""

    def __init__(self, rows: Sequence[Row], columns: Sequence[str]) -> None:
        self.names = [name for name in columns if any(row.get(name) for row in rows)]
        cells = [{name: clean(row.get(name, "")) for name in self.names} for row in rows]
        self.widths = {
            name: max(len(name), *(len(row[name]) for row in cells)) for name in self.names
        }
        self._width: int | None = None
        if sys.stdout.isatty():
            self._width = shutil.get_terminal_size().columns
            self._fit(self._width)
        self.rows = [
            {name: _cut(row[name], self.widths[name]) for name in self.names} for row in cells
        ]

    def _fit(self, width: int) -> None:
        widths, wished = self.widths, dict(self.widths)

        def too_wide() -> int:
            return sum(widths[name] + _GAP for name in self.names) - _GAP - width

        for name in filter(widths.__contains__, _CUT):
            widths[name] = max(widths[name] - max(too_wide(), 0), min(widths[name], _CUT_TO))
        for name in filter(widths.__contains__, _LEFT_OUT):
            if too_wide() > 0:
                self.names.remove(name)
        for name in filter(widths.__contains__, _CUT_LAST):
            widths[name] = max(widths[name] - max(too_wide(), 0), min(widths[name], _CUT_TO))
        if "value" in widths:
            widths["value"] = min(wished["value"], widths["value"] + max(-too_wide(), 0))

    def plain(self) -> str:
        """As text."""
        lines = [dict(zip(self.names, self.names, strict=True)), *self.rows]
        drawn = [(" " * _GAP).join(map(self._padded, line.items())).rstrip() for line in lines]
        return "\n".join(line[: self._width] for line in drawn)

    def _padded(self, cell: tuple[str, str]) -> str:
        name, text = cell
        width = self.widths[name]
        return text.rjust(width) if name in _RIGHT else text.ljust(width)

    def rich(self) -> Any:
        """As rich draws it."""
        with importing:
            from rich.table import Table
            from rich.text import Text
        made = Table(box=None, header_style="dim", pad_edge=False, padding=(0, _GAP, 0, 0))
        for name in self.names:
            made.add_column(
                Text(name),
                justify="right" if name in _RIGHT else "left",
                style=_STYLES.get(name),
                no_wrap=True,
                width=self.widths[name],
            )
        for row in self.rows:
            made.add_row(*map(Text, row.values()))
        return made


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def facts(found: Mapping[str, str]) -> None:
    """Names and facts, one a line."""
    width = max(map(len, found))
    for name, fact in found.items():
        print(f"{name:{width}}  {clean(fact)}")


class Screen:
    """A table that is drawn anew in one place; where nobody looks, one below the other."""

    def __init__(self, live: Any) -> None:
        self._live = live

    def draw(self, rows: Sequence[Row], columns: Sequence[str]) -> None:
        """Show these now."""
        if self._live is not None:
            self._live.update(Grid(rows, columns).rich(), refresh=True)
            return
        start = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
        print(f"{start}{Grid(rows, columns).plain()}", flush=True)


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """One for as long as the block runs."""
    rich = _rich()
    if rich is None:
        yield Screen(None)
        return
    with importing:
        from rich.live import Live
    with Live(console=rich, auto_refresh=False, screen=True) as live:
        yield Screen(live)


def _rich() -> Any:
    """rich's console; None where there is none, or nobody looks."""
    if not sys.stdout.isatty():
        return None
    try:
        with importing:
            from rich.console import Console
    except ImportError:
        return None
    return Console(highlight=False)
