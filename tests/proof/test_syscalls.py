"""The N-th system call fails: the operation is done, or not and says why; nothing is left."""

from collections import Counter

import lean
import pytest
import tracing
from operations import EVERY_RUN, METHODS
from scenes import SCENES

pytestmark = pytest.mark.skipif(bool(why := tracing.why_not()), reason=str(why))


@pytest.mark.part(6)
def test_whichever_system_call_fails_nothing_is_torn_held_or_left(events, kind, soak):
    more = [*(set(SCENES) - set(EVERY_RUN)), *(f"by {method}" for method in METHODS)]
    names = EVERY_RUN + (sorted(more) if soak else [])
    ended = lean.run(events, "syscalls", "sweep", kind, names, timeout_s=None if soak else 100)
    if events.whole:
        ended = sum(ended, Counter())
        assert ended.total() > 250
        assert ended["done"] > 100  # What is repeated, and what has another way.
        assert ended["RegionFullError"] > 10


@pytest.mark.planted
@pytest.mark.parametrize(
    ("name", "bug", "said"),
    [
        ("make a share", "left open", "something is left open"),
        ("growth", "early ALLOCATED", "memory is promised"),
        ("open", "mute handle", "does not tell why"),
        ("first store", "no abandon", "the lock"),
    ],
)
def test_a_planted_bug_is_caught(events, name, bug, said):
    with pytest.raises(lean.FailedCheckError, match=said) as caught:
        lean.run(events, "syscalls", "sweep", "memfd", [name], bug)
    assert caught.value.event is not None
