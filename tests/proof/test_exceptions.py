"""An exception anywhere leaves the lock free, and the old value or the new one."""

import sys

import lean
import pytest
from scenes import SCENES


@pytest.mark.part(32)
@pytest.mark.core("python")
@pytest.mark.parametrize("name", SCENES)
def test_an_exception_at_any_step_leaves_the_lock_free(events, name, soak):
    struck = lean.run(events, "exceptions", "sweep", name, 3 if soak else 1)
    assert not events.whole or sum(struck) > 200


@pytest.mark.part(5)
def test_a_storm_of_signals_leaves_no_lock_held(events, soak):
    storms = 2000 if soak else 40
    lean.run(events, "exceptions", "storm", storms, 500, timeout_s=None if soak else 100)


cpython = pytest.mark.skipif(sys.implementation.name != "cpython", reason="CPython's bytecode")


@pytest.mark.core("python")
@pytest.mark.planted
@cpython
def test_locks_that_are_held_without_the_guard_are_cleared_by_the_next_block(events):
    held = lean.run(events, "exceptions", "second_line", 3000)
    assert sum(held) > 0


@pytest.mark.core("python")
@pytest.mark.planted
@cpython
def test_a_planted_bug_is_caught_by_the_storm(events):
    """Without the guard at the first instruction of ``__exit__`` some locks stay held."""
    with pytest.raises(lean.FailedCheckError, match="the lock is held"):
        lean.run(events, "exceptions", "storm", 20, 500, "no guard")


@pytest.mark.planted
def test_a_planted_bug_is_caught_by_the_sweep(events):
    with pytest.raises(lean.FailedCheckError, match="the lock"):
        lean.run(events, "exceptions", "sweep", "set", 1, "no abandon")
