"""The ratios as a picture: one line a row, one mark a tool, on a logarithmic scale.

Written by hand, without script. Its colours can be read on white and on black; the text's follow
the reader's theme.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10

from tests.benchmarks.peers.report import OURS, Table, lost, ratio
from tests.benchmarks.peers.rows import ROWS

WIDTH, LEFT, RIGHT, ROW, LEGEND, FOOT = 900, 270, 24, 24, 22, 44
LEGEND_COLUMNS, LEGEND_LEFT = 6, 20
COLOURS = (
    *("#d6336c", "#7d8590", "#b08800", "#8250df", "#1f883d", "#bf6a1f"),
    *("#c9372c", "#0a84c1", "#2aa198", "#9a6fb0", "#6b8e23", "#a0522d"),
)
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #57606a }
.grid { stroke: #8b949e; stroke-opacity: 0.35 }
.floor { stroke: #8b949e; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) { text { fill: #9ea7b3 } }
"""


def svg(table: Table) -> str:
    """The rows that are ratios to the floor; who loses updates there has no mark."""
    rows = [row for row in table if ROWS[row].by_floor]
    peers = list(next(iter(table.values())))
    found = {
        (row, peer): value
        for row in rows
        for peer in peers
        if (value := ratio(table[row][peer])) and not lost(table[row][peer])[0]
    }
    low, high = _decades(list(found.values()))
    top = LEGEND * (ceil(len(peers) / LEGEND_COLUMNS) + 1)
    bottom = top + ROW * len(rows)

    def x(value: float) -> float:
        return LEFT + (log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = [_legend(peers)]
    for decade in range(low, high + 1):
        parts += _grid_line(x(10.0**decade), decade, top, bottom)
    for place, row in enumerate(rows):
        y = top + ROW * (place + 0.5)
        parts.append(_text(LEFT - 12, y + 4, ROWS[row].title, "end"))
        # Ours last: on top of the others.
        for peer in sorted(peers, key=lambda peer: peer == OURS):
            if (row, peer) in found:
                title = f"{peer}: {found[row, peer]:.3g}"
                parts.append(_mark(x(found[row, peer]), y, peers.index(peer), peer, title))
    parts.append(
        _text(LEFT, bottom + 36, "times the floor, on a logarithmic scale: left is faster", "start")
    )
    height = bottom + FOOT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img" aria-label="Times by the floor">',
            f"<style>{STYLE}</style>",
            *parts,
            "</svg>\n",
        ]
    )


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = floor(log10(min([*values, 1]))), ceil(log10(max([*values, 1])))
    return low, max(high, low + 1)


def _grid_line(x: float, decade: int, top: int, bottom: int) -> list[str]:
    kind = "floor" if decade == 0 else "grid"
    label = _label(decade)
    return [
        f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>',
        _text(x, bottom + 16, label, "middle"),
    ]


def _label(decade: int) -> str:
    for unit, power in (("M", 6), ("k", 3)):
        if decade >= power:
            return f"{10 ** (decade - power)} {unit}"
    return f"{10.0**decade:g}"


def _legend(peers: Sequence[str]) -> str:
    step = (WIDTH - LEGEND_LEFT) / LEGEND_COLUMNS
    parts = []
    for place, peer in enumerate(peers):
        x = LEGEND_LEFT + step * (place % LEGEND_COLUMNS)
        y = LEGEND * (place // LEGEND_COLUMNS + 0.7)
        parts += [_mark(x, y, place, peer, peer), _text(x + 12, y + 4, peer, "start")]
    return "\n".join(parts)


def _mark(x: float, y: float, place: int, peer: str, title: str) -> str:
    """A circle, a square or a diamond: colour is not all that tells them apart."""
    size = 6.5 if peer == OURS else 4.5
    colour, name = COLOURS[place % len(COLOURS)], f"<title>{escape(title)}</title>"
    if place % 3 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{colour}">{name}</circle>'
    turned = f' transform="rotate(45 {x:.1f} {y:.1f})"' if place % 3 == 2 else ""
    return (
        f'<rect x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size}" height="{2 * size}" '
        f'fill="{colour}"{turned}>{name}</rect>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
