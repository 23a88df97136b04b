"""The table of figures, and the machine that they were taken on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

import attrs

from mmapshare import core
from tests.benchmarks.timing import Times


@attrs.frozen
class Row:
    """One figure. ``asked`` is empty and ``ok`` None where it stands for comparison only."""

    what: str
    figure: str
    asked: str = ""
    ok: bool | None = None


def ratio_row(
    what: str, times: Times, name: str, baseline: str, most: float | None = None, called: str = ""
) -> Row:
    """A row that compares two statements' times; ``called`` is the baseline's name in print."""
    ratio = times.ratio(name, baseline)
    took, base = duration(times.seconds(name)), duration(times.seconds(baseline))
    figure = f"{ratio:.2f} x {called or baseline} ({took} : {base})"
    if most is None:
        return Row(what, figure)
    return Row(what, figure, f"at most {most:g} x", ratio <= most)


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds * 1e6:.2f} µs"


def markdown(rows: Sequence[Row]) -> str:
    """The rows as one Markdown table, its columns aligned."""
    head = ("what", "figure (x its baseline)", "asked for", "ok?")
    marks = {True: "yes", False: "**no**", None: ""}
    cells = [head, *[(row.what, row.figure, row.asked, marks[row.ok]) for row in rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def machine() -> str:
    """Python, our core, cores, processor and kernel, in one line."""
    return (
        f"{platform.python_implementation()} {platform.python_version()}, core {core}, "
        f"{len(os.sched_getaffinity(0))} cores of {_cpu_model()}, "
        f"{platform.system()} {platform.release()} ({platform.machine()})"
    )


def _cpu_model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "an unnamed processor"
