"""What `shared_state` adds to the transaction that one would write by hand."""

from __future__ import annotations

from timeit import Timer
from typing import Any

from mmapshare import Share, shared_state
from tests.benchmarks.table import Row, ratio_row
from tests.benchmarks.timing import take_turns

BLOCK = "with share.locked() as state: work(state, 1)"


def decorated_call(rounds: int) -> list[Row]:
    """A call of a decorated function, and of a shared class's method, beside the same block."""

    def work(state: Any, n: int) -> None:
        state["calls"] += n

    @shared_state(initial={"calls": 0})
    def tally(state: Any, n: int) -> None:
        state["calls"] += n

    @shared_state
    class Counter:
        def __init__(self) -> None:
            self.calls = 0

        def add(self, n: int) -> None:
            self.calls += n

    names = {"share": Share({"calls": 0}), "work": work, "tally": tally, "counter": Counter()}
    statements = {"block": BLOCK, "function": "tally(1)", "method": "counter.add(1)"}
    timers = {name: Timer(code, globals=names) for name, code in statements.items()}
    times = take_turns(timers, rounds)
    by_hand = "the block written by hand"
    return [
        ratio_row(
            "a call of a `@shared_state` function", times, "function", "block", 1.25, by_hand
        ),
        ratio_row("method of a `@shared_state` class", times, "method", "block", None, by_hand),
    ]
