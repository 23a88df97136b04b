"""Shares that are found by a name or a path, and what it costs that a commit outlives a power cut.

Commits that wait for the disk are beside what none of them can avoid, one page written and one
barrier, and beside LMDB and SQLite, each set to promise the same.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter, thread_time
from timeit import Timer
from typing import Any

from mmapshare import Share
from tests.benchmarks.forking import CORES, Line, forked
from tests.benchmarks.small_values import BLOCK, VALUE
from tests.benchmarks.table import Row, duration, ratio_row
from tests.benchmarks.timing import Times, take_turns
from tests.support import inside

ATTACH_MOST_S, MAKE_MOST_S = 120e-6, 250e-6
NAMED_MOST, DURABLE_MOST = 1.03, 1.3
LEAST_PART = 0.5
"""What the slowest of several processes gets at least, of a fair part."""
DATA = os.urandom(1024)
PAGE = os.urandom(4096)
PROCESSES, SECONDS = 4, 1.0
DISK = "/var/tmp"
"""Where a real disk is to be expected; ``/tmp`` is memory on many machines."""
BARRIER_LOOP_S = 20e-3
HAS_LMDB = find_spec("lmdb") is not None
BARRIER = "`pwrite` + `fdatasync` of a page"

Commit = Callable[[], object]


@contextmanager
def disk() -> Iterator[str]:
    """A folder on a disk, for the time of the block."""
    with TemporaryDirectory(prefix="mmapshare-", dir=DISK if os.path.isdir(DISK) else None) as path:
        yield path


def kind_of_disk(folder: str) -> str:
    """What the folder lies on, as it is said in the table."""
    kind = inside.file_system_of(os.stat(folder).st_dev) or "a disk of unknown kind"
    return f"{kind}, WHICH IS MEMORY" if kind in {"tmpfs", "ramfs"} else str(kind)


# --- By a name: opened, and used ---------------------------------------------------------------


def open_(rounds: int) -> list[Row]:
    """Making a named share, and attaching to one that this process has not got open."""
    name = f"benchmark-{os.getpid()}"
    wall, cpu = Times(), Times()
    seconds: dict[str, list[float]] = {"make": [], "attach": [], "anonymous": []}

    def timed(what: str, statement: Callable[[], Share[Any]]) -> Share[Any]:
        cpu_start, start = thread_time(), perf_counter()
        share = statement()
        took, cpu_took = perf_counter() - start, thread_time() - cpu_start
        if warm:
            wall.note(what, took)
            cpu.note(what, cpu_took)
            seconds[what].append(took)
        return share

    for warm in [False] * 3 + [True] * rounds:
        made = timed("make", lambda: Share.open(name, VALUE))
        made.close()
        attached = timed("attach", lambda: Share.open(name))
        attached.unlink()
        attached.close()
        timed("anonymous", lambda: Share(VALUE)).close()
        del made, attached  # Else the next one would find what this process had open.

    def row(what: str, key: str, most_s: float | None) -> Row:
        low, _, high = quantiles(seconds[key], n=4)
        took = wall.seconds(key)
        figure = (
            f"{wall.ratio(key, 'anonymous'):.2f} x `Share(value)` ({duration(took)}, half of them "
            f"{duration(low)} to {duration(high)}; CPU {duration(cpu.seconds(key))})"
        )
        if most_s is None:
            return Row(what, figure)
        return Row(what, figure, f"at most {duration(most_s)}", took <= most_s)

    return [
        row("`Share.open(name)`, attached to", "attach", ATTACH_MOST_S),
        row("`Share.open(name, value)`, made", "make", MAKE_MOST_S),
    ]


def use(rounds: int) -> list[Row]:
    """`get`, `set` and a block on a share with a name, and one in a file, beside an anonymous."""
    name = f"benchmark-{os.getpid()}"
    statements = {"get()": "share.get()", "set()": "share.set(value)", "block": BLOCK}
    with disk() as folder:
        shares = {
            "anonymous": Share(VALUE),
            "name": Share.open(name, VALUE),
            "path": Share.open(f"{folder}/state", VALUE),
        }
        try:
            timers = {
                f"{what} {where}": Timer(code, globals={"share": share, "value": dict(VALUE)})
                for what, code in statements.items()
                for where, share in shares.items()
            }
            times = take_turns(timers, rounds)
        finally:
            shares["name"].unlink()
            for share in shares.values():
                share.close()
    return [
        ratio_row(
            f"`{what}` of a small dict by a {where}",
            times,
            f"{what} {where}",
            f"{what} anonymous",
            NAMED_MOST,
            "anonymous",
        )
        for what in statements
        for where in ("name", "path")
    ]


# --- Commits that outlive a power cut ------------------------------------------------------------


@contextmanager
def bare(folder: str) -> Iterator[Commit]:
    """What none can avoid: one page that is there already, and one barrier."""
    fd = os.open(f"{folder}/bare", os.O_RDWR | os.O_CREAT, 0o600)
    try:

        def commit() -> None:
            os.pwrite(fd, PAGE, 0)
            os.fdatasync(fd)

        commit()
        os.fsync(fd)
        yield commit
    finally:
        os.close(fd)


@contextmanager
def ours(folder: str) -> Iterator[Commit]:
    """A block on a durable share."""
    share = Share.open(f"{folder}/ours", {"data": DATA, "commits": 0}, durable=True)
    try:

        def commit() -> None:
            with share.locked() as view:
                view["commits"] += 1

        yield commit
    finally:
        share.close()


@contextmanager
def ours_set(folder: str) -> Iterator[Commit]:
    """The same by `set`."""
    share = Share.open(f"{folder}/set", DATA, durable=True)
    try:
        yield lambda: share.set(DATA)
    finally:
        share.close()


@contextmanager
def lmdb(folder: str) -> Iterator[Commit]:
    """LMDB as it comes, which waits for the disk."""
    import lmdb as package

    os.makedirs(f"{folder}/lmdb", exist_ok=True)
    env = package.open(f"{folder}/lmdb", map_size=64 << 20)
    try:

        def commit() -> None:
            with env.begin(write=True) as txn:
                txn.put(b"data", os.urandom(8) + DATA[8:])

        yield commit
    finally:
        env.close()


@contextmanager
def sqlite(folder: str) -> Iterator[Commit]:
    """SQLite with a write-ahead log that waits for the disk at each commit."""
    base = sqlite3.connect(f"{folder}/sqlite", timeout=60, isolation_level=None)
    try:
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA synchronous=FULL")
        base.execute("CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY, data BLOB)")
        base.execute("INSERT OR IGNORE INTO state VALUES (1, ?)", (DATA,))

        def commit() -> None:
            base.execute("UPDATE state SET data = ? WHERE id = 1", (os.urandom(8) + DATA[8:],))

        yield commit
    finally:
        base.close()


@contextmanager
def awake() -> Iterator[None]:
    """No core goes to sleep meanwhile.

    Where one does, a virtual disk's answer may be found by the next tick only, and 4 ms hide all
    that a commit does.
    """

    def spin(line: Line) -> None:
        os.nice(19)
        while not line.has_news():
            for _ in range(1000):
                pass

    with ExitStack() as stack:
        for core in CORES:
            stack.enter_context(forked(spin, core))
        yield


OTHERS = {"LMDB, sync": lmdb, "SQLite, WAL, synchronous=FULL": sqlite}


def durable(rounds: int) -> list[Row]:
    """A commit of 1 KiB that is on the disk when it returns, on an idle and a busy machine."""
    rows = _durable(rounds, "the machine idle")
    with awake():
        return rows + _durable(rounds, "its cores awake") + _missing("the same")


def _durable(rounds: int, machine: str) -> list[Row]:
    opened = {"block": ours, "`set()`": ours_set, "bare": bare, **_installed()}
    with disk() as folder, ExitStack() as stack:
        kind = kind_of_disk(folder)
        commits = {name: stack.enter_context(how(folder)) for name, how in opened.items()}
        timers = {name: Timer(commit) for name, commit in commits.items()}
        times = take_turns(timers, rounds, BARRIER_LOOP_S)
    what = f"durable commit of 1 KiB on {kind}, {machine}"
    rows = [
        ratio_row(f"{what}: {name}", times, name, "bare", DURABLE_MOST, BARRIER)
        for name in ("block", "`set()`")
    ]
    return rows + [
        ratio_row(f"{name}: the same", times, name, "bare", None, BARRIER) for name in _installed()
    ]


def durable_processes(rounds: int) -> list[Row]:
    """Several processes that commit 1 KiB durably, each as fast as it may, for a while."""
    opened = {"ours": ours, **_installed()}
    counts: dict[str, list[list[int]]] = {name: [] for name in opened}
    for _ in range(rounds):
        for name, how in opened.items():
            with disk() as folder:
                kind = kind_of_disk(folder)
                counts[name].append(_together(how, folder))
    what = f"{PROCESSES} processes, durable commits of 1 KiB on {kind}"
    rows = []
    for name, found in counts.items():
        part = median(min(counted) * PROCESSES / sum(counted) for counted in found)
        rate = median(sum(counted) / SECONDS for counted in found)
        figure = f"{rate:,.0f} a second together, the slowest has {part:.2f} x a fair part"
        if name == "ours":
            asked = f"slowest at least {LEAST_PART:g} x"
            rows.append(Row(what, figure, asked, part >= LEAST_PART))
        else:
            rows.append(Row(f"{name}: the same", figure))
    return rows + _missing("the same by processes")


def _together(how: Callable[[str], Any], folder: str) -> list[int]:
    """How often each of several processes has committed."""
    with how(folder) as commit:
        commit()  # It is there, then; each process opens it for itself.

    def job(line: Line) -> None:
        with how(folder) as commit:
            commit()
            line.send("ready")
            line.receive()
            count, end = 0, perf_counter() + SECONDS
            while perf_counter() < end:
                commit()
                count += 1
            line.send(count)

    with ExitStack() as stack:
        lines = [stack.enter_context(forked(job)) for _ in range(PROCESSES)]
        for line in lines:
            line.receive()
        for line in lines:
            line.send("go")
        return [line.receive() for line in lines]


def _installed() -> dict[str, Callable[[str], Any]]:
    return {name: how for name, how in OTHERS.items() if how is not lmdb or HAS_LMDB}


def _missing(what: str) -> list[Row]:
    absent = [name for name in OTHERS if name not in _installed()]
    return [Row(f"{name}: {what}", "not measured: lmdb is not installed") for name in absent]
