"""One commit, a machine instruction at a time: the value is old, and new from then on."""

import lean
import pytest
import tracing
from steps import COMPILED, KINDS, NAMES
from support import cores

pytestmark = [
    pytest.mark.skipif(bool(why := tracing.why_not()), reason=str(why)),
    pytest.mark.timeout(360),  # Some take a minute and a half, beside others.
]


def pytest_generate_tests(metafunc):
    if "swept" in metafunc.fixturenames:
        metafunc.parametrize(
            "swept",
            NAMES if metafunc.config.getoption("soak") else ["block", "patch", "patched key"],
        )


@pytest.mark.planted
@pytest.mark.core("python")
def test_a_commit_is_whole_after_every_instruction_and_after_a_kill_at_every_store(
    events, swept, soak
):
    whole = soak and swept not in {"growth", "large for large"}  # They pickle for a minute.
    stores = lean.run(events, "steps", "sweep", swept, whole, timeout_s=None if soak else 300)
    if events.whole:
        assert events.count > 20_000
        assert max(stores) >= 7  # Holder and since when, record, slot, version, holder again.


@pytest.mark.core("c")
@pytest.mark.parametrize(
    "name", [COMPILED[0], *(pytest.param(name, marks=pytest.mark.planted) for name in COMPILED[1:])]
)
def test_a_compiled_commit_is_whole_after_every_instruction_and_a_kill_at_every_store(events, name):
    stores = lean.run(events, "steps", "sweep", name, True, None, "c")
    if events.whole:
        assert events.count > 20_000
        assert max(stores) >= 7


@pytest.mark.planted
def test_publishing_of_each_kind_is_whole_after_every_instruction(events, soak, core):
    names = list(NAMES if soak else KINDS)
    limit_s = None if soak else 300
    walks = sum(lean.run(events, "steps", "tour", names, core, timeout_s=limit_s), [])
    for name, steps, stores in walks:
        assert steps > 1000 and stores >= 4, (name, steps, stores)


@pytest.mark.planted
@pytest.mark.core("python")
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


@pytest.mark.planted
@pytest.mark.core("c")
@pytest.mark.skipif(bool(why := cores.why_not()), reason=str(why))
@pytest.mark.parametrize(
    ("bug", "name"),
    [(1, "block"), (2, "set"), (4, "block"), (4, "set"), (5, "one key")],
)
def test_a_bug_in_the_compiled_commit_is_caught(events, bug, name, tmp_path, monkeypatch):
    """1: the version in two stores; 2: it before its slot; 4, 5: it before the record's bytes."""
    monkeypatch.setenv(cores.BUILT, cores.build(tmp_path, f"-DPLANTED={bug}"))
    with pytest.raises(lean.FailedCheckError, match="Error after instruction"):
        lean.run(events, "steps", "sweep", name, True, None, "c")
