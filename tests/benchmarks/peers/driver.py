"""Each peer of a row in a process group of its own; all take turns, and who hangs is killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from glob import escape, glob
from pathlib import Path
from time import monotonic, sleep

import attrs

from tests.benchmarks.lmdb_dict import SHARED_MEMORY
from tests.benchmarks.peers.peer import FLOOR, peer_class, version_of
from tests.benchmarks.peers.rows import ROWS, Result, Row

SETUP_S, ROUND_S, END_S, LOOK_S = 90.0, 20.0, 5.0, 0.2
ROOT = str(Path(__file__).resolve().parents[3])
TAG = f"pb{os.getpid():06x}"


@attrs.define
class Cell:
    """What came out for one peer in one row. ``said`` is why there is nothing, in words."""

    results: list[Result] = attrs.field(factory=list)
    hangs: bool = False
    fails: bool = False
    lacks: bool = False
    said: str = ""


class Runner:
    """The process of one peer; `next` waits for a result no longer than it is told."""

    def __init__(self, peer: str, row: str, scale: float, number: int) -> None:
        self.cell = Cell()
        self._errors = tempfile.TemporaryFile("w+")
        from_runner, to_driver = os.pipe()
        from_driver, to_runner = os.pipe()
        command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.peers.runner"]
        alive, self._alive_fd = os.pipe()
        fds, tag = (from_driver, to_driver, alive), f"{TAG}{number:x}"
        self._process = subprocess.Popen(
            [*command, peer, row, str(min(1.0, scale)), tag, *map(str, fds)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": _path()},
        )
        for fd in fds:
            os.close(fd)
        self._read_fd, self._write_fd, self._buffer = from_runner, to_runner, b""

    def ask(self, bound_s: float) -> bool:
        """Let it do one more round; False where it has nothing more to say."""
        with suppress(BrokenPipeError):
            os.write(self._write_fd, b'"go"\n')
        return self.hear(bound_s)

    def hear(self, bound_s: float) -> bool:
        """Take its next result; False once it hangs, has failed or has ended."""
        until = monotonic() + bound_s
        while b"\n" not in self._buffer:
            if select.select([self._read_fd], [], [], LOOK_S)[0]:
                piece = os.read(self._read_fd, 1 << 16)
                self._buffer += piece
                if not piece:
                    return self._has_ended()
            elif self._process_has_ended():
                return self._has_ended()  # Its children may hold the pipe open.
            elif monotonic() > until:
                self.cell.hangs, self.cell.said = True, f"no result within {bound_s:g} s"
                return False
        raw, _, self._buffer = self._buffer.partition(b"\n")
        result = json.loads(raw)
        if "error" in result:
            self.cell.fails, self.cell.said = True, result["error"]
            return False
        if result:
            self.cell.results.append(result)
        return True

    def _has_ended(self) -> bool:
        if not self.cell.results:
            self._errors.seek(0)
            lines = [line for line in self._errors.read().splitlines() if line.strip()]
            self.cell.fails, self.cell.said = True, lines[-1] if lines else "it ended"
        return False

    def _process_has_ended(self) -> bool:
        """Without reaping it: while it is not reaped, nobody else gets its group's number."""
        options = os.WEXITED | os.WNOWAIT | os.WNOHANG
        return os.waitid(os.P_PID, self._process.pid, options) is not None

    def close(self) -> None:
        """Let it tidy up, but not for long; then kill its whole group."""
        with suppress(BrokenPipeError):
            os.write(self._write_fd, b'"end"\n')
        until = monotonic() + (0 if self.cell.hangs else END_S)
        while not self._process_has_ended() and monotonic() < until:
            sleep(5e-3)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._read_fd)
        os.close(self._write_fd)
        os.close(self._alive_fd)
        self._errors.close()


def _path() -> str:
    """What runs in a process of its own finds the same packages."""
    return os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))


def measure(
    name: str, peers: Sequence[str], scale: float = 1.0, bound_s: float | None = None
) -> dict[str, Cell]:
    """One row for these peers, beside the floor where the row has one.

    ``bound_s`` is for a round; whoever gives no result in that time hangs.
    """
    row = ROWS[name]
    cells = {peer: _unmeasured(peer, name) for peer in peers}
    able = [peer for peer in peers if not cells[peer].said]
    groups = [[peer] for peer in able] if row.apart else [able]
    for group in groups:
        cells |= _measure_group(name, row, group, scale, bound_s)
    for peer in able:
        # On a busy machine anybody may be late once: who hangs does so again, and alone.
        if cells[peer].hangs or cells[peer].fails:
            cells |= _measure_group(name, row, [peer], scale, bound_s)
    return cells


def _measure_group(
    name: str, row: Row, peers: list[str], scale: float, bound_s: float | None
) -> dict[str, Cell]:
    with ExitStack() as stack:
        stack.callback(_sweep)
        runners: dict[str, Runner] = {}
        for number, peer in enumerate([FLOOR, *peers] if row.by_floor else peers):
            runners[peer] = Runner(peer, name, scale, number)
            stack.callback(runners[peer].close)
        for runner in runners.values():
            runner.hear(SETUP_S)
        going = {p: r for p, r in runners.items() if not r.cell.said}
        for _ in range(max(1, round(row.rounds * scale))):
            going = {p: r for p, r in going.items() if r.ask(bound_s or ROUND_S)}
    if row.by_floor:
        _take_ratios(runners)
    return {peer: runners[peer].cell for peer in peers}


def _take_ratios(runners: dict[str, Runner]) -> None:
    """Note in each result what the floor took in the same round."""
    floor = runners[FLOOR].cell
    if floor.said:
        raise RuntimeError(f"the floor itself: {floor.said}")
    for runner in runners.values():
        for result, base in zip(runner.cell.results, floor.results, strict=False):
            result["floor"] = base["s"]


def _unmeasured(peer: str, row: str) -> Cell:
    try:
        reason = peer_class(peer).lacks.get(row)
        missing = version_of(peer) == "not installed"
    except ImportError as err:
        return Cell(fails=True, said=f"{type(err).__name__}: {err}")
    if missing:
        return Cell(fails=True, said="not installed")
    return Cell(lacks=True, said=reason) if reason else Cell()


def _sweep() -> None:
    """Take away what killed processes left in shared memory: it bears this process's tag."""
    for path in glob(f"{SHARED_MEMORY}/*{escape(TAG)}*"):
        _remove(Path(path))


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        if path.is_dir():
            for inner in path.iterdir():
                _remove(inner)
            path.rmdir()
        else:
            path.unlink()
