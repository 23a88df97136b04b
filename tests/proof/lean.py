"""Runs a check in processes of its own, which fork three times as fast as one that has pytest's
modules and numpy in memory, and on both cores.

A check is a module's function ``check(events, *args)``. It draws what it does next from
``events``, so that whoever runs it can say where it was when it failed, and can have that alone
again.
"""

from __future__ import annotations

import importlib
import os
import pickle
import random
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PLACES = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
SHARDS = 2


class Events:
    """The events of a check: numbered, and drawn at random from one seed.

    ``only``: the one event to run, None for all. ``shard``: those of them that run here.
    ``part``: one event in so many is run, beginning where the seed says, so that over several
    runs none is left out.
    """

    def __init__(
        self, seed: int, only: int | None = None, part: int = 1, shard: int = 0, shards: int = 1
    ) -> None:
        self.seed, self.only, self.part = seed, only, part
        self.shard, self.shards = shard, shards
        self.current: int | None = None
        self.count = 0

    def __call__(self, numbers: Iterable[int]) -> Iterator[int]:
        """Those of the numbers whose turn it is here."""
        for number in numbers:
            if self.only is not None:
                if number > self.only:
                    return
                if number < self.only:
                    continue
            elif number % self.shards != self.shard:
                continue
            elif (number // self.shards + self.seed) % self.part:
                continue
            self.current = number
            self.count += 1
            yield number
        self.current = None

    @property
    def whole(self) -> bool:
        """Whether all of them are run."""
        return self.only is None and self.part == 1

    def rng(self) -> random.Random:
        """Chance that depends on the seed and the current event, and on nothing else."""
        return random.Random(f"{self.seed} {self.current}")


class FailedCheckError(AssertionError):
    """A check failed at an event, None where it was at its end."""

    def __init__(self, message: str, event: int | None) -> None:
        super().__init__(message)
        self.event = event


def run(
    events: Events, module: str, check: str, *args: Any, timeout_s: float | None = 100
) -> list[Any]:
    """What ``check`` returned in each of the processes; FailedCheckError where one failed.

    Each of them counts its own events; ``events.count`` becomes their sum.
    """
    beside_others = "PYTEST_XDIST_WORKER" in os.environ  # They keep the other cores busy.
    shards = 1 if events.only is not None or beside_others else SHARDS
    start = f"import sys; sys.path[:0] = {PLACES!r}; import lean; lean.serve()"
    started = []
    for shard in range(shards):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        job = (events.seed, events.only, events.part, shard, shards), module, check, args
        with process.stdin as given:
            pickle.dump(job, given)
        started.append(process)
    try:
        answers = [_answer(process, timeout_s) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    for what, _, event, count in answers:
        events.count += count
        if what is not None:
            events.current = event
            raise FailedCheckError(what, event)
    return [result for _, result, _, _ in answers]


def _answer(process: Any, timeout_s: float | None) -> tuple[str | None, Any, int | None, int]:
    # The events' numbers come first, for the case that it hangs or is gone.
    process.stdin = None
    try:
        raw, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return f"no answer in {timeout_s} s", None, None, 0
    try:
        return pickle.loads(raw)
    except (EOFError, pickle.UnpicklingError):
        return f"ended with {process.returncode} without an answer", None, None, 0


def serve() -> None:
    """In the process that was started: run the one job that is given."""
    numbers, module, check, args = pickle.load(sys.stdin.buffer)
    out = os.dup(1)
    os.dup2(2, 1)  # What is printed must not meet the answer.
    events = Events(*numbers)
    what = result = None
    pid = os.getpid()
    try:
        result = getattr(importlib.import_module(module), check)(events, *args)
    except BaseException:
        what = traceback.format_exc()
    if os.getpid() != pid:  # A forked child that got lost.
        os._exit(1)
    with open(out, "wb") as file:
        pickle.dump((what, result, events.current, events.count), file)
