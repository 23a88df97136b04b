"""Nothing grows, however long it goes on."""

import lean
import pytest

MINUTES = 30


@pytest.mark.planted
def test_nothing_grows_over_many_rounds(events, soak):
    seconds = MINUTES * 60 if soak else 0
    lean.run(events, "soak", "soak", 5000 if soak else 160, seconds, timeout_s=None)


@pytest.mark.planted
@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ("descriptors", "descriptors grew"),
        ("copies", "memory_bytes grew"),
        ("mappings", "(mappings|descriptors) grew"),
        ("blocks", "region_bytes grew"),
    ],
)
def test_a_planted_leak_is_caught(events, kept, said):
    with pytest.raises(lean.FailedCheckError, match=said):
        lean.run(events, "soak", "soak", 120, 0, kept)
