"""Children, pipes and traps that several tests use."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mmapshare
from mmapshare import _region
from mmapshare._memory import Segment

SEED = int.from_bytes(os.urandom(4), "little")
_TOOL = 4  # One of the ids that sys.monitoring leaves to anybody.
PACKAGE = str(Path(mmapshare.__file__).parent)


class Wanted:
    """A package that not everybody has: a test that uses it is skipped where it is missing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # Collectors ask whatever stands in a module.
            raise AttributeError(name)
        import pytest  # Processes that fork a lot do without it.

        module = pytest.importorskip(self._name)
        try:
            return getattr(module, name)
        except AttributeError:  # A part of it that nobody has imported yet.
            return importlib.import_module(f"{self._name}.{name}")


class Child:
    """A forked child that runs ``func(child, *args)``; `say` and `hear` talk to the other side."""

    def __init__(self, func: Callable[..., Any], *args: Any) -> None:
        to_child, to_parent = os.pipe(), os.pipe()
        self.pid = os.fork()
        self._reaped: int | None = None
        if self.pid == 0:
            os.close(to_child[1])
            os.close(to_parent[0])
            self._in, self._out = to_child[0], to_parent[1]
            code = 1
            try:
                self.say(("result", func(self, *args)))
                code = 0
            except BaseException as err:
                traceback.print_exc()
                try:
                    self.say(("error", err))
                except BaseException:
                    self.say(("error", RuntimeError(repr(err))))
            finally:
                os._exit(code)
        os.close(to_child[0])
        os.close(to_parent[1])
        self._in, self._out = to_parent[0], to_child[1]

    def say(self, message: Any = None) -> None:
        raw = pickle.dumps(message)
        os.write(self._out, len(raw).to_bytes(4, "little") + raw)

    def hear(self) -> Any:
        size = int.from_bytes(self._read(4), "little")
        return pickle.loads(self._read(size))

    def _read(self, size: int) -> bytes:
        raw = b""
        while len(raw) < size:
            piece = os.read(self._in, size - len(raw))
            if not piece:
                raise EOFError("the other side has ended")
            raw += piece
        return raw

    def result(self) -> Any:
        """What the function returned in the child; its exception is raised here."""
        what, value = self.hear()
        self.wait()
        if what == "error":
            raise value
        return value

    def sleeps(self) -> None:
        """Wait until the child waits for something."""
        stat = Path(f"/proc/{self.pid}/stat")
        while stat.read_text().rsplit(")", 1)[1].split()[0] != "S":
            pass

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        if self._reaped is None:
            _, status = os.waitpid(self.pid, 0)
            self._reaped = os.waitstatus_to_exitcode(status)
            os.close(self._in)
            os.close(self._out)
        return self._reaped


def in_child(func: Callable[..., Any], *args: Any) -> Any:
    """Run ``func(*args)`` in a forked child and return what it returns."""
    return Child(lambda child: func(*args)).result()


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


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    """In a child, what root could not do as another user; whoever is not root is one already.

    Itself again afterwards: one that stays somebody else could not write down what it covered.
    """
    before = os.getresuid()
    if before[1] == 0:
        os.setresuid(65534, 65534, before[2])
    try:
        yield
    finally:
        os.setresuid(*before)


def stranger(shares: list[Any], code: str) -> None:
    """Run ``code`` in a new interpreter that got ``shares`` by their handles."""
    start = (
        "import pickle, sys; given = sys.stdin.buffer; sys.path[:] = pickle.load(given);"
        "shares = pickle.load(given); exec(pickle.load(given))"
    )
    given = b"".join(map(pickle.dumps, (sys.path, shares, textwrap.dedent(code))))
    done = subprocess.run([sys.executable, "-c", start], input=given, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def open_fds() -> dict[int, str]:
    """This process's descriptors and what they lead to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return found


@contextlib.contextmanager
def no_more_descriptors(free: int = 0) -> Iterator[None]:
    """This process may have so many more descriptors than it has."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(free + 1)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    for fd in fds:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(fds), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def region_mappings() -> list[str]:
    """The mappings of this process that belong to regions."""
    return [
        line for line in Path("/proc/self/maps").read_text().splitlines() if "mmapshare" in line
    ]


def opened_again(share: Any) -> Any:
    """The same region as another process has it, in this one."""
    twin = type(share).__new__(type(share))
    segment = Segment.adopt(os.dup(share._region.segment.fd))
    twin._bind(twin._parts(type(share)._region_class(segment)), None)
    return twin


def forget(share: Any) -> None:
    """Let the next read look at the region, whatever this process has seen of it."""
    share._region._commit, share._region._seen = _region._EMPTY, _region._NOTHING


@contextlib.contextmanager
def locked(share: Any) -> Iterator[_region.Region]:
    """The lock of a share, for who publishes frames that are no value's."""
    share.lock()
    try:
        yield share._region
    finally:
        share.unlock()
