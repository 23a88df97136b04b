"""What a stored function remembers, and what it asks: prices under a rule that is swapped live.

    python examples/rules.py

A function that is stored is copied, with what it closes over and the globals that it names. That is
cloudpickle's meaning. Functions of modules that can be imported are stored by name. So a rule keeps
the rate that it was stored with; where the rate is meant to change, it goes into a share, and the
rule asks that: a share in a closure stays the same share, in every process.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

from mmapshare import Share

Rule = Callable[[int], float]


def fixed(rate: float) -> Rule:
    """A rule that remembers its rate."""
    return lambda amount: round(amount * (1 + rate), 2)


def asking(rate: Share[float]) -> Rule:
    """A rule that looks the rate up each time."""
    return lambda amount: round(amount * (1 + rate.get()), 2)


def price(rule: Share[Rule], prices: Share[list[float]]) -> None:
    """What a worker does: load the rule that there is now, and use it."""
    with prices.locked() as view:
        view.value.append(rule.get()(100))


def run() -> list[float]:
    """The prices of four workers, one after the other."""
    rate, prices = Share(0.1), Share[list[float]]([])
    rule = Share(fixed(rate.get()))
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: rate.set(0.5),  # The stored rule has its own 0.1.
        lambda: rule.set(asking(rate)),
        lambda: rate.set(0.2),
    ]
    for step in steps:
        step()
        worker = multiprocessing.Process(target=price, args=(rule, prices))
        worker.start()
        worker.join()
    return prices.get()


if __name__ == "__main__":
    found = run()
    print("fixed, fixed after a change, asking, asking after a change:", *found)
    assert found == [110.0, 110.0, 150.0, 120.0], found
