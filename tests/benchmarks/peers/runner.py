"""One peer in a process of its own: it does a round of a row whenever the driver asks for one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from multiprocessing import shared_memory

from tests.benchmarks.forking import Line
from tests.benchmarks.peers.peer import Peer, peer_class
from tests.benchmarks.peers.rows import ROWS

TAG_LENGTH = 8
"""Of a tag without its peer's number: SharedMemory's names are short."""


def main() -> None:
    """Arguments: the peer, the row, the scale, a tag for what is left in /dev/shm, descriptors."""
    name, row, scale, tag, read_fd, write_fd, alive_fd = sys.argv[1:]
    _die_with_the_driver(int(alive_fd))
    line = Line(int(read_fd), int(write_fd))
    # Names that tools leave to Python get the tag too: what a kill leaves behind can be swept.
    shared_memory._SHM_NAME_PREFIX = f"/{tag[:TAG_LENGTH]}"  # type: ignore[attr-defined]
    multiprocessing.current_process()._config["semprefix"] = f"/{tag}"  # type: ignore[attr-defined]
    made: list[Peer] = []

    def make() -> Peer:
        made.append(peer_class(name)(f"{tag}{len(made):x}"))
        return made[-1]

    with suppress(EOFError, BrokenPipeError):
        try:
            for result in ROWS[row].measure(make, float(scale)):
                line.send(result)
                if line.receive() == "end":
                    break
        except (EOFError, BrokenPipeError) as err:
            line.send({"error": f"{type(err).__name__}: {err or 'the other process has ended'}"})
        except Exception as err:
            line.send({"error": f"{type(err).__name__}: {err}".splitlines()[0]})
    if made and row != "kill":
        made[-1].close()


def _die_with_the_driver(alive_fd: int) -> None:
    """A child waits for the end of a pipe that the driver holds, and then kills the group.

    A peer that hangs, or a server that it started, would outlive a driver that was killed.
    """
    if os.fork() == 0:
        os.read(alive_fd, 1)
        os.killpg(0, signal.SIGKILL)
    os.close(alive_fd)


if __name__ == "__main__":
    main()
