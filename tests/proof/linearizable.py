"""Whether a history is linearizable: whether one operation at a time could have made it.

Just-in-time linearization: J. M. Wing and C. Gong, "Testing and Verifying Concurrent Objects"
(1993), as improved by G. Lowe, "Testing for Linearizability" (2017); Knossos' ``linear`` does the
same. What differs: an operation whose process was killed may have happened or not, but happened
before the process was gone.

A *configuration* is one way in which it can have gone so far: the running operations that have
happened already, and the state of the object. When an operation returns, those configurations
go on in which it has happened, or can happen after others of the running ones. Each is kept
once, and with few processes there are few: the time grows with the length of the history, and no
faster.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import attrs

Configuration = tuple[frozenset[Any], Hashable]
Apply = Callable[[Any, tuple[Any, ...]], tuple[Any, Any]]
"""The object alone: from its state and an act to the next state and the outcome."""

NEVER = 1 << 62


@attrs.frozen(eq=False)
class Operation:
    """What one process did, and between which moments.

    Attributes:
        outcome: what it was told; None where it was killed before.
        returned_ns: when it was told, or was gone; NEVER where that is not known.
    """

    process: int
    act: tuple[Any, ...]
    outcome: Any
    invoked_ns: int
    returned_ns: int

    def __str__(self) -> str:
        what = "was killed" if self.outcome is None else f"-> {self.outcome}"
        span = f"{self.invoked_ns % 10**12:,} to {self.returned_ns % 10**12:,}"
        return f"process {self.process}: {self.act} {what}, {span} ns"


class NotLinearizableError(AssertionError):
    """No order of the operations explains what they were told."""


def check(history: Iterable[Operation], initial: Hashable, apply: Apply) -> int:
    """NotLinearizableError, or the most configurations that there were at a time."""
    running: set[Operation] = set()
    configurations: set[Configuration] = {(frozenset(), initial)}
    most = 1
    for operation, returns in _in_time(history):
        if not returns:
            running.add(operation)
            continue
        after = _after(operation, configurations, running, apply)
        if not after:
            raise NotLinearizableError(_story(operation, configurations, running))
        running.remove(operation)
        configurations = after
        most = max(most, len(after))
    return most


def _in_time(history: Iterable[Operation]) -> Iterator[tuple[Operation, bool]]:
    # At the same moment what begins comes first: the two may have met.
    moments = [(operation.invoked_ns, False, operation) for operation in history]
    moments += [(each.returned_ns, True, each) for _, _, each in moments]
    for when, returns, operation in sorted(moments, key=lambda moment: moment[:2]):
        if when != NEVER:
            yield operation, returns


def _after(
    operation: Operation,
    configurations: set[Configuration],
    running: set[Operation],
    apply: Apply,
) -> set[Configuration]:
    """The configurations once the operation has returned."""
    after: set[Configuration] = set()
    if operation.outcome is None:
        after |= {each for each in configurations if operation not in each[0]}
    seen, todo = set(configurations), list(configurations)
    while todo:
        happened, state = todo.pop()
        if operation in happened:
            after.add((happened - {operation}, state))
            continue
        for other in running - happened:
            changed, outcome = apply(state, other.act)
            found = (happened | {other}, changed)
            if other.outcome in {None, outcome} and found not in seen:
                seen.add(found)
                todo.append(found)
    return after


def _story(
    operation: Operation, configurations: set[Configuration], running: set[Operation]
) -> str:
    lines = [f"not linearizable: {operation}", "while these were running:"]
    lines += [f"  {each}" for each in running if each is not operation]
    lines += ["the state may have been, and of those that were running had happened:"]
    for happened, state in configurations:
        lines.append(f"  {state}; {', '.join(map(str, happened)) or 'none'}")
    return "\n".join(lines)
