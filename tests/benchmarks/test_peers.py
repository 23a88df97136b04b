"""`tests/benchmarks/peers`: the table and the picture come out, and who loses or hangs is shown so.

What is run here are rows of less than a second, with peers that need no package of their own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
PEERS = ["mmapshare", "naive", "Manager"]
SVG = "{http://www.w3.org/2000/svg}"
PLANTED = [f"tests.support.planted_peers:{name}" for name in ("Losing", "Hanging", "Failing")]

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peers run on Linux"),
    pytest.mark.timeout(120),
]


@contextmanager
def running(*args: object) -> Iterator[subprocess.Popen[str]]:
    """The benchmark as its users run it; killed where it is left before its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.peers", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    try:
        with process:
            yield process
    finally:
        process.kill()
        process.wait()


def run(*args: object) -> str:
    """Its output, once it has ended well and left nothing behind."""
    with running(*args) as process:
        out, _ = process.communicate()
    assert process.returncode == 0, out
    wait_until(lambda: not left_behind(process.pid))
    return out


def cells(out: str, title: str) -> list[str]:
    """A row's cells: the floor's and the peers'."""
    [line] = [line for line in out.splitlines() if line.startswith(f"| {title} ")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def left_behind(pid: int) -> list[str]:
    """Processes of that run, and what it left in shared memory: all of it bears its tag."""
    tag, found = f"pb{pid:06x}", []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += [str(path)] if tag in path.read_text(errors="replace") else []
    return found + [name for name in os.listdir("/dev/shm") if tag in name]


def wait_until(condition: Callable[[], bool]) -> None:
    """Processes come and go in their own time; the test's timeout is the bound."""
    while not condition():
        os.sched_yield()


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """The modules that write, importable from wherever pytest is run."""
    monkeypatch.syspath_prepend(ROOT)
    from tests.benchmarks.peers import chart, driver, report, rows

    yield chart, driver, report, rows


@pytest.mark.alone
def test_a_round_gives_each_peer_a_figure_in_the_table_and_a_mark_in_the_picture(
    tmp_path: Path,
) -> None:
    rows = {
        "block": "block: add 1 to it",
        "contended-2": "block by 2 processes at once",
        "wake": "set, until a waiting process has seen it",
        "held": "read while another holds the lock",
    }
    picture = tmp_path / "peers.svg"
    out = run(*PEERS, *rows, "--scale", "0.01", "--svg", picture)
    without = {("wake", "naive"): "none$", ("held", "naive"): "waits$"}
    for row, title in rows.items():
        floor, *figures = cells(out, title)
        assert bool(floor) == (row != "held"), out
        for peer, figure in zip(PEERS, figures, strict=True):
            assert re.match(without.get((row, peer), r"(\*\*)?[\d.]+"), figure), (row, peer, out)
    assert re.search(r"; mmapshare [\d.]+\.$", out.strip()), out
    marks = [mark.text for mark in ElementTree.parse(picture).iter(f"{SVG}title")]
    assert len([mark for mark in marks if mark and ": " in mark]) == 3 + 3 + 2, marks


def test_all_rows_are_in_the_table_and_all_ratios_in_the_picture(report: object) -> None:
    chart, driver, report, rows = report
    results = {
        "held": {"s": 1.0},
        "kill": {"s": 0.001, "state": "whole"},
        "kill-set": {"kills": 10, "torn": 0, "stuck": ""},
    }
    table = {
        row: {
            peer: driver.Cell([results.get(row, {"s": n * 2e-6, "floor": 1e-6})])
            for n, peer in enumerate(PEERS, 1)
        }
        for row in rows.ROWS
    }
    lines = report.markdown(table, {"gone": "not installed"}).splitlines()
    assert len(lines[: lines.index("")]) == 2 + len(rows.ROWS)
    assert len({line.count(" | ") for line in lines[: lines.index("")] if "---" not in line}) == 1
    assert "Not measured: gone (not installed)." in lines
    root = ElementTree.fromstring(chart.svg(table))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    drawn = [row for row in rows.ROWS.values() if row.by_floor]
    assert [row.title for row in drawn] == [text for text in texts if text in _titles(rows)]
    marks = [mark.text or "" for mark in root.iter(f"{SVG}title")]
    assert sorted(marks) == sorted(
        PEERS + [f"{peer}: {2 * n}" for n, peer in enumerate(PEERS, 1)] * len(drawn)
    )
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.attrib["x"]) <= width and 0 < float(text.attrib["y"]) <= height
    assert "prefers-color-scheme: dark" in root.findtext(f"{SVG}style", "")
    assert root.find(f".//{SVG}script") is None


def _titles(rows: object) -> set[str]:
    return {row.title for row in rows.ROWS.values()}


def test_torn_stuck_and_lost_are_said(report: object) -> None:
    _, driver, report, _ = report
    results = {
        "contended-2": {"s": 1e-6, "floor": 1e-6, "lost": 3, "of": 400},
        "held": {"waits": True},
        "kill": {"s": None, "state": "torn"},
        "kill-set": {"kills": 4, "torn": 2, "stuck": "no set"},
    }
    table = {row: {"naive": driver.Cell([result])} for row, result in results.items()}
    text = report.markdown(table)
    for said in (
        "| **loses 0.75%**<sup>2</sup>",
        "| waits",
        "| **not within 2 s**, **torn**",
        "| **torn 2 times**, **no set after 4**",
        "2. naive: the sum is off by 3 of 400 (`python -m tests.benchmarks.peers naive contended",
    ):
        assert said in text, text


@pytest.mark.alone
def test_who_loses_updates_hangs_or_fails_is_shown_so_with_the_command_that_shows_it() -> None:
    out = run(*PLANTED, "naive", "contended-2", "--scale", "0.01", "--bound", "2")
    losing, hanging, failing, sound = cells(out, "block by 2 processes at once")[1:]
    assert re.match(r"\*\*loses [\d.]+%\*\*<sup>", losing), out
    assert hanging.startswith("**hangs**<sup>"), out
    assert failing.startswith("**fails**<sup>"), out
    assert re.fullmatch(r"[\d. ]+", sound), out
    for name in PLANTED:
        assert f"(`python -m tests.benchmarks.peers {name} contended-2`)" in out
    assert re.search(r"the sum is off by [\d,]+ of [\d,]+", out), out
    assert "an error of its own" in out and "no result within 2 s" in out, out


def test_a_peer_that_hangs_does_not_outlive_a_killed_driver() -> None:
    with running(PLANTED[1], "contended-2", "--bound", "1000") as process:
        wait_until(lambda: len(left_behind(process.pid)) >= 5)  # Its workers too.
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not left_behind(process.pid))


def test_the_table_replaces_what_stands_between_the_marks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from tests.benchmarks.peers import __main__ as command

    whole, readme = tmp_path / "whole.md", tmp_path / "README.md"
    monkeypatch.setattr(command, "WHOLE", whole)
    monkeypatch.setattr(command, "README", readme)
    monkeypatch.setattr(command, "excerpt", lambda text: f"some of {text}")
    for path, name in ((whole, "peers"), (readme, "excerpt")):
        path.write_text(f"before\n<!-- {name} -->\nold\n<!-- /{name} -->\nafter\n")
    command.write("| new |")
    command.write("| newer |")
    between = "| newer |\n\n![The same as a picture](peers.svg)"
    assert whole.read_text() == f"before\n<!-- peers -->\n{between}\n<!-- /peers -->\nafter\n"
    some = "<!-- excerpt -->\nsome of | newer |\n<!-- /excerpt -->"
    assert readme.read_text() == f"before\n{some}\nafter\n"
    readme.write_text("no marks")
    with pytest.raises(SystemExit, match="no place"):
        command.write("| new |")


def test_the_readme_has_an_excerpt_of_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from tests.benchmarks.peers import __main__ as command

    text = command.WHOLE.read_text(encoding="utf-8").split("<!-- peers -->")[1]
    some = command.excerpt(text.split("<!-- /peers -->")[0])
    assert len(some.splitlines()) == 10
    assert some in command.README.read_text(encoding="utf-8")


def test_an_unknown_name_is_refused() -> None:
    with running("ultradoct") as process:
        out, _ = process.communicate()
    assert process.returncode == 2 and "UltraDict" in out
