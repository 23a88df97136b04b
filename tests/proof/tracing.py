"""A forked child under ptrace: stopped at each machine instruction, or around each system call.

The child says where the interesting part begins and ends by two signals to itself, which its
tracer swallows; outside of that it runs at full speed. What a traced child forks or starts is
traced too, and all of it dies with the tracer. One thread of one process traces at a time.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, Final

BEGIN, END = signal.SIGUSR1, signal.SIGUSR2
_WALL: Final = 0x40000000
_STOPPED: Final = 0x7F
"""The low byte of a stopped process's status."""

# Linux's numbers.
_TRACEME, _PEEKUSER, _CONT, _SINGLESTEP, _SYSCALL = 0, 3, 7, 9, 24
_POKEUSER, _SETOPTIONS, _GET_SYSCALL_INFO = 6, 0x4200, 0x420E
_SYSGOOD, _FORK, _VFORK, _CLONE, _EXEC, _EXITKILL = 1, 2, 4, 8, 16, 1 << 20
_OPTIONS: Final = _SYSGOOD | _FORK | _VFORK | _CLONE | _EXEC | _EXITKILL
SYSCALL_STOP: Final = signal.SIGTRAP | 0x80
RAX, ORIG_RAX, _RIP = 8 * 10, 8 * 15, 8 * 16
"""Where the registers stand in a process's ``struct user``."""


class SyscallInfo(ctypes.Structure):
    """What Linux says of a system call that a process is stopped at; as in <linux/ptrace.h>."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("arch", ctypes.c_uint32),
        ("instruction", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
    )


ENTRY: Final = 1
"""A `SyscallInfo`'s ``op`` before the call is done."""

_ptrace: Any = None
if sys.platform == "linux":
    _ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    _ptrace.restype = ctypes.c_long
    _ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def _ask(request: int, pid: int, address: int | None = None, data: Any = None) -> int:
    answer = _ptrace(request, pid, address, data)
    if answer == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")
    return int(answer)


def why_not() -> str | None:
    """Why nothing can be traced here; None where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the registers' places are known for Linux on x86-64 only"
    pid = os.fork()
    if pid == 0:
        try:
            _ask(_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, _WALL)
    if not os.WIFSTOPPED(status):
        return "ptrace is forbidden here"
    try:
        _ask(_SETOPTIONS, pid, None, _OPTIONS)
        _ask(_GET_SYSCALL_INFO, pid, ctypes.sizeof(SyscallInfo), ctypes.byref(SyscallInfo()))
    except OSError as err:
        return f"this system's ptrace cannot do enough: {err}"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, _WALL)
    return None


# What the child says.


def begin() -> None:
    """The interesting part begins."""
    os.kill(os.getpid(), BEGIN)


def end() -> None:
    """It is over."""
    os.kill(os.getpid(), END)


# What the tracer does.


def start(func: Callable[[], object]) -> int:
    """The pid of a child that will run ``func``, traced; it exits with 1 where that raises."""
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _ask(_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            func()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, _WALL)
    assert os.WIFSTOPPED(status), f"the child cannot be traced: {status}"
    _ask(_SETOPTIONS, pid, None, _OPTIONS)
    return pid


def go_on(pid: int, stop: int = _CONT, deliver: int = 0) -> None:
    """Let a stopped process run, to its next signal or as far as ``stop`` says."""
    _ask(stop, pid, None, deliver or None)


def until_syscall(pid: int, deliver: int = 0) -> None:
    """Let a stopped process run until its next system call begins or ends."""
    go_on(pid, _SYSCALL, deliver)


def next_stop(pid: int = -1) -> tuple[int, int | None]:
    """The process that stopped next, and its signal; None where it ended.

    What a traced process forks stops once before it runs. Events are SIGTRAP.
    """
    pid, status = os.waitpid(pid, _WALL)
    return pid, os.WSTOPSIG(status) if os.WIFSTOPPED(status) else None


def run_to(pid: int, marker: int) -> bool:
    """Let a child run until it gives that signal; False where it ended before."""
    deliver = 0
    while True:
        go_on(pid, deliver=deliver)
        _, stop = next_stop(pid)
        if stop is None:
            return False
        if stop == marker:
            return True
        deliver = 0 if stop in {BEGIN, END, signal.SIGTRAP} else stop


def step(pid: int) -> int:
    """One machine instruction of a stopped process; the signal that it stopped by, 0 if it ended.

    That is SIGTRAP wherever nothing else happened.
    """
    _ptrace(_SINGLESTEP, pid, None, None)
    _, status = os.waitpid(pid, _WALL)
    return status >> 8 & 0xFF if status & 0xFF == _STOPPED else 0


def instruction(pid: int) -> int:
    """Where the next instruction of a stopped process is; the same again while one repeats."""
    return _ask(_PEEKUSER, pid, _RIP)


def syscall(pid: int) -> SyscallInfo:
    """The system call that a process is stopped at."""
    info = SyscallInfo()
    _ask(_GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.byref(info))
    return info


def poke(pid: int, register: int, value: int) -> None:
    """Change a register of a stopped process."""
    _ask(_POKEUSER, pid, register, value & 0xFFFFFFFFFFFFFFFF)


def kill(pid: int) -> None:
    """SIGKILL, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    while next_stop(pid)[1] is not None:
        pass


def stay_on_one_core(number: int) -> None:
    """A tracer and what it traces take turns: on one core they need not wake each other up."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number % len(cores)]})
