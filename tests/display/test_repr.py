"""What a share shows of itself at a prompt: a short value, of others what they are."""

import os
import pickle
import re

import numpy
import pytest
from support import inside

from mmapshare import Share, SharedDict


class Runs:
    """Runs a command where it is loaded."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def _said(share):
    """What the repr says behind the id."""
    return re.fullmatch(r"<Share [0-9a-f]{8}: (.*)>", repr(share))[1]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"hits": 0}, "{'hits': 0}"),
        (None, "None"),
        ("word", "'word'"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, ...]"),
        (numpy.arange(3), "<numpy.ndarray i8 (3,)>"),
        (numpy.zeros(100_000), "numpy.ndarray, 781.4 KiB"),
        (dict.fromkeys(range(10_000)), "dict, 38.8 KiB"),
        ("x" * 5000, "object, 4.9 KiB"),
    ],
)
def test_a_short_value_is_shown_and_a_large_one_described(value, said, make):
    assert _said(make(value)) == f"version 1, value {said}"


def test_a_repr_loads_nothing(tmp_path):
    share = Share([Runs(f"touch {tmp_path / 'ran'}"), 1])
    assert ".system('touch " in repr(share)
    assert not (tmp_path / "ran").exists()
    assert share.get() == [0, 1]
    assert (tmp_path / "ran").exists()


def test_a_share_within_a_value_is_shown_as_itself():
    inner, shared = Share(1), SharedDict()
    share = Share([inner, shared])
    ids = [inside.region_id_of(each).hex()[:8] for each in (inner, shared)]
    assert _said(share) == f"version 1, value [<Share {ids[0]}>, <SharedDict {ids[1]}>]"
    share.set(None)


def test_without_a_value_there_is_none_to_show():
    share = Share()
    assert _said(share) == "empty"
    share.close()
    assert repr(share) == "<Share, closed>"


def test_a_repr_never_raises(make, monkeypatch):
    share = make({"a": 1})
    with share.locked() as view:
        view["a"] = 2
        assert _said(share) == "version 1, value {'a': 1}"
    inside.segment_of(share).map[256:400] = bytes(144)
    assert _said(share) == "version 2"


def test_a_value_that_changes_meanwhile_is_not_shown_with_an_older_version(monkeypatch):
    share = Share(1)
    glimpse = inside.MemoryValueStore.glimpse

    def slow(store, most):
        found = glimpse(store, most)
        share.set(2)
        return found

    monkeypatch.setattr(inside.MemoryValueStore, "glimpse", slow)
    assert _said(share) == "version 1"
    monkeypatch.undo()
    assert _said(share) == "version 2, value 2"


def test_a_value_that_lies_elsewhere_is_not_fetched_to_be_shown(monkeypatch):
    """As one on a server: its version is asked for, and no more."""
    share = Share(1)
    monkeypatch.setattr(inside.MemoryValueStore, "segment", None)
    monkeypatch.setattr(inside.MemoryValueStore, "glimpse", None)
    assert _said(share) == "version 1"
    monkeypatch.undo()
    assert _said(share) == "version 1, value 1"


def test_a_handle_whose_share_is_gone_says_so():
    share = Share(1)
    handle = pickle.dumps(share)
    share.close()
    assert repr(pickle.loads(handle)) == "<Share, unreachable>"


def test_the_cards_bar_is_explained_in_words_and_titles():
    page = Share(bytes(100_000))._repr_mimebundle_()["text/html"]
    legend = re.findall(r'<span title="([^"]*)".*?</span> ([^<]*)</span>', page)
    assert legend == [
        ("what the newest version takes", "used 97.7 KiB"),
        ("memory that the region has from the machine", "kept 116.0 KiB"),
        ("the ceiling, max_size", "free up to 1.0 GiB"),
    ]
    shades = re.findall(r'<rect width="([0-9.]+)" .*?<title>(\w+) ', page)
    assert [name for _, name in shades] == ["free", "kept", "used"]  # The widest lies below.
    widths = [float(width) for width, _ in shades]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == 320
