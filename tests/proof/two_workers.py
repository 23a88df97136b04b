"""What the state machines have in common: two processes that do as they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import stateful
from hypothesis import strategies as st
from support import Child, inside

SIDES = st.sampled_from([0, 1])
Knob = tuple[str, str, Any]
"""A module, a name there, and what it is to be."""

_workers: list[Child] = []
"""They go on from example to example, since a fork of a process with hypothesis is slow."""


def _serve(child: Child, work: Callable[..., Any]) -> None:
    """Do what is heard until killed."""
    shared: Any = None
    while True:
        what, *given = child.hear()
        if what == "begin":
            shared, knobs = given
            turn(knobs)
            child.say("ready")
        else:
            work(child, shared, what, *given)


def turn(knobs: list[Knob]) -> list[Knob]:
    """Set them; returns how they were."""
    before = []
    for name, value in knobs:
        before.append((name, getattr(inside, name)))
        inside.put(name, value)
    return before


def dismiss() -> None:
    """Let the workers go."""
    while _workers:
        _workers.pop().kill()


class TwoWorkers(stateful.RuleBasedStateMachine):
    """Workers run ``work(child, shared, *message)`` for what they are asked; `tell` and `answer`
    are `ask` in two steps."""

    work: Any
    shared: Any = None
    steps = 0
    """How many steps all machines of this class have made."""

    def begin(self, shared: Any, knobs: list[Knob]) -> None:
        """Hand something new that is shared to the workers, and the knobs."""
        self.shared, self.knobs = shared, knobs
        self.before = turn(knobs)
        self.busy = [True, True]
        for side in (0, 1):
            if len(_workers) <= side:
                _workers.append(Child(_serve, self.work))
            self._introduce(side)

    def _introduce(self, side: int) -> None:
        # Waited for: a handle is good for as long as the share is open here.
        assert self.ask(side, "begin", self.shared, self.knobs) == "ready"

    def tell(self, side: int, *message: Any) -> None:
        self.busy[side] = True
        _workers[side].say(message)

    def answer(self, side: int) -> Any:
        found = _workers[side].hear()
        if isinstance(found, tuple) and found[:1] == ("error",):
            raise found[1]
        self.busy[side] = False
        return found

    def ask(self, side: int, *message: Any) -> Any:
        self.tell(side, *message)
        return self.answer(side)

    def replace(self, side: int) -> None:
        """Kill a worker where it stands; another takes its place."""
        _workers[side].kill()
        _workers[side] = Child(_serve, self.work)
        self._introduce(side)

    def teardown(self) -> None:
        if self.shared is not None:
            if any(self.busy):
                dismiss()
            self.shared.close()
            turn(self.before)

    @stateful.invariant()
    def a_step_is_made(self) -> None:
        type(self).steps += 1
