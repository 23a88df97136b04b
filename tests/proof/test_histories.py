"""Histories of four processes, some of them killed, are linearizable."""

from collections import Counter
from itertools import permutations

import lean
import pytest
from linearizable import NEVER, NotLinearizableError, Operation, check
from subjects import SUBJECTS

LENGTH = 2000
SOAK = 10_000_000
CAUGHT = "not linearizable|a process failed"


@pytest.mark.part(6)
@pytest.mark.parametrize("name", SUBJECTS)
def test_histories_of_killed_processes_are_linearizable(events, name, soak):
    count = SOAK // LENGTH // len(SUBJECTS) if soak else 30
    arguments = "histories", "check", name, count, LENGTH
    met = sum(lean.run(events, *arguments, timeout_s=None if soak else 100), Counter())
    print(met)
    if events.whole:
        assert met["operations"] > 0.9 * count * LENGTH
        assert met["overlapping"] > 0.1 * met["operations"]
        assert met["killed"] > count / 2


@pytest.mark.planted
@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("share", "no lock"),
        ("share", "stale read"),
        ("share", "any version"),
        ("dict", "no lock"),
        ("dict", "stale index"),
        ("dict", "unseen change"),
    ],
)
def test_a_planted_bug_is_caught(events, name, bug):
    with pytest.raises(lean.FailedCheckError, match=CAUGHT) as caught:
        lean.run(events, "histories", "check", name, 50, LENGTH, bug)
    assert caught.value.event is not None


# --- The checker itself, on a register -------------------------------------------------------


def _register(state, act):
    name, *given = act
    if name == "write":
        return given[0], ()
    if name == "add":
        return state + given[0], (state,)
    return state, (state,)


def _write(n, begin, end, told=()):
    return Operation(0, ("write", n), told, begin, end)


def _read(n, begin, end):
    return Operation(0, ("read",), (n,), begin, end)


def _add(n, before, begin, end):
    return Operation(0, ("add", n), None if before is None else (before,), begin, end)


LINEARIZABLE = {
    "one after the other": [_write(1, 1, 2), _read(1, 3, 4)],
    "a read beside a write is old": [_write(1, 1, 4), _read(0, 2, 3)],
    "a read beside a write is new": [_write(1, 1, 4), _read(1, 2, 3)],
    "at the same moment": [_write(1, 1, 2), _read(0, 2, 3)],
    "writes beside each other in either order": [
        _write(1, 1, 4), _write(2, 2, 3), _read(1, 5, 6),
    ],
    "a killed one happened": [_write(1, 1, 9, None), _read(0, 2, 3), _read(1, 4, 5)],
    "a killed one never happened": [_write(1, 1, 4, None), _read(0, 5, 6)],
    "a killed one happens at last": [
        _write(1, 1, NEVER, None), _read(0, 5, 6), _read(0, 7, 8), _read(1, 9, 10),
    ],
    "sums beside each other": [_add(1, 2, 1, 9), _add(2, 0, 2, 8), _read(3, 10, 11)],
}  # fmt: skip

NOT_LINEARIZABLE = {
    "a stale read": [_write(1, 1, 2), _read(0, 3, 4)],
    "a value that nobody wrote": [_write(1, 1, 4), _read(2, 2, 3)],
    "new, then old": [_write(1, 1, 9), _read(1, 2, 3), _read(0, 4, 5)],
    "two readers in opposite orders": [
        _write(1, 1, 20), _write(2, 2, 19), _read(1, 3, 4), _read(2, 5, 6), _read(1, 7, 8),
    ],
    "a lost update": [_add(1, 0, 1, 3), _add(2, 0, 2, 4)],
    "a lost update of one that was killed": [
        _add(1, None, 1, 3), _read(1, 2, 4), _add(2, 0, 5, 6),
    ],
    "a killed one happens after its end": [
        _write(1, 1, 4, None), _read(0, 5, 6), _read(1, 7, 8),
    ],
    "a killed one happens twice": [
        _write(1, 1, 20, None), _read(1, 2, 3), _write(2, 4, 5), _read(1, 6, 7),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_what_is_linearizable_passes(name):
    check(LINEARIZABLE[name], 0, _register)


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_what_is_not_linearizable_is_refused(name):
    with pytest.raises(NotLinearizableError, match="not linearizable"):
        check(NOT_LINEARIZABLE[name], 0, _register)


def test_the_checker_agrees_with_trying_every_order(events):
    """Small histories at random, most of them made by some order, one outcome in two changed."""
    agreed = Counter()
    for _ in events(range(2000)):
        history = _at_random(events.rng())
        try:
            found = bool(check(history, 0, _register))
        except NotLinearizableError:
            found = False
        assert found == _some_order(history), "\n".join(map(str, history))
        agreed[found] += 1
    events.count = 0  # These are no histories of ours.
    assert not events.whole or min(agreed.values()) > 200


def _at_random(rng):
    history, state = [], 0
    for moment in range(0, 10 * rng.randrange(2, 6), 10):
        act = rng.choice([("write", rng.randrange(3)), ("add", 1), ("read",)])
        state, outcome = _register(state, act)
        if rng.random() < 0.1 and outcome:
            outcome = (rng.randrange(4),)
        if rng.random() < 0.2:
            outcome = None
        begin, end = moment - rng.randrange(12), moment + rng.randrange(12)
        if outcome is None and rng.random() < 0.3:
            end = NEVER
        history.append(Operation(0, act, outcome, begin, end))
    return history


def _some_order(history):
    """Whether some order of the operations, perhaps without killed ones, explains them all."""
    sure = {each for each in history if each.outcome is not None}
    return any(
        sure <= set(order) and _explains(order)
        for count in range(len(sure), len(history) + 1)
        for order in permutations(history, count)
    )


def _explains(order):
    state, latest = 0, -NEVER
    for each in order:
        latest = max(latest, each.invoked_ns)
        if each.returned_ns < latest:
            return False
        state, outcome = _register(state, each.act)
        if each.outcome not in {None, outcome}:
            return False
    return True
