"""What is held stays what it was, whoever comes in between and whoever is killed."""

from collections import Counter

import lean
import pytest
from holding import SUBJECTS

OVERTAKEN = [name for name in SUBJECTS if "alone" not in name]
"""Where nobody holds anything it is the same."""


@pytest.mark.part(24)
@pytest.mark.parametrize("commits", [1, 2, 3])
@pytest.mark.parametrize("name", OVERTAKEN)
def test_a_reader_that_is_overtaken_holds_one_version(events, name, commits):
    done = sum(lean.run(events, "holding", "reader_overtaken", name, commits))
    assert not events.whole or done > 300


@pytest.mark.part(24)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", OVERTAKEN)
def test_a_writer_that_is_overtaken_spares_what_is_held(events, name):
    done = sum(lean.run(events, "holding", "writer_overtaken", name, timeout_s=800))
    assert not events.whole or done > 300


@pytest.mark.part(48)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name in SUBJECTS if name != "snapshot"])
def test_a_kill_beside_what_is_held_leaves_the_old_or_the_new_value(events, name):
    left = sum(lean.run(events, "holding", "kills", name, timeout_s=800), Counter())
    if events.whole:
        assert left.total() > 300 and left["old"] > 0 and left["new"] > 0


@pytest.mark.timeout(300)
def test_nothing_is_torn_where_all_are_killed_at_any_time(events, soak):
    seconds = 120 if soak else 3
    done = sum(lean.run(events, "holding", "soak", seconds, timeout_s=200), Counter())
    assert done["kills"] > seconds and done["versions"] > 10 * seconds


@pytest.mark.planted
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("check", "args", "bug"),
    [
        ("reader_overtaken", ("share", 2), "no second look"),
        ("reader_overtaken", ("share", 2), "holds not asked for"),
        ("writer_overtaken", ("share",), "asked too early"),
        ("kills", ("share",), "holds not asked for"),
        ("kills", ("share",), "newest not spared"),
        ("kills", ("drafts alone",), "lag unchecked"),
        ("kills", ("drafts alone",), "lag kept while written"),
        ("kills", ("drafts",), "holds not asked for"),
        ("kills", ("compacting",), "newest not spared"),
        ("kills", ("patches alone",), "older run wins"),
        ("kills", ("patches",), "base not held"),
        ("reader_overtaken", ("patches", 12), "no second look"),
    ],
)
def test_a_planted_bug_is_caught(events, check, args, bug):
    with pytest.raises(lean.FailedCheckError, match=r"Error|torn|changed"):
        lean.run(events, "holding", check, *args, bug, timeout_s=800)
