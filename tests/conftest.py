"""Fixtures: both kinds of regions, and a watch over what a test leaves behind."""

from __future__ import annotations

import fcntl
import gc
import glob
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_asked = os.environ.pop("MMAPSHARE_CORE", None)  # For tests of it the compiled one is there, too.
from support import inside, open_fds, region_mappings  # noqa: E402
from support.without_gil import CLASSES_END, UNFIT  # noqa: E402

from mmapshare import Share, SharedDict  # noqa: E402

if _asked is not None:
    os.environ["MMAPSHARE_CORE"] = _asked

# What has no doctests, and of which there are several by one name; and what other programs import.
collect_ignore_glob = ["conftest.py", "*/conftest.py", "support/planted_*.py"]


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    group = parser.getgroup("proof", "what tests/proof does")
    parser.addoption(
        "--core",
        choices=["c", "python"],
        help="what does the work; by default c, where it is built",
    )
    group.addoption("--planted", action="store_true", help="planted bugs too, and all media")
    group.addoption("--whole", action="store_true", help="that, and all events")
    group.addoption("--soak", action="store_true", help="a lot more of everything")
    group.addoption("--seed", type=int, help="where chance begins; each failure prints its own")
    group.addoption("--event", type=int, help="the one event to run, as a failure printed it")
    if not pluginmanager.hasplugin("timeout"):  # Its settings stand in pyproject.toml.
        parser.addini("timeout", "not without pytest-timeout")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "alone: it measures, or fills the machine: nothing beside it"
    )
    config.addinivalue_line("markers", "planted: only with --planted or --whole; all events")
    config.addinivalue_line("markers", "untraced: under a tracer it fails, or takes long")
    config.addinivalue_line("markers", "forks_beside_threads: a child of a fork beside busy ones")
    config.addinivalue_line("markers", "classes_end: where nobody uses a class any more, it goes")
    config.addinivalue_line("markers", "core(name): it looks into the core of that name")
    config.addinivalue_line("markers", "timeout(seconds): for pytest-timeout, where that is")
    if config.getoption("core") is not None:
        os.environ["MMAPSHARE_CORE"] = config.getoption("core")  # For what is started too.
    used = inside.use(os.environ.get("MMAPSHARE_CORE", "c"))
    if config.getoption("core") not in {None, used}:
        raise pytest.UsageError("the compiled core is not there: pip install -e '.[test]'")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what it runs in the background so, and the tests' children inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Not as a fixture, which the doctests of the package and of the README would not have.
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    names = tempfile.TemporaryDirectory(dir=memory)
    config.add_cleanup(names.cleanup)
    os.environ["MMAPSHARE_DIR"] = os.path.join(names.name, "names")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for marker, (unfit, why) in UNFIT.items():
        for item in items:
            if unfit and item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=why))
    # The longest ones of the planted begin, or one of them would be waited for.
    long = items and items[0].config.getoption("planted")
    items.sort(
        key=lambda item: (item.get_closest_marker("alone") is not None, long and -_most_s(item))
    )


def _most_s(item: pytest.Item) -> float:
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark else 0.0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: half of the time a test waits for processes that wait for others."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each worker begins at another place of the list, and takes from others in the end."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """What is marked as ``alone`` waits for the other workers' tests, and they wait for it."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    factory: pytest.TempPathFactory = item.config._tmp_path_factory  # type: ignore[attr-defined]
    with open(factory.getbasetemp().parent / "machine", "w") as machine:
        alone = item.get_closest_marker("alone") is not None
        fcntl.flock(machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return (yield)


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
def core(request: pytest.FixtureRequest) -> Iterator[str]:
    """The core that a test runs on: the one that it is of, else what was asked for."""
    mark = request.node.get_closest_marker("core")
    asked = os.environ.get("MMAPSHARE_CORE", "c")
    wanted: str = mark.args[0] if mark else asked
    used = inside.use(wanted)
    if mark:
        if used != wanted:
            pytest.skip("this is of the compiled core, which is not there")
        os.environ["MMAPSHARE_CORE"] = wanted  # For what it starts.
    yield used
    if mark:
        os.environ["MMAPSHARE_CORE"] = asked
    inside.use(asked)


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers take no lock at first, on any machine: for what one thread, or one after the other,
    does to them in the middle of it."""
    monkeypatch.setattr(*inside.at("ORDERED_STORES_in_memory"), True)
    monkeypatch.setattr(*inside.at("ORDERED_STORES_in_keyed"), True)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No region's descriptor, mapping or folder, and no child, outlives its test."""
    gc.collect()
    before, others = _regions(), _children()[1]
    yield
    gc.collect()
    if _regions() != before:
        gc.collect()
    assert not CLASSES_END or _regions() == before, "a region was left open"
    with pytest.raises(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0 and not _children()[0] - others:  # Of one that ends just now nobody knows.
                raise ChildProcessError
            if pid not in others:  # joblib's workers end when they had nothing to do for long.
                raise AssertionError(f"a child was left: {pid} {status}")


def _children() -> tuple[set[int], set[int]]:
    """Ours, and multiprocessing's own servers, and a kernel, which may go on."""
    ours, others = set(), set()
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except FileNotFoundError:  # A thread of its owner's has waited for it just now.
            continue
        of_others = any(
            own in command for own in ("resource_tracker", "forkserver", "loky", "ipykernel")
        )
        (others if of_others else ours).add(int(pid))
    return ours, others


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
    inside.handed_out.clear()


@pytest.fixture
def make_dict(kind: str) -> Iterator[Callable[..., SharedDict[Any, Any]]]:
    """`SharedDict` of the kind under test; closed after the test."""
    made = []

    def make_dict(*args: Any, **kwargs: Any) -> SharedDict[Any, Any]:
        made.append(SharedDict(*args, kind=kind, **kwargs))
        return made[-1]

    yield make_dict
    for shared in made:
        shared.close()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dicts write new snapshots all the time."""
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), 200)
    monkeypatch.setattr(*inside.at("SPARE_KEYS"), 3)


# --- What is skipped ---------------------------------------------------------------------------

EVERYTHING = "MMAPSHARE_TESTS_HAVE_EVERYTHING"
"""Set where nothing that a test needs is missing; what is skipped all the same fails the run."""
MAY_BE_SKIPPED = {
    "annotationlib is new in Python 3.14",
    "interpreters are new in Python 3.14",
    "could not import 'torch': No module named 'torch'",
    "a file cannot be mounted as a disk here",
    "there is no swap here",
    "no network namespaces can be made here",
    "no compiler for ARM",
}
_missed: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _look_for_skips(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _look_for_skips(report)


def _look_for_skips(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        why = report.longrepr[2].removeprefix("Skipped: ")
        if why not in MAY_BE_SKIPPED:
            _missed.add(f"{report.nodeid}: {why}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if EVERYTHING in os.environ and _missed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if EVERYTHING in os.environ and _missed:
        terminalreporter.section("skipped, but this machine has everything")
        for line in sorted(_missed):
            terminalreporter.write_line(line)
