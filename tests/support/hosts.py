"""Starting the programs that the examples are made for, and looking after them."""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any

from mmapshare import SharedFunction

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def environment(home: Path, **more: str) -> dict[str, str]:
    """For a child that finds this package, and writes nothing into the user's home."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(path), "HOME": str(home), "PYTHONUNBUFFERED": "1"}
    return os.environ | own | more


@contextlib.contextmanager
def started(
    *command: object, home: Path, cwd: Path | None = None, **more: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a process group of its own, none of which outlives the block."""
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment(home, **more),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def run(*command: object, home: Path, cwd: Path | None = None, **more: str) -> tuple[int, str, str]:
    """A Python program to its end: exit code, output and errors."""
    with started(sys.executable, *command, home=home, cwd=cwd, **more) as process:
        out, err = process.communicate(timeout=100)
    return process.returncode, out.decode(), err.decode()


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@contextlib.contextmanager
def until_ended(pids: Iterable[int]) -> Iterator[None]:
    """Processes that have all ended when the block has, or it fails; also others' children."""
    ends = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # It has ended already.
            ends.append(os.pidfd_open(pid))
    try:
        yield
        for end in ends:
            assert select.select([end], [], [], 60)[0], "a process was left"
    finally:
        for end in ends:
            os.close(end)


def kill_a_child(parent: int, among: Container[int] | None = None) -> int:
    """SIGKILL the eldest child of a process, which is nobody else: a pidfd survives no reuse."""
    while True:
        pid = next(pid for pid in children(parent) if among is None or pid in among)
        with contextlib.suppress(ProcessLookupError):
            child = os.pidfd_open(pid)
            try:
                if pid in children(parent):
                    signal.pidfd_send_signal(child, signal.SIGKILL)
                    return pid
            finally:
                os.close(child)


@contextlib.contextmanager
def imported(name: str) -> Iterator[Any]:
    """The example as a module, by its own name: by that its workers find its functions."""
    import pytest  # The proof's processes do without it.

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        patch.setattr(sys, "argv", [f"{name}.py"])
        module = importlib.import_module(name)
        try:
            yield module
        finally:
            del sys.modules[name]
            for function in vars(module).values():
                if isinstance(function, SharedFunction):
                    function.share.close()


def fails(main: Callable[[], None], *args: object) -> str:
    """What the example says when its check fails."""
    import pytest

    sys.argv += map(str, args)
    with pytest.raises(SystemExit) as exit:
        main()
    return str(exit.value.code)
