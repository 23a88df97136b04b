"""Which part of a value is named, wherever it stands, when it cannot be pickled."""

import threading

import pytest
from support import inside
from support.inside import encode

from mmapshare import UnpicklableError

LOCK = threading.Lock()


class Bad:
    """Cannot be pickled, but may be a key or a member."""

    def __init__(self):
        self.lock = threading.Lock()

    def __repr__(self):
        return "Bad()"

    def method(self):
        pass


class Mapping(dict):
    pass


class List(list):
    pass


class Members(set):
    pass


class Slots:
    __slots__ = ("absent", "lock")

    def __init__(self):
        self.lock = threading.Lock()


class OneSlot:
    __slots__ = "lock"  # noqa: PLC0205  That is allowed, too.

    def __init__(self):
        self.lock = threading.Lock()


class Unspeakable(Bad):
    def __repr__(self):
        raise RuntimeError("no words for it")


class Nameless(type):
    def __getattribute__(cls, name):
        if name == "__qualname__":
            raise RuntimeError("no name either")
        return super().__getattribute__(name)


def _with_lock(value):
    value.lock = threading.Lock()
    return value


def _uses_a_global():
    return lambda text: text.strip() and LOCK


def _closes_over_nothing_yet():
    def uses():
        return later, lock

    lock = threading.Lock()
    if lock is None:
        later = 1
    return uses


def _blamed(value):
    with pytest.raises(UnpicklableError) as caught:
        encode(value)
    return caught.value.path, str(caught.value)


@pytest.mark.parametrize(
    ("value", "path", "culprit"),
    [
        ({"a": 1, Bad(): 2}, "value.key(Bad()).lock", "a _thread.lock"),
        ([1, {Bad()}], "value[1].member(Bad()).lock", "a _thread.lock"),
        (frozenset([Bad()]), "value.member(Bad()).lock", "a _thread.lock"),
        (_with_lock(Mapping(a=1)), "value.lock", "a _thread.lock"),
        (_with_lock(List([1])), "value.lock", "a _thread.lock"),
        (_with_lock(Members([1])), "value.lock", "a _thread.lock"),
        ({"m": Bad().method}, "value['m'].__self__.lock", "a _thread.lock"),
        ([Slots()], "value[0].lock", "a _thread.lock"),
        ([OneSlot()], "value[0].lock", "a _thread.lock"),
        ([_uses_a_global()], "value[0].globals(LOCK)", "a _thread.lock"),
        ([_with_lock(lambda: len)], "value[0].lock", "a _thread.lock"),
    ],
)
def test_a_part_is_named_by_where_it_stands(value, path, culprit):
    found, message = _blamed(value)
    assert found == path
    assert f"cannot be pickled: {path}: {culprit} (" in message


def test_the_search_ends_at_a_part_whose_own_parts_cannot_be_told():
    """A variable that has no value yet, and a repr that fails."""
    assert _blamed([_closes_over_nothing_yet()])[0] == "value[0]"
    found, message = _blamed([{Unspeakable()}])
    assert found == "value[0]"
    assert "a set" in message


def test_user_code_that_fails_while_a_part_is_named_hides_no_error():
    bad = Nameless("Bad", (), {"__reduce__": lambda self: 1 / 0})()
    found, message = _blamed([bad])
    assert found == "value"
    assert "an object whose own code fails (ZeroDivisionError: division by zero)" in message


def test_the_path_to_a_deep_culprit_is_of_bounded_length():
    """A lock at the bottom of a deep structure was named in kilobytes."""
    made = LOCK
    for _ in range(250):
        made = [made]
    with pytest.raises(UnpicklableError) as caught:
        encode({"k": made})
    assert len(caught.value.path) < 310
    assert caught.value.path.startswith("value['k'][0][0]")
    assert caught.value.path.endswith("[0][0]")
    assert str(caught.value).count("a _thread.lock") == 1


def test_the_search_ends_in_time(monkeypatch):
    """It may run under the lock, and large parts take long to try."""
    monkeypatch.setattr(*inside.at("BLAME_SECONDS"), -1)
    with pytest.raises(UnpicklableError) as caught:
        encode({"a": [LOCK]})
    assert caught.value.path == "value"
