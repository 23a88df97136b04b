"""Two hundred children, three of four of them killed: what they did is there, and nobody hangs."""

from collections import Counter

import lean
import pytest


def test_what_a_crowd_was_told_is_done_stays_done(events, soak):
    rounds, children = (10, 1000) if soak else (1, 200)
    arguments = "crowd", "check", rounds, children, 20
    met = sum(lean.run(events, *arguments, timeout_s=None if soak else 100), Counter())
    print(met)
    assert met["killed"] == met["children"] * 3 // 4
    assert met["changes"] > met["children"]


@pytest.mark.planted
@pytest.mark.parametrize("bug", ["no lock", "late commit"])
def test_a_planted_bug_is_caught(events, bug):
    with pytest.raises(lean.FailedCheckError, match="lost|a child failed") as caught:
        lean.run(events, "crowd", "check", 4, 40, 20, bug)
    assert caught.value.event is not None
