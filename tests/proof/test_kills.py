"""SIGKILL at every bytecode of everything that locks or publishes."""

from collections import Counter

import lean
import pytest
from scenes import SCENES

pytestmark = pytest.mark.core("python")  # The compiled one's steps are instructions: test_steps.py.


@pytest.mark.part(48)
@pytest.mark.parametrize("name", SCENES)
def test_a_kill_at_any_step_leaves_the_old_or_the_new_value(events, name):
    left = sum(lean.run(events, "kills", "sweep", name), Counter())
    if events.whole:
        assert left.total() > 200
        assert left["new"] > 0
        assert left["old"] > 0 or name == "catching up"  # Which changes nothing.
        if name == "several shares":  # Between their publishes there is as little as can be.
            assert left["parted"] < left.total() / 5


@pytest.mark.planted
@pytest.mark.parametrize("name", SCENES)
def test_a_kill_of_the_one_who_comes_after_too(events, name, soak):
    count = 50_000 // len(SCENES) + 1 if soak else 10
    lean.run(events, "kills", "pairs", name, count, timeout_s=None if soak else 100)


@pytest.mark.planted
@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("block", "torn value"),
        ("one key", "torn record"),
        ("first store", "early version"),
        ("other area", "early version"),
        ("set", "inherited description"),
        ("snapshot of patched keys", "not laid over in snapshots"),
    ],
)
def test_a_planted_bug_is_caught(events, name, bug):
    with pytest.raises(lean.FailedCheckError, match=r"Error") as caught:
        lean.run(events, "kills", "sweep", name, bug)
    assert caught.value.event is not None
