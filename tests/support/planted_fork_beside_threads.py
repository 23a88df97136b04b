"""Shows without mmapshare that a child hangs that CPython 3.13 without the GIL forks among threads.

Threads that wait for an object's own mutex, or to stop the world, may be handed what they wait for
just before another thread forks. In the child they are gone, and what they were handed stays
taken: whoever asks for the same dict, or collects garbage, waits for ever. Prints how many of
the children hung, of how many; ends at the first one.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time

THREADS = 4
PATIENCE_S = 3
"""After so long a child that has next to nothing to do hangs."""


class One:
    pass


class Other:
    pass


def run(seconds: float) -> tuple[int, int]:
    """How many children hung, and how many were forked; until one hangs or the time is over."""
    shared: dict[int, int] = {}
    stop = threading.Event()

    def busy(number: int) -> None:
        mine = One()
        while not stop.is_set():
            for _ in range(100):
                shared[0] = shared.get(0, 0) + 1
                shared.setdefault(number, 0)
                shared.pop(number, None)
            mine.__class__ = Other if type(mine) is One else One  # This stops all threads.

    threads = [threading.Thread(target=busy, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    hung = forked = 0
    end = time.monotonic() + seconds
    try:
        while not hung and time.monotonic() < end:
            forked += 1
            hung += _hangs(shared)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return hung, forked


def _hangs(shared: dict[int, int]) -> bool:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE_S)
        shared.get(0)
        shared[0] = 1
        One().__class__ = Other
        gc.collect()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGALRM


if __name__ == "__main__":
    found = run(float(sys.argv[1]) if sys.argv[1:] else 30)
    print("{} of {} forked children hung".format(*found))
    sys.exit(bool(found[0]))
