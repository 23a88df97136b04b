"""Who has fallen behind: it catches up over one record or over many, over snapshots, and whoever
reads in the middle of that.
"""

import gc
import random

import pytest
from support import Child, inside

from mmapshare import SharedDict, UnloadableError

KEYS = ["k", "a longer key of which there is one", "x" * 300, "é", "", 7, -(2**70), b"b", ("t", 1)]


def _change(d, model, rng, count):
    """So many commits: most of them of one plain key, some of other keys, several, or deletions."""
    for n in range(count):
        key = rng.choice(KEYS)
        what = rng.random()
        if what < 0.97:
            d[key] = model[key] = n
        elif what < 0.98:
            d.pop(key, None)
            model.pop(key, None)
        else:
            many = dict.fromkeys(rng.sample(KEYS, 3), n)
            d.update(many)
            model.update(many)


@pytest.mark.parametrize("behind", [1, 2, 30, 1000, 25_000])
def test_by_however_much_it_is_behind_it_has_the_newest_values(behind):
    def work(child, d):
        rng, model = random.Random(behind), dict(d)
        for _ in range(4):
            child.hear()
            _change(d, model, rng, behind)
            child.say(list(model.items()))

    d = SharedDict(dict.fromkeys(KEYS, -1))
    child = Child(work, d)
    for number in range(4):
        child.say()
        expected = child.hear()
        if number == 1:  # By a change of its own.
            d["own"] = 0
            del d["own"]
        if number == 2:  # By a look at one key.
            key, value = random.Random(number).choice(expected)
            assert d[key] == value
        assert list(d.items()) == expected
    child.result()


def test_new_snapshots_in_between_are_followed_too():
    def work(child, d):
        for n in range(1, 11):
            child.hear()
            epoch = inside.region_of(d).state.epoch
            while inside.region_of(d).state.epoch == epoch:
                d["grows"] += 1  # The same one would be no commit.
            d["k"] = n
            child.say(d["grows"])

    d = SharedDict(k=0, grows=0)
    child = Child(work, d)
    for n in range(1, 11):
        child.say()
        grown = child.hear()
        assert (d["grows"], d["k"]) == (grown, n)
    child.result()


class _Alarming(str):
    """A key, in whose loading an alarm may come."""

    handler = staticmethod(lambda: None)

    def __reduce__(self):
        return _loaded, (str(self),)


def _loaded(text):
    _Alarming.handler()
    return _Alarming(text)


def _raise(error):
    raise error


def _set_in_a_block(d, value):
    with d.locked() as view:
        view["k"] = value


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError, MemoryError])
@pytest.mark.parametrize(
    "use",
    [lambda d: d["k"], lambda d: d.__setitem__("k", "lost"), lambda d: _set_in_a_block(d, "lost")],
    ids=["read", "set", "block"],
)
def test_what_an_alarm_raises_while_one_catches_up_is_not_lost(monkeypatch, use, error):
    def work(child, d):
        epoch = inside.region_of(d).state.epoch
        while inside.region_of(d).state.epoch == epoch:
            d["grows"] += 1

    d = SharedDict({"k": "whole", "grows": 0, _Alarming("other"): 0})
    Child(work, d).result()
    monkeypatch.setattr(_Alarming, "handler", lambda: _raise(error))
    with pytest.raises((error, UnloadableError)):
        use(d)
    monkeypatch.undo()
    assert d["k"] == "whole"
    d["k"] = "set"
    assert d["k"] == "set"


class _Reads:
    """Garbage in a circle, which reads when the collector finds it."""

    def __init__(self, look):
        self.own, self.look = self, look

    def __del__(self):
        self.look()


def test_a_finalizer_that_reads_while_one_catches_up_reads_what_is_committed():
    def work(child, d):
        for n in range(1, 201):
            child.hear()
            for key in "ab" * 10:
                d[key] = n
            child.say()

    d, found = SharedDict(a=0, b=0), []
    child = Child(work, d)
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for n in range(1, 201):
            child.say()
            child.hear()
            for _ in range(5):
                _Reads(lambda: found.append((d["a"], d["b"])))
            assert d["a"] == n
            with d.locked() as view:
                assert view["b"] == n
    finally:
        gc.set_threshold(*before)
    gc.collect()
    child.result()
    assert len(found) == 1000
    assert found == sorted(found)
