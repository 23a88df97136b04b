"""Beginning to record, and what comes of it; one recorder a process."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import warnings
from typing import Any, Final

from ..errors import TransactionError
from . import showing
from .hooks import Hooks
from .reading import Recording, read
from .recorder import Recorder

VARIABLE: Final = "MMAPSHARE_TRACE"
"""Names a folder to whose files each process records that finds it as it imports mmapshare."""
_MEMORY: Final = "/dev/shm"

_running: tuple[Recorder, Hooks] | None = None


def start(folder: str) -> None:
    """Record from now on, until `stop` or the process's end; nothing where it does so already."""
    global _running  # noqa: PLW0603
    if _running is None:
        os.makedirs(folder, 0o700, exist_ok=True)
        recorder = Recorder(os.path.abspath(folder))
        hooks = Hooks(recorder)
        _running = recorder, hooks
        hooks.begin()


def start_as_told(folder: str) -> None:
    """The same for a program that knows nothing of it, and goes on where it cannot be."""
    try:
        start(folder)
    except OSError as err:
        warnings.warn(
            f"{VARIABLE} says to record to {folder}, which cannot be: {err}", RuntimeWarning, 2
        )


def stop() -> None:
    """Record nothing more."""
    global _running  # noqa: PLW0603
    if _running is not None:
        recorder, hooks = _running
        hooks.end()
        _running = None
        recorder.close()


def _after_fork_in_child() -> None:
    if _running is not None:
        _running[0].begin_anew()


if hasattr(os, "register_at_fork"):  # only with fork
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Trace:
    """A recording, while it runs and afterwards; what ``with mmapshare.trace()`` gives.

    In a notebook it shows itself as a picture.
    """

    def __init__(self, folder: str | None, recording: Recording | None = None) -> None:
        self._folder = folder
        self._since = time.monotonic_ns()
        self._recording = recording

    @property
    def recording(self) -> Recording:
        """What was recorded; until the block has ended, what has been so far."""
        if self._recording is not None:
            return self._recording
        assert self._folder is not None
        return read(self._folder, self._since)

    def _end(self) -> None:
        self._recording = self.recording

    def summary(self) -> str:
        """A table: a row a share, those that were waited for longest first, and the longest holds.

        Its columns: how often the share was held and committed, how many of the holds had to
        wait, the median and the 99th percentile of these waits and of all holds. Below, with file
        and line of the block, the five longest holds.
        """
        return showing.summary(self.recording)

    def svg(self) -> str:
        """A picture: a row a process, amber for waits, green for holds, a tick for each commit."""
        return showing.svg(self.recording)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a Chrome trace (JSON), which https://ui.perfetto.dev and chrome://tracing open."""
        showing.save_chrome(self.recording, path)

    def __repr__(self) -> str:
        recording = self.recording
        return f"<Trace: {len(recording.events):,} events, {len(recording.processes)} processes>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.summary(), "image/svg+xml": self.svg()}


class Tracing:
    """The block that records; see `mmapshare.trace`."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = path
        self._pid = 0
        self._own: str | None = None
        """A folder that goes with the block; None where one was recorded to before."""

    def __enter__(self) -> Trace:
        if self._pid:
            raise TransactionError("a trace is one block: call mmapshare.trace() again")
        self._pid = os.getpid()
        if _running is not None and os.path.isdir(_running[0].folder):
            self._trace = Trace(_running[0].folder)
            return self._trace
        stop()  # What it recorded to has gone with a parent's block.
        memory = _MEMORY if os.path.isdir(_MEMORY) else None
        self._own = tempfile.mkdtemp(prefix="mmapshare-trace-", dir=memory)
        self._before = os.environ.get(VARIABLE)
        try:
            start(self._own)
            os.environ[VARIABLE] = self._own  # For who is started meanwhile.
        except BaseException:
            self._leave(self._own)
            raise
        self._trace = Trace(self._own)
        return self._trace

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._pid:  # A child that leaves its parent's block.
            return
        try:
            self._trace._end()
            if self._path is not None:
                self._trace.save(self._path)
        finally:
            if self._own is not None:
                self._leave(self._own)

    def _leave(self, folder: str) -> None:
        stop()
        with contextlib.suppress(KeyError):
            del os.environ[VARIABLE]
        if self._before is not None:
            os.environ[VARIABLE] = self._before
        shutil.rmtree(folder, ignore_errors=True)


def opened(folder: str | os.PathLike[str]) -> Trace:
    """What was recorded to a folder; FileNotFoundError where there is none."""
    return Trace(None, read(os.fspath(folder)))
