"""Fixtures: both kinds of regions, and a watch over what a test leaves behind."""

from __future__ import annotations

import gc
import glob
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import open_fds, region_mappings

from mmapshare import Share, _handle

collect_ignore_glob = ["planted_*.py"]  # What other programs import, with what they are given.


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("proof", "what tests/proof does")
    group.addoption("--soak", action="store_true", help="a lot more of everything")
    group.addoption("--seed", type=int, help="where chance begins; each failure prints its own")
    group.addoption("--event", type=int, help="the one event to run, as a failure printed it")


def pytest_collection_finish() -> None:
    # The collector runs around each test: let it look at what came up since.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def folders_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Other programs' regions are not taken for ours."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("t"))
    yield
    tempfile.tempdir = before


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No region's descriptor, mapping or folder, and no child, outlives its test."""
    gc.collect()
    before = _regions()
    yield
    gc.collect()
    if _regions() != before:
        gc.collect()
    assert _regions() == before, "a region was left open"
    with pytest.raises(ChildProcessError):
        pid, status = os.waitpid(-1, os.WNOHANG)
        # multiprocessing's own servers, and a kernel, may go on; ours may not.
        if pid == 0 and _are_others_own():
            raise ChildProcessError
        raise AssertionError(f"a child was left: {pid} {status}")


def _are_others_own() -> bool:
    children = f"/proc/self/task/{os.getpid()}/children"
    for pid in Path(children).read_text().split():
        command = Path(f"/proc/{pid}/cmdline").read_text()
        if not any(
            own in command for own in ("resource_tracker", "forkserver", "loky", "ipykernel")
        ):
            return False
    return True


def _regions() -> tuple[list[str], int, list[str]]:
    fds = sorted(path for path in open_fds().values() if "mmapshare" in path)
    folders = glob.glob(os.path.join(tempfile.gettempdir(), "mmapshare-*"))
    return fds, len(region_mappings()), sorted(folders)


@pytest.fixture(params=["memfd", "file"])
def kind(request: pytest.FixtureRequest) -> str:
    """Both kinds of shared memory, each with its own lock."""
    return request.param


@pytest.fixture
def make(kind: str) -> Iterator[Callable[..., Share[Any]]]:
    """`Share` of the kind under test; closed after the test."""
    made = []

    def make(*args: Any, **kwargs: Any) -> Share[Any]:
        share = Share(*args, kind=kind, **kwargs)
        made.append(share)
        return share

    yield make
    for share in made:
        share.close()
    _handle._handed_out.clear()
