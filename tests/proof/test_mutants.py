"""Any byte of a region changed: the right value, or an error that says so; no crash, no hang."""

from collections import Counter

import lean
import pytest
from regions import REGIONS

pytestmark = pytest.mark.part(25)

MUTANTS = 100_000
FILES, WAITS = 300, 3_000


@pytest.mark.parametrize("name", REGIONS)
def test_damaged_bytes_are_found_out_or_harmless(events, name, soak):
    count = (MUTANTS - FILES - WAITS) // len(REGIONS) + 1
    if soak:
        count *= 100
    found = sum(_run(events, soak, "mutants", "check", name, count), Counter())
    if events.whole:
        assert min(found["right"], found["refused"], found["not opened"]) > count / 100
        assert found["changed"] > count / 100 or "empty" in name


def test_a_file_of_another_length_is_refused(events, soak):
    refused = sum(_run(events, soak, "mutants_outside", "files", FILES * (100 if soak else 1)))
    assert not events.whole or refused > FILES / 2


def test_damaged_words_lead_to_no_endless_wait(events, soak):
    """The words say which descriptor of which process leads to the lock that the holder waits for.

    The descriptor was opened and read whatever it was. Opening a FIFO without writers blocks for
    ever, and reading from a folder or at a place of a pipe raised an OSError.
    """
    _run(events, soak, "mutants_outside", "waits", WAITS * (100 if soak else 1))


def _run(events, soak, *what):
    return lean.run(events, *what, timeout_s=None if soak else 100)


@pytest.mark.planted
@pytest.mark.parametrize(
    ("name", "bug", "said"),
    [
        ("small", "head unchecked", r"StrayBytesError|AssertionError: Mutant|struct\.error"),
        ("small", "head out of bounds", r"StrayBytesError|AssertionError: Mutant"),
        ("arrays", "table unchecked", r"StrayBytesError|AssertionError: Mutant"),
        ("keys", "record unchecked", r"StrayBytesError|AssertionError: Mutant"),
        ("long directory", "record unchecked", r"StrayBytesError|AssertionError: Mutant"),
        ("compacting", "allocated believed", r"OverflowError|StrayBytesError"),
        ("first", "errors let out", r"in recover\s+raise err"),
    ],
)
def test_a_planted_bug_is_caught(events, name, bug, said):
    with pytest.raises(lean.FailedCheckError, match=said) as caught:
        lean.run(events, "mutants", "check", name, 10_000, bug)
    assert caught.value.event is not None


@pytest.mark.planted
def test_a_planted_endless_loop_is_caught_at_its_event(events):
    with pytest.raises(lean.FailedCheckError, match="hangs: more than 1 s") as caught:
        lean.run(events, "mutants", "check", "small", 10_000, "floor believed", 1)
    assert caught.value.event is not None


@pytest.mark.planted
def test_a_planted_wait_for_a_fifo_is_caught_at_its_event(events):
    with pytest.raises(lean.FailedCheckError, match="hangs: more than 1 s") as caught:
        lean.run(events, "mutants_outside", "waits", 10_000, "anything opened", 1)
    assert caught.value.event is not None


@pytest.mark.planted
def test_a_planted_crash_is_caught_at_its_event(events):
    with pytest.raises(lean.FailedCheckError, match="crashed: SIGSEGV") as caught:
        lean.run(events, "mutants", "check", "small", 10_000, "floor followed")
    assert caught.value.event is not None


@pytest.mark.planted
def test_a_planted_trust_in_a_file_is_caught(events):
    """What is read beyond the file's end is nothing, or an error of many kinds."""
    said = r"(AssertionError|IndexError|TypeError|CorruptRegionError): \S+"
    with pytest.raises(lean.FailedCheckError, match=said):
        lean.run(events, "mutants_outside", "files", 1_000, "size unchecked")
