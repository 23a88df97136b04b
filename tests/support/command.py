"""The command line as a person calls it: in a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pty
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from tempfile import TemporaryFile
from typing import Any

from . import inside

NOBODY = 65534
Command = Callable[..., "subprocess.CompletedProcess[str]"]
_PR_SET_DUMPABLE = 4


def program(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """``python -m mmapshare`` with these arguments; nobody answers it."""
    options = {"capture_output": True, "text": True, "timeout": 60, "input": ""} | options
    return subprocess.run([sys.executable, "-m", "mmapshare", *args], **options)


def command(
    *args: str, input: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The same in a fork of this process, which need not import all of it first.

    It has this process's modules: what loads values wants a `program`.
    """
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
        given.write(input.encode())
        given.seek(0)
        pid = os.fork()
        if not pid:
            for fd, file in enumerate((given, out, err)):
                os.dup2(file.fileno(), fd)
            os.environ |= env or {}
            os._exit(_exit_code(args))
        _, status = os.waitpid(pid, 0)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
        return subprocess.CompletedProcess(args, os.waitstatus_to_exitcode(status), *said)


def _exit_code(args: Sequence[str]) -> Any:
    """Of the command in this process, whose standard streams are its descriptors 0 to 2."""
    sys.argv[1:] = args
    sys.stdin = open(0)  # noqa: SIM115
    with open(1, "w") as sys.stdout, open(2, "w", errors="backslashreplace") as sys.stderr:
        try:
            return inside.main_of_package()
        except SystemExit as err:
            return err.code or 0
        except BaseException:
            traceback.print_exc()
            return 70


def printed(*args: str, by: Command = command, **options: Any) -> str:
    """What it prints that ends well, and complains of nothing."""
    done = by(*args, **options)
    assert done.returncode == 0, done.stderr
    # It may tell how much there is of others.
    assert "mmapshare:" not in done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def as_json(*args: str) -> Any:
    """The same of ``--json``, read."""
    return json.loads(printed(*args, "--json"))


def complaint(*args: str, code: int = 1, by: Command = command, **options: Any) -> str:
    """What it complains of that ends with that code, and prints nothing else."""
    done = by(*args, **options)
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    return done.stderr


def row_of(share: Any) -> dict[str, Any]:
    """What ``ls`` lists for a share."""
    (row,) = [row for row in as_json("ls")["shares"] if row.get("region_id") == id_of(share)]
    return row


def id_of(share: Any) -> str:
    """The id of a share's region, as it stands in its ``repr`` where it has no name."""
    return inside.region_id_of(share).hex()


@contextlib.contextmanager
def running(*args: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The command while it runs, whose lines are read as they come; ended by Ctrl-C."""
    with subprocess.Popen(
        [sys.executable, "-m", "mmapshare", *args], stdout=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)


def on_a_terminal(*args: str, columns: int = 200, env: dict[str, str] | None = None) -> str:
    """What it draws on a terminal."""
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"} | (env or {})
    ours, its = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "mmapshare", *args], stdin=its, stdout=its, stderr=its,
        env=environment,
    ) as process:  # fmt: skip
        os.close(its)
        drawn = b""
        with contextlib.suppress(OSError):  # Nobody writes any more.
            while piece := os.read(ours, 10_000):
                drawn += piece
        os.close(ours)
    assert process.returncode == 0, drawn
    return drawn.decode()


def be_looked_into() -> None:
    """Let this process be looked into by its user's others, though it was another user's before."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1)


def as_nobody(*args: str) -> subprocess.CompletedProcess[str]:
    """The command as another user than root, who may not even read where Python lies."""
    program = (
        "import sys, os, pickletools; sys.path[:] = eval(sys.argv.pop(1))\n"
        "import mmapshare.__main__\n"
        "from support import as_somebody_else\n"
        "with as_somebody_else(): code = mmapshare.__main__.main()\n"
        "sys.exit(code)\n"
    )
    program_and: Sequence[str] = [sys.executable, "-c", program, repr(sys.path), *args]
    return subprocess.run(
        program_and, capture_output=True, text=True, env=os.environ | {"MMAPSHARE_DIR": "/nowhere"}
    )
