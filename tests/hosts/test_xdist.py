"""`examples/xdist`: what one worker of pytest-xdist makes, all have, and nobody makes again."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hosts import EXAMPLES, run

from mmapshare import Share

pytest.importorskip("xdist")

# A fixture that says in the open who made it, where no fault of the sharing can hide it.
TESTS = """
import os, pickle, signal
import pytest

entered = pickle.loads(bytes.fromhex(os.environ["ENTERED"]))

def make():
    with open("made", "a") as made:
        made.write(f"{os.environ['PYTEST_XDIST_WORKER']}\\n")
    number = entered.update(int.__add__, 1)
    if number == 1 and os.environ["FIRST_MAKER"] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ["FIRST_MAKER"] == "waits for another":
        entered.wait(lambda n: n >= 2, timeout=20)
    return {"by": os.environ["PYTEST_XDIST_WORKER"]}

@pytest.fixture(scope="session")
def value(once):
    return once("value", make)

@pytest.mark.parametrize("n", range(16))
def test_use(value, n):
    with open("used", "a") as used:
        used.write(f"{os.environ['PYTEST_XDIST_WORKER']} {value['by']}\\n")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the example, as users make one."""
    return Path(shutil.copytree(EXAMPLES / "xdist", tmp_path / "copy"))


@pytest.fixture
def entered() -> Iterator[Share[int]]:
    """How often somebody began to make the value."""
    entered = Share(0)
    yield entered
    entered.close()


def pytest_in(folder: Path, *args: object, **environ: str) -> tuple[int, str]:
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", **environ}
    xdist = [] if "no:xdist" in args else ["-p", "xdist"]
    code, out, err = run("-m", "pytest", *xdist, *args, home=folder, cwd=folder, **alone)
    return code, out + err


def use_in(workers: int, folder: Path, entered: Share[int], first_maker: str) -> tuple[int, str]:
    (folder / "test_library.py").write_text(TESTS)
    handle = pickle.dumps(entered).hex()
    return pytest_in(folder, "-n", workers, ENTERED=handle, FIRST_MAKER=first_maker)


def lines(folder: Path, name: str) -> list[str]:
    return (folder / name).read_text().splitlines()


@pytest.mark.parametrize(
    ("args", "maker"),
    [
        pytest.param(("-n", 4), r"gw\d", id="four-workers"),
        pytest.param(("-n", 0), "the only process", id="no-workers"),
        pytest.param(("-p", "no:xdist"), "the only process", id="without-xdist"),
    ],
)
def test_the_example_makes_its_fixture_once(
    folder: Path, args: tuple[object, ...], maker: str
) -> None:
    code, out = pytest_in(folder, *args)

    assert code == 0, out
    assert "13 passed" in out
    assert re.search(rf"^library: made by {maker} in [\d.]+ s$", out, re.MULTILINE), out


def test_one_of_four_workers_makes_the_value_and_all_use_it(
    folder: Path, entered: Share[int]
) -> None:
    code, out = use_in(4, folder, entered, "lives")

    assert code == 0, out
    (maker,) = lines(folder, "made")
    used = [line.split() for line in lines(folder, "used")]
    assert len(used) == 16
    assert {user for user, _ in used} == {"gw0", "gw1", "gw2", "gw3"}
    assert {by for _, by in used} == {maker}
    assert entered.get() == 1
    assert f"value: made by {maker} in " in out


@pytest.mark.parametrize("workers", [1, 2])
def test_where_the_maker_is_killed_the_next_worker_makes_it(
    workers: int, folder: Path, entered: Share[int]
) -> None:
    """Of one worker, that is the one which xdist starts in its place, with the same handle."""
    code, out = use_in(workers, folder, entered, "dies")

    assert code == 1
    assert "1 failed, 15 passed" in out, out
    dead, maker = lines(folder, "made")
    assert f"worker '{dead}' crashed" in out
    assert {line.split()[1] for line in lines(folder, "used")} == {maker}
    assert f"value: made by {maker} in " in out
    if workers == 1:
        assert maker == "gw1"


def test_planted_making_without_the_lock_is_found_out(folder: Path, entered: Share[int]) -> None:
    conftest = folder / "conftest.py"
    text = conftest.read_text()
    planted = text.replace("with share.locked() as view:", "if (view := share) is not None:")
    assert planted != text
    conftest.write_text(planted)
    code, out = use_in(2, folder, entered, "waits for another")

    assert code == 0, out
    assert sorted(lines(folder, "made")) == ["gw0", "gw1"]
