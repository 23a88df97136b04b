"""Eight threads in each of two processes do all at once whatever can be done to a Share and a
SharedDict, forking among it; then the sums are exact.

What holds without the global interpreter lock is shown by this on a Python without it: nobody
but the library's own lock keeps two threads apart.
"""

from __future__ import annotations

import os
import pickle
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from support import Child
from support.without_gil import FORKS_BESIDE_THREADS_HANG

from mmapshare import Share, SharedDict, locked

PROCESSES, THREADS = 2, 8
KEYS = 5


def check(events: Any, rounds: int, steps: int, seconds: float = 0) -> Counter[str]:
    """So many rounds of so many steps a thread, or more until so many seconds are over.

    ``events.count`` counts steps.
    """
    met: Counter[str] = Counter()
    sys.setswitchinterval(1e-5)
    until = time.monotonic() + seconds
    for number in events(range(rounds) if not seconds else _until(until)):
        share = Share({"n": 0})
        shared: SharedDict[Any, int] = SharedDict(dict.fromkeys(range(KEYS), 0))
        seeds = [f"{events.seed} {number} {place}" for place in range(PROCESSES)]
        children = [Child(_work, share, shared, seed, steps) for seed in seeds]
        done = sum((child.result() for child in children), Counter[str]())
        assert share.get()["n"] == done["added to the share"], (share.get(), done)
        assert sum(shared[key] for key in range(KEYS)) == done["added to the dict"], done
        assert len(shared) == KEYS + done["keys of one's own"], done
        share.close()
        shared.close()
        met += done
        events.count += PROCESSES * THREADS * steps - 1
    return met


def _until(end: float) -> Any:
    number = 0
    while time.monotonic() < end:
        yield number
        number += 1


def _work(child: Any, share: Any, shared: Any, seed: str, steps: int) -> Counter[str]:
    done: list[Counter[str]] = []
    failed: list[BaseException] = []
    begin = threading.Barrier(THREADS)

    def thread(number: int) -> None:
        try:
            begin.wait()
            done.append(_Actor(share, shared, random.Random(f"{seed} {number}")).act(steps))
        except BaseException as err:
            failed.append(err)

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failed:
        raise failed[0]
    return sum(done, Counter[str]())


class _Actor:
    """One thread: what it does next is drawn; it counts what it did."""

    def __init__(self, share: Any, shared: Any, rng: random.Random) -> None:
        self.share, self.shared, self.rng = share, shared, rng
        self.done: Counter[str] = Counter()
        self.seen = 0
        self.mine = f"{os.getpid()} {threading.get_ident()}"

    def act(self, steps: int) -> Counter[str]:
        often: list[Callable[[], None]] = [
            self.add_in_a_block, self.set_while_locked, self.update, self.update_optimistically,
            self.add_to_a_key, self.transact, self.add_to_both, self.look, self.look_at_the_dict,
        ]  # fmt: skip
        seldom = [self.wait, self.make_and_close, self.take_a_handle, self.own_key]
        if not FORKS_BESIDE_THREADS_HANG:
            seldom.append(self.fork)
        for _ in range(steps):
            self.rng.choice(seldom if self.rng.random() < 0.1 else often)()
        return self.done

    def add_in_a_block(self) -> None:
        with self.share.locked() as view:
            view["n"] += 1
        self.done["added to the share"] += 1

    def set_while_locked(self) -> None:
        self.share.lock()
        try:
            self.share.set({"n": self.share.get()["n"] + 1})
        finally:
            self.share.unlock()
        self.done["added to the share"] += 1

    def update(self) -> None:
        self.share.update(_add)
        self.done["added to the share"] += 1

    def update_optimistically(self) -> None:
        self.share.update(_add, optimistic=True)
        self.done["added to the share"] += 1

    def add_to_a_key(self) -> None:
        key = self.rng.randrange(KEYS)
        with self.shared.locked() as view:
            view[key] += 1
        self.done["added to the dict"] += 1

    def transact(self) -> None:
        key = self.rng.randrange(KEYS)

        def add(view: Any) -> None:
            view[key] += 1

        self.shared.transact(add)
        self.done["added to the dict"] += 1

    def add_to_both(self) -> None:
        with locked(self.share, self.shared) as (view, keys):
            view["n"] += 1
            keys[0] += 1
        self.done["added to the share"] += 1
        self.done["added to the dict"] += 1

    def own_key(self) -> None:
        key = self.mine, self.done["keys of one's own"]
        self.shared[key] = 1
        assert self.shared[key] == 1
        self.done["keys of one's own"] += 1

    def look(self) -> None:
        n = self.share.get()["n"]
        assert n >= self.seen, "older than what was seen before"
        self.seen = n

    def look_at_the_dict(self) -> None:
        whole = self.shared.snapshot()
        assert set(range(KEYS)) <= set(whole)
        assert self.shared[self.rng.randrange(KEYS)] >= 0

    def wait(self) -> None:
        self.share.wait(timeout=0.002)

    def make_and_close(self) -> None:
        share = Share([0])
        share.update(lambda value: value.append(1))
        assert share.get() == [0, 1]
        share.close()

    def take_a_handle(self) -> None:
        assert pickle.loads(pickle.dumps(self.share)) is self.share

    def fork(self) -> None:
        """Beside busy threads; the child has a lock of its own, and the same value."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self.share.update(_add)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"a forked child ended with {status}"
        self.done["added to the share"] += 1


def _add(value: dict[str, int]) -> None:
    value["n"] += 1
