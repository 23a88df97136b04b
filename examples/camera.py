"""A camera: one process writes frames, four look at each newest one without a copy.

    python examples/camera.py [--seconds S]

Frames of 1920 x 1080 x 3 bytes. Each reader waits for a new frame, maps it (``copy=False``) and
looks at it twice, with some work between: it must be one frame, whole, and the same one. One of
the readers is killed on the way. Then the same over a bare ``SharedMemory``, which needs no copy
either: there the writer draws into what is being read, and frames are torn.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from mmapshare import Share, SharedDict

SHAPE = (1080, 1920, 3)
READERS = 4
Frame = Any
counts: SharedDict[int, tuple[int, int]] = SharedDict()
"""By reader: how many frames it has looked at, and how many of them were torn."""


def draw(frame: Frame, number: int) -> None:
    """A frame is all of one colour, so that anybody can tell whether it is whole."""
    frame[:] = number % 251


def is_whole(frame: Frame) -> bool:
    """Whether all its rows are of one frame, before and after some work on it."""
    first = frame[0, 0, 0]
    before = bool((frame[:, 0, 0] == first).all())
    frame[::8, ::8].mean()
    return before and bool((frame[:, -1, -1] == first).all())


def look(rank: int, newest: Callable[[], Frame]) -> None:
    """A reader: look at what is newest until somebody kills us."""
    seen = torn = 0
    while True:
        torn += not is_whole(newest())
        seen += 1
        if seen % 20 == 1:
            counts[rank] = seen, torn


def over_share() -> tuple[Callable[[int], None], Callable[[], Callable[[], Frame]]]:
    """How frames are written, and how a reader gets the newest."""
    share: Share[Frame] = Share(np.zeros(SHAPE, "u1"), max_size="64M")
    canvas = np.zeros(SHAPE, "u1")

    def write(number: int) -> None:
        draw(canvas, number)
        share.set(canvas)

    def reader() -> Callable[[], Frame]:
        version = 0

        def newest() -> Frame:
            nonlocal version
            share.wait(since=version)
            snapshot = share.snapshot(copy=False)
            version = snapshot.version
            return snapshot.value

        return newest

    return write, reader


def over_shared_memory(
    memory: SharedMemory,
) -> tuple[Callable[[int], None], Callable[[], Callable[[], Frame]]]:
    """The same, by a view of memory that everybody sees."""
    frame: Frame = np.ndarray(SHAPE, "u1", buffer=memory.buf)
    return lambda number: draw(frame, number), lambda: lambda: frame


def film(
    write: Callable[[int], None], reader: Callable[[], Callable[[], Frame]], seconds: float
) -> tuple[float, float, int]:
    """Write for so long beside the readers; frames per second written and read, and torn ones."""
    counts.clear()
    pids = []
    for rank in range(READERS):
        pid = os.fork()
        if pid == 0:
            try:
                look(rank, reader())
            finally:
                os._exit(1)
        pids.append(pid)
    begin, number, killed = time.monotonic(), 0, False
    try:
        while (spent := time.monotonic() - begin) < seconds:
            number += 1
            write(number)
            if spent > seconds / 2 and not killed:
                os.kill(pids[0], signal.SIGKILL)
                killed = True
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    seen, torn = (sum(column) for column in zip(*counts.values(), strict=True))
    return number / seconds, seen / seconds, torn


def main() -> int:
    """1 where a frame was torn that came from a share."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    written, read, torn = film(*over_share(), seconds)
    says = "{:13} {:5.0f} frames/s written, {:5.0f} looked at, {} torn"
    print(says.format("Share:", written, read, torn))
    memory = SharedMemory(create=True, size=int(np.prod(SHAPE)))
    try:
        written, read, torn_there = film(*over_shared_memory(memory), seconds)
    finally:
        memory.unlink()
    print(
        f"SharedMemory: {written:5.0f} frames/s written, {read:5.0f} looked at, {torn_there} torn"
    )
    print("one reader of four was killed each time")
    return int(torn > 0 or not read)


if __name__ == "__main__":
    sys.exit(main())
