"""Ratios of running times: short loops, taken in turns, so that noise meets all of them alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from statistics import median
from timeit import Timer

LOOP_S = 1.5e-3
"""About how long one short loop runs: less than a scheduler's slice, far more than the clock."""


class Times:
    """Seconds per call of several statements, one figure of each for each round."""

    def __init__(self) -> None:
        self._rounds: dict[str, list[float]] = defaultdict(list)

    def take(self, name: str, timer: Timer, number: int) -> None:
        """Run one loop and note it."""
        self.note(name, timer.timeit(number) / number)

    def note(self, name: str, seconds: float) -> None:
        """Note what one call took, where another process has timed it."""
        self._rounds[name].append(seconds)

    def seconds(self, name: str) -> float:
        """The median time of one call."""
        return median(self._rounds[name])

    def ratio(self, name: str, baseline: str) -> float:
        """The median over the rounds of one statement's time to another's in the same round."""
        pairs = zip(self._rounds[name], self._rounds[baseline], strict=True)
        return median(time / base for time, base in pairs)


def loop_length(timer: Timer, loop_s: float = LOOP_S) -> int:
    """How many calls fill one short loop; warms the statement up on the way."""
    number = 1
    while timer.timeit(number) < loop_s:
        number *= 2
    return number


def take_turns(timers: Mapping[str, Timer], rounds: int, loop_s: float = LOOP_S) -> Times:
    """Time the statements A B C A B C ..., each time in a loop of its own length."""
    lengths = {name: loop_length(timer, loop_s) for name, timer in timers.items()}
    times = Times()
    for _ in range(rounds):
        for name, timer in timers.items():
            times.take(name, timer, lengths[name])
    return times
