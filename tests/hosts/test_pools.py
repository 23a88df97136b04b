"""`examples/one_bar.py`: one bar for all workers of a pool, however these are started."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from support.hosts import EXAMPLES, fails, imported, kill_a_child, run, started

pytest.importorskip("tqdm")

SCRIPT = EXAMPLES / "one_bar.py"
DRAWN = re.compile(r" *\d+%\|.*\| (\d+)/12000 \[.*\] *")


@pytest.mark.parametrize("pool", ["Pool", "ProcessPoolExecutor"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_one_bar_for_all_workers_goes_up_to_exactly_the_total(
    pool: str, method: str, tmp_path: Path
) -> None:
    small = ("--workers", 3, "--tasks", 5, "--below", 12000)
    code, out, err = run(
        "-W", "error", SCRIPT, "--pool", pool, "--method", method, *small, home=tmp_path
    )

    assert code == 0, err
    assert out == (
        f"1438 primes below 12000, by a {pool} of 3 ({method})\n"
        "25 transactions counted 12000 numbers\n"
        "check: every number was counted, once\n"
    )
    assert err.endswith("\n")
    # One line, which was drawn over and over: a second bar would need a second line.
    drawn = [DRAWN.fullmatch(text) for text in err.rstrip("\n").split("\r") if text.strip()]
    assert all(drawn), err
    counts = [int(match[1]) for match in drawn if match]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 12000)


def test_a_worker_that_is_killed_ends_the_run_and_not_the_machine(tmp_path: Path) -> None:
    endless = ("--below", 10**9, "--method", "fork", "--pool", "ProcessPoolExecutor")
    with started(sys.executable, SCRIPT, *endless, home=tmp_path) as process:
        assert process.stderr is not None
        process.stderr.read(1)  # The bar is drawn once the workers were started.
        kill_a_child(process.pid)
        err = process.communicate(timeout=60)[1]

    assert process.returncode == 1
    assert b"BrokenProcessPool" in err


@pytest.mark.parametrize("pool", ["Pool", "ProcessPoolExecutor"])
def test_planted_counting_without_the_lock_is_found_out(
    pool: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("without_the_lock")
    with imported("one_bar") as example:
        said = fails(
            example.main, "--method", "fork", "--pool", pool, "--workers", 2, "--tasks", 2,
            "--below", 1000,
        )  # fmt: skip

    assert said == "check: NOT every number was counted: 500 of 1000"
