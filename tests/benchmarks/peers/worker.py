"""Another process that has the peer, does as it is told, and can be killed in the middle of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from time import perf_counter
from timeit import Timer
from typing import Any

from tests.benchmarks.forking import CORES
from tests.benchmarks.peers.peer import Peer
from tests.benchmarks.timing import loop_length

WARM_UP = 5


class WorkerError(Exception):
    """What went wrong in the worker, in words."""


class Worker:
    """Started as the peer's documentation asks for; on one core, or wherever it is put."""

    def __init__(self, peer: Peer, core: int | None = None) -> None:
        context: Any = multiprocessing.get_context(peer.start_method)
        self._line, theirs = context.Pipe()
        args = (type(peer), peer.address(), theirs, core)
        self._process = context.Process(target=_serve, args=args, daemon=True)
        self._process.start()
        theirs.close()
        self.receive()

    def send(self, *command: Any) -> None:
        self._line.send(command)

    def receive(self) -> Any:
        answer = self._line.recv()
        if isinstance(answer, WorkerError):
            raise answer
        return answer

    def answers_within(self, timeout_s: float) -> bool:
        return self._line.poll(timeout_s)

    def ask(self, *command: Any) -> Any:
        self.send(*command)
        return self.receive()

    def kill(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        self._line.close()


def _serve(kind: type[Peer], address: Any, line: Connection, core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {CORES[core % len(CORES)]})
    try:
        peer = kind.attach(address)
        line.send("attached")
        while True:
            name, *args = line.recv()
            line.send(COMMANDS[name](peer, line, *args))
    except EOFError:
        pass
    except BaseException as err:
        line.send(WorkerError(f"{type(err).__name__}: {err}"))
    os._exit(0)  # What was inherited is not this process's to tidy up.


def _add(peer: Peer, line: Connection, number: int) -> tuple[float, float]:
    line.send("ready")
    line.recv()
    start = perf_counter()  # The same clock in all processes.
    Timer(peer.add_one).timeit(number)
    return start, perf_counter()


def _move(peer: Peer, line: Connection, pausing: bool) -> float:
    def pause() -> None:
        line.send("inside")
        line.recv()

    peer.move(pause if pausing else int)
    return perf_counter()


def _pair(peer: Peer, line: Connection) -> int:
    return peer.get_key("left") + peer.get_key("right")


def _read(peer: Peer, line: Connection, number: int) -> float:
    return Timer(lambda: peer.get_key("left")).timeit(number) / number


def _reads(peer: Peer, line: Connection) -> int:
    return loop_length(Timer(lambda: peer.get_key("left")))


def _set_forever(peer: Peer, line: Connection, count: int) -> None:
    import numpy as np

    arrays = [np.full(count, n, float) for n in (1, 2)]
    line.send("setting")
    while True:
        for array in arrays:
            peer.set_array(array)


def _set_once(peer: Peer, line: Connection, count: int) -> bool:
    import numpy as np

    peer.set_array(np.zeros(count))
    return True


def _is_whole(peer: Peer, line: Connection) -> bool:
    array = peer.get_array()
    return bool((array == array[0]).all())


def _next_hits(peer: Peer, line: Connection) -> tuple[float, int]:
    hits = peer.next_hits(lambda: line.send("ready"))
    return perf_counter(), hits


COMMANDS: dict[str, Callable[..., Any]] = {
    "add": _add,
    "move": _move,
    "pair": _pair,
    "read": _read,
    "reads": _reads,
    "set-forever": _set_forever,
    "set-once": _set_once,
    "is-whole": _is_whole,
    "next-hits": _next_hits,
}
