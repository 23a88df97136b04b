"""Two workers do what hypothesis thinks of; a model in plain Python says what must come of it."""

import lean
import pytest
from machines import EXAMPLES, MACHINES


@pytest.mark.part(16)
@pytest.mark.timeout(400)  # Hypothesis looks for the shortest failure for 300 s at most.
@pytest.mark.parametrize("name", MACHINES)
def test_two_workers_and_the_model_are_told_the_same(events, name, soak):
    examples = (20_000 if soak else 200) // (4 if name == "definitions" else 1)  # It forks.
    lots = examples // EXAMPLES
    timeout_s = None if soak or events.only is not None else 100
    steps = sum(lean.run(events, "machines", "check", name, lots, timeout_s=timeout_s))
    assert not events.whole or steps > 10 * lots * EXAMPLES


@pytest.mark.planted
@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("share", "rollback commits"),
        ("share", "always publishes"),
        ("share", "any version"),
        ("share", "nobody is found dead"),
        ("dict", "pop forgets"),
        ("dict", "lost order"),
        ("definitions", "marks are alike"),
        ("definitions", "definitions are dropped"),
    ],
)
def test_a_planted_bug_is_caught(events, name, bug):
    with pytest.raises(lean.FailedCheckError, match="AssertionError") as caught:
        lean.run(events, "machines", "check", name, 24, bug)
    assert caught.value.event is not None
    assert "@reproduce_failure" in str(caught.value)
