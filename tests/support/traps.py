"""What is done at one bytecode of the package: a kill, an exception."""

from __future__ import annotations

import contextlib
import dis
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mmapshare

SEED = int.from_bytes(os.urandom(4), "little")
_TOOL = 4  # One of the ids that sys.monitoring leaves to anybody.
_NOT_TAKEN = dis.opmap.get("NOT_TAKEN")
"""A mark of Python 3.14's, from which no exception can come, and which no ``try`` covers."""
PACKAGE = str(Path(mmapshare.__file__).parent)


@contextlib.contextmanager
def trap(step: int, spring: Callable[[], Any]) -> Iterator[None]:
    """Call ``spring`` at the package's bytecode number ``step``."""
    if sys.version_info < (3, 12):
        before = sys.gettrace()  # A measure of coverage, perhaps.
        sys.settrace(_trace_until(step, spring))
        try:
            yield
        finally:
            sys.settrace(before)
        return
    count = 0
    monitoring = sys.monitoring

    def on_instruction(code: Any, offset: int) -> Any:
        nonlocal count
        if not code.co_filename.startswith(PACKAGE):
            return monitoring.DISABLE
        count += 1
        if count == step:
            if code.co_code[offset] == _NOT_TAKEN:
                count -= 1  # At the next one.
            else:
                spring()
        return None

    monitoring.use_tool_id(_TOOL, "trap")
    monitoring.register_callback(_TOOL, monitoring.events.INSTRUCTION, on_instruction)
    monitoring.set_events(_TOOL, monitoring.events.INSTRUCTION)
    try:
        yield
    finally:
        monitoring.set_events(_TOOL, 0)
        monitoring.register_callback(_TOOL, monitoring.events.INSTRUCTION, None)
        monitoring.free_tool_id(_TOOL)


def _trace_until(step: int, spring: Callable[[], Any]) -> Callable[..., Any]:
    count = 0

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            count += 1
            if count == step:
                spring()
        return trace

    return trace


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at_every_step(
    action: Callable[[], Any], check: Callable[[int], Any], stride: int = 1
) -> int:
    """Fork a child for each bytecode of ``action`` and kill it there; returns how many.

    ``check`` runs in the parent after each kill. With a ``stride`` each run takes its share of
    the bytecodes, beginning anywhere: over several runs none is left out.
    """
    step = 1 + SEED % stride
    print("first step", step)
    kills = 0
    while True:
        pid = os.fork()
        if pid == 0:
            try:
                with trap(step, kill_self):
                    action()
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        check(step)
        if not os.WIFSIGNALED(status):
            return kills
        kills += 1
        step += stride
