"""mmapshare beside its peers, in one run: a Markdown table, a picture, and what to know of both.

    python -m tests.benchmarks.peers                      all of it, in some minutes
    python -m tests.benchmarks.peers lmdb redis           only these, beside the floor
    python -m tests.benchmarks.peers UltraDict kill       one cell, to see for oneself
    python -m tests.benchmarks.peers --write              into the READMEs and peers.svg too

Needs the extra `peers`; who is not installed is said to be missing. Each peer runs in a process
group of its own, which is killed once it gives no result in time: that is a cell too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.benchmarks.peers.chart import svg
from tests.benchmarks.peers.driver import Cell, measure
from tests.benchmarks.peers.peer import FLOOR, PEERS, peer_class, version_of
from tests.benchmarks.peers.report import excerpt, markdown
from tests.benchmarks.peers.rows import ROWS

ROOT = Path(__file__).resolve().parents[3]
HERE = ROOT / "tests" / "benchmarks"
README, WHOLE, CHART = ROOT / "README.md", HERE / "README.md", HERE / "peers.svg"


def main() -> int:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.peers", description="Measure mmapshare beside its peers."
    )
    known = f"peers: {', '.join(PEERS)}, or module:Class; rows: {', '.join(ROWS)}"
    parser.add_argument("names", nargs="*", help=known)
    parser.add_argument("--scale", type=float, default=1.0, help="of the rounds; default 1")
    parser.add_argument("--bound", type=float, help="seconds until a peer is said to hang")
    parser.add_argument("--svg", type=Path, help="where to write the picture")
    parser.add_argument("--write", action="store_true", help="into the READMEs and peers.svg")
    options = parser.parse_args()
    rows = [name for name in options.names if name in ROWS] or list(ROWS)
    asked = [name for name in options.names if name not in ROWS]
    if any(name not in PEERS and ":" not in name for name in asked):
        parser.error(f"unknown; {known}")
    if options.write and options.names:
        parser.error("--write takes all peers and all rows")
    peers, missing = _installed(asked or [name for name in PEERS if name != FLOOR])
    if not peers:
        parser.error(f"not installed: {missing}")
    table: dict[str, dict[str, Cell]] = {}
    for row in rows:
        print(f"{row} ...", file=sys.stderr)
        table[row] = measure(row, peers, options.scale, options.bound)
    text = markdown(table, missing)
    print(text)
    if options.write:
        write(text)
    if options.svg or options.write:
        (options.svg or CHART).write_text(svg(table), encoding="utf-8")
    return 0


def _installed(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Those that can be imported, and why the others cannot."""
    missing = {}
    for name in names:
        try:
            found = peer_class(name)
            if found.package:
                __import__(found.package)
        except Exception as err:
            missing[name] = f"{version_of(name)}: {type(err).__name__}: {err}"
    return [name for name in names if name not in missing], missing


def write(text: str) -> None:
    """Put the table where it is told of, and an excerpt into the project's README."""
    picture = f"![The same as a picture]({CHART.name})"
    _replace(WHOLE, "peers", f"{text}\n\n{picture}")
    _replace(README, "excerpt", excerpt(text))


def _replace(path: Path, name: str, body: str) -> None:
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{path} has no place for it between {begin} and {end}")
    path.write_text(f"{before}{begin}\n{body}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
