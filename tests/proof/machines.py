"""Hypothesis' state machines, so many examples at a time: each lot is an event.

A failure prints the steps that failed, and a blob to repeat them with; the event does so too, as
its lot begins with a seed of its own. Only there they are made as few as can be, which may take
minutes.
"""

from __future__ import annotations

import logging
from typing import Any

import hypothesis
from definition_machine import DefinitionMachine
from dict_machine import DictMachine
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import run_state_machine_as_test
from lean import Events
from share_machine import ShareMachine
from support import inside
from two_workers import dismiss

from mmapshare import View

MACHINES = {"share": ShareMachine, "dict": DictMachine, "definitions": DefinitionMachine}
EXAMPLES, STEPS = 50, 30
"""Of one lot, and of each example at most."""


def check(events: Events, name: str, lots: int, planted: str | None = None) -> int:
    """Run so many lots; how many steps they made. ``events.count`` counts steps too."""
    logging.getLogger("mmapshare").setLevel(logging.ERROR)  # Of those who died there is a count.
    phases = [Phase.explicit, Phase.generate]
    if planted is not None:
        PLANTED[planted]()
    elif events.only is not None:
        phases.append(Phase.shrink)
    total = 0
    try:
        for _ in events(range(lots)):
            machine = type(MACHINES[name].__name__, (MACHINES[name],), {})
            steps = _run(machine, events.rng().getrandbits(64), phases)
            events.count += steps - 1
            total += steps
    finally:
        dismiss()
    return total


def _run(machine: Any, seed: int, phases: list[Phase]) -> int:
    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        phases=phases,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=settings)
    return int(machine.steps)


# --- Planted bugs ----------------------------------------------------------------------------


def _rollback_commits() -> None:
    """A rollback drops nothing."""
    View.rollback = lambda view: None


def _always_publishes() -> None:
    """A block that changed nothing is a commit."""

    inside.put("changes_of_view", lambda view: inside.encode(inside.value_of(view)))


def _any_version() -> None:
    """A compare-and-set compares nothing."""
    inside.put("value_check", lambda store, expect: None)


def _nobody_is_found_dead() -> None:
    """Nobody notices that a holder died."""
    inside.put("lock_report_dead", lambda lock: None)


def _pop_forgets() -> None:
    """A value that is taken out stays where it is."""
    inside.put("draft_pop", lambda draft, key, *default: draft.get(key, *default))


def _lost_order() -> None:
    """A key that was taken out and set again goes back to its old place."""
    real = inside.changes_of_draft

    def broken(view: Any) -> Any:
        changes = real(view)
        if changes is None:
            return None
        gone, changed, definitions = changes
        again = {key for key, _ in changed}
        return [key for key in gone if key not in again], changed, definitions

    inside.put("changes_of_draft", broken)


def _marks_are_alike() -> None:
    """A class is known by its address, as if memory were never used again."""
    inside.put("mark_of", lambda obj: bytes(16))

    def broken(address: int, mark: bytes) -> Any:
        return next((cls for cls in _all_classes(object) if id(cls) == address), None)

    inside.put("descendant", broken)


def _all_classes(cls: type) -> Any:
    for each in type.__subclasses__(cls):
        yield each
        yield from _all_classes(each)


def _definitions_are_dropped() -> None:
    """A snapshot loses the definitions of values that are not set by its commit."""
    inside.put("needs_of", lambda memory, end: [])


PLANTED = {
    "rollback commits": _rollback_commits,
    "always publishes": _always_publishes,
    "any version": _any_version,
    "nobody is found dead": _nobody_is_found_dead,
    "pop forgets": _pop_forgets,
    "lost order": _lost_order,
    "marks are alike": _marks_are_alike,
    "definitions are dropped": _definitions_are_dropped,
}
