"""What a share shows of itself outside of a notebook; inside: see test_notebook."""

import collections
import os
import pickle
import signal

import numpy
import pytest
from support import Child, inside

from mmapshare import Share


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (collections.OrderedDict.fromkeys(range(50_000)), r"collections\.OrderedDict"),
        (range(1 << 200_000), "range"),
        (pickle.PickleBuffer(bytes(100_000)), "object"),  # Its stream ends, and has named nothing.
    ],
)
def test_a_large_value_is_named_by_what_its_pickle_makes(monkeypatch, value, kind):
    share = Share(value)
    monkeypatch.setattr(Share, "get", None)  # Not loaded for that.
    text = share._repr_mimebundle_()["text/plain"]
    assert f"; value {kind}, ".replace("\\", "") in text


def test_what_is_held_without_a_copy_stands_on_the_card_while_it_is():
    share = Share(numpy.zeros(1 << 20))
    assert "held without" not in share._repr_mimebundle_()["text/plain"]
    held = share.get(copy=False)
    assert "held without a copy 8.0 MiB" in share._repr_mimebundle_()["text/plain"]
    del held
    assert "held without" not in share._repr_mimebundle_()["text/plain"]


def test_holders_found_dead_stand_on_the_card_once_there_is_one(make):
    share = make(1)

    def hold(child):
        share.lock()
        child.say()
        signal.pause()

    child = Child(hold)
    child.hear()
    child.kill()
    assert "found dead" not in share._repr_mimebundle_()["text/plain"]
    share.set(2)
    assert "holders found dead 1" in share._repr_mimebundle_()["text/plain"]
    assert "holders found dead" in share._repr_mimebundle_()["text/html"]


def test_a_table_of_no_shares_says_so():
    shown = inside.card_table([])
    assert shown["text/plain"] == "no open shares"
    assert "no open shares" in shown["text/html"]


def test_watch_in_a_terminal_draws_one_line_that_fits_anew(monkeypatch):
    ours, its = os.openpty()
    monkeypatch.setenv("COLUMNS", "30")
    share = Share(0)
    try:
        with os.fdopen(its, "w") as terminal:
            monkeypatch.setattr("sys.stdout", terminal)
            assert share.watch(lambda n: share.set(n + 1) > 2, timeout=20) is True
            print("next")
            monkeypatch.undo()
            drawn = ""
            while "next" not in drawn:
                drawn += os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
    head, *lines = drawn.split("\r\x1b[K")
    lines[-1], *below = lines[-1].splitlines()
    assert head == ""
    assert all(len(line) == 29 and line.startswith("Share ") for line in lines)
    assert "; value 0; " in lines[0]
    assert f"; value {share.get()}; " in lines[-1]
    assert below == ["next"]
