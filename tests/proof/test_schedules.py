"""Whatever the order of a writer's stores and a reader's loads: a read is of one version."""

import lean
import pytest
from plays import PLAYS

pytestmark = pytest.mark.core("python")


@pytest.mark.parametrize("name", PLAYS)
def test_every_order_of_loads_and_stores_reads_one_version(events, name):
    played = lean.run(events, "schedules", "every_order", name)
    assert not events.whole or sum(played) > 10


@pytest.mark.planted
@pytest.mark.parametrize("name", ["halves of slots", "other area"])
def test_every_order_of_a_writer_and_two_readers_reads_one_version(events, name):
    played = lean.run(events, "schedules", "every_order", name, 1)
    assert not events.whole or sum(played) > 1000


@pytest.mark.soak
@pytest.mark.parametrize("name", [name for name, play in PLAYS.items() if play().readers])
def test_every_order_of_three_processes_in_every_play(events, name):
    lean.run(events, "schedules", "every_order", name, 1, timeout_s=None)


@pytest.mark.planted
@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("three sets", "early version"),
        ("other area", "no floor"),
        ("other area, read in halves", "trusting reader"),
        ("late reader of snapshots", "trusting index"),
        ("two optimistic updates", "no version check"),
        ("two blocks", "no lock"),
        ("held", "no second look"),
        ("held", "holds not asked for"),
    ],
)
def test_a_planted_bug_is_caught(events, name, bug):
    said = r"\nAssertionError: (Seen|\d|\{)|CorruptRegionError"
    with pytest.raises(lean.FailedCheckError, match=said) as caught:
        lean.run(events, "schedules", "every_order", name, 0, bug)
    assert caught.value.event is not None
