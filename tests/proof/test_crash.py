"""Power cuts in durable commits: any subset of the sectors written since a barrier."""

import lean
import pytest
from crash import SCENES


@pytest.mark.part(8)
@pytest.mark.parametrize("name", SCENES)
def test_what_was_seen_is_there_after_a_power_cut(events, name, soak):
    most = 1_000_000 // len(SCENES) if soak else 100_000 // len(SCENES) if events.whole else None
    lean.run(events, "crash", "look", name, None, most, timeout_s=None if soak else 100)


def test_a_name_is_there_after_a_power_cut_and_one_taken_away_is_not(events):
    lean.run(events, "disk", "names")


def test_a_folder_that_is_not_synced_is_caught(events):
    with pytest.raises(lean.FailedCheckError, match="AssertionError"):
        lean.run(events, "disk", "names", True)


@pytest.mark.planted
@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("sets", "no barrier"),
        ("keys", "no barrier"),
        ("sets", "no check"),
        ("compaction", "no check"),
        ("other area", "check without head"),
        ("sets", "early version"),
    ],
)
def test_a_planted_bug_is_caught(events, name, bug):
    with pytest.raises(lean.FailedCheckError, match=r"Error"):
        lean.run(events, "crash", "look", name, bug, 100_000)
