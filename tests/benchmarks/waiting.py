"""From a commit in one process to the return of `wait` in another, beside a round by a pipe."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from time import perf_counter, sleep

from mmapshare import Share, SharedDict, core
from tests.benchmarks.forking import Line, forked, on_core
from tests.benchmarks.table import Row, ratio_row
from tests.benchmarks.timing import Times

MOST = 1.2 if core == "c" else 2.0
ASLEEP_S = 1e-3
"""Before each send, so that the other process is asleep by then."""
WARM_UP = 5


def wait(rounds: int) -> list[Row]:
    """`wait(since=version)` in another process than the one that commits."""
    share = Share(0)
    shared_dict: SharedDict[str, int] = SharedDict(n=0)

    def set_item(n: int) -> None:
        shared_dict["n"] = n

    return [
        _waited("`share.set()`", share, share.set, share.get, rounds),
        _waited("`d[k] = n`", shared_dict, set_item, lambda: shared_dict["n"], rounds),
    ]


def _waited(
    how: str,
    shared: Share[int] | SharedDict[str, int],
    commit: Callable[[int], object],
    get: Callable[[], int],
    rounds: int,
) -> Row:
    times, wrong = Times(), 0
    with ExitStack() as stack:
        read_fd, to_child = _pipe(stack)
        from_child, write_fd = _pipe(stack)

        def answer(line: Line) -> None:
            while True:
                since = line.receive()
                if since is None:
                    os.write(write_fd, os.read(read_fd, 1))
                else:
                    came = shared.wait(since=since, timeout=10)
                    end = perf_counter()  # The same clock in all processes.
                    line.send([came, end, get()])

        stack.enter_context(on_core(0))
        other = stack.enter_context(forked(answer, 1))
        for n in range(1, rounds + WARM_UP + 1):
            other.send(shared.version)
            sleep(ASLEEP_S)
            begin = perf_counter()
            commit(n)
            came, end, found = other.receive()
            wrong += not came or found != n
            other.send(None)
            sleep(ASLEEP_S)
            begin_round = perf_counter()
            os.write(to_child, b".")
            os.read(from_child, 1)
            end_round = perf_counter()
            if n > WARM_UP:
                times.note("wait", end - begin)
                times.note("pipe", end_round - begin_round)
    title = f"{how} until `wait` has returned in another process"
    if wrong:
        return Row(title, f"{wrong} waits that ended with another value", "none", False)
    return ratio_row(title, times, "wait", "pipe", MOST, "a byte by a pipe there and back")


def _pipe(stack: ExitStack) -> tuple[int, int]:
    fds = os.pipe()
    for fd in fds:
        stack.callback(os.close, fd)
    return fds
