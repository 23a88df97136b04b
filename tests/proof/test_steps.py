"""One commit, a machine instruction at a time: the value is old, and new from then on."""

import lean
import pytest
import tracing
from steps import KINDS, NAMES

pytestmark = pytest.mark.skipif(bool(why := tracing.why_not()), reason=str(why))


def pytest_generate_tests(metafunc):
    if "swept" in metafunc.fixturenames:
        metafunc.parametrize(
            "swept", NAMES if metafunc.config.getoption("soak") else ["block", "patch"]
        )


@pytest.mark.planted
def test_a_commit_is_whole_after_every_instruction_and_after_a_kill_at_every_store(
    events, swept, soak
):
    whole = soak and swept not in {"growth", "large for large"}  # They pickle for a minute.
    stores = lean.run(events, "steps", "sweep", swept, whole, timeout_s=None if soak else 100)
    if events.whole:
        assert events.count > 20_000
        assert max(stores) >= 7  # Holder and since when, record, slot, version, holder again.


@pytest.mark.planted
def test_publishing_of_each_kind_is_whole_after_every_instruction(events, soak):
    names = list(NAMES if soak else KINDS)
    walks = sum(lean.run(events, "steps", "tour", names, timeout_s=None if soak else 100), [])
    for name, steps, stores in walks:
        assert steps > 1000 and stores >= 4, (name, steps, stores)


@pytest.mark.planted
@pytest.mark.parametrize(
    ("name", "bug", "said"),
    [
        ("block", "version in two pieces", "Error after instruction"),
        ("block", "version and back", "old again"),
        ("set", "early version", "Error after instruction"),
        ("one key", "early record", "Error after instruction"),
    ],
)
def test_a_planted_bug_is_caught(events, name, bug, said):
    with pytest.raises(lean.FailedCheckError, match=said) as caught:
        lean.run(events, "steps", "sweep", name, False, bug)
    assert caught.value.event is not None
