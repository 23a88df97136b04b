"""`SharedDict` as a dict."""

import collections.abc
import gc
import json
import os
import pickle
import threading

import pytest
from support import Wanted, in_child, inside, stranger

import mmapshare
from mmapshare import (
    ClosedError,
    Share,
    SharedDict,
    TransactionError,
    UnpicklableError,
    shared_state,
)

numpy = Wanted("numpy")


# --- As a dict --------------------------------------------------------------------------------


def test_it_is_made_as_a_dict_is(medium):
    assert medium.dict() == {}
    assert medium.dict({"a": 1}, b=2) == {"a": 1, "b": 2}
    assert medium.dict([("a", 1)]) == {"a": 1}
    assert SharedDict.fromkeys([1, 2]) == {1: None, 2: None}
    for wrong in (5, ["a"]):
        with pytest.raises((TypeError, ValueError)):
            medium.dict(wrong)
    with pytest.raises(TypeError):
        medium.dict({}, {})


@pytest.mark.needs("crosses_fork", "crosses_spawn")
@pytest.mark.untraced
def test_order_is_a_dicts_in_every_process(medium, often):
    shared, plain = medium.dict(), {}
    for do in [
        lambda d: d.update(a=1, b=2, c=3),
        lambda d: d.pop("a"),
        lambda d: d.__setitem__("b", 5),
        lambda d: d.__setitem__("a", 6),
        lambda d: d.setdefault("z", 0),
        lambda d: d.__delitem__("b"),
        lambda d: d.update(b=7, c=8),
        lambda d: d.popitem(),
    ]:
        do(shared)
        do(plain)
        assert list(shared.items()) == list(plain.items())
        assert list(reversed(shared)) == list(reversed(plain))
        assert in_child(lambda: list(shared.items())) == list(plain.items())
    stranger([shared], f"assert list(shares[0].items()) == {list(plain.items())!r}")


@pytest.mark.needs("crosses_fork")
def test_equal_keys_of_different_types_are_one_as_in_a_dict(medium):
    shared = medium.dict({1: "int"})
    shared[1.0] = "float"
    shared[True] = "bool"
    assert list(shared.items()) == [(1, "bool")]
    assert type(next(iter(shared))) is int
    assert in_child(lambda: shared[1.0]) == "bool"
    with shared.locked() as view:
        del view[True]
        view[1.0] = "new"
    assert type(next(iter(shared))) is float


@pytest.mark.needs("crosses_fork")
def test_any_hashable_that_pickles_is_a_key(medium):
    keys = ["s", 1, 2.5, None, (1, ("a",)), frozenset({1}), b"b", len, int, "ü", "", 10**30]
    shared = medium.dict(dict.fromkeys(keys, 1))
    assert list(shared) == keys
    assert in_child(lambda: list(shared) == keys)
    with pytest.raises(TypeError, match="unhashable"):
        shared[[]] = 1
    with pytest.raises(UnpicklableError, match="lock"):
        shared[threading.Lock()] = 1
    assert list(shared) == keys


def test_arithmetic_of_dicts_gives_plain_dicts(medium):
    shared = medium.dict(a=1)
    for result in (shared | {"b": 2}, {"b": 2} | shared, shared.copy()):
        assert type(result) is dict
    assert shared | {"a": 2} == {"a": 2}
    assert {"a": 2} | shared == {"a": 1}
    same = shared
    shared |= {"c": 3}
    assert shared is same
    assert shared == {"a": 1, "c": 3}
    assert shared != {"a": 1}
    assert shared != 5
    with pytest.raises(TypeError):
        shared | 5
    with pytest.raises(TypeError, match="unhashable"):
        hash(shared)


def test_views_and_snapshots_are_of_one_version(medium):
    shared = medium.dict(a=1, b=[2])
    keys, values, items, snapshot = (
        shared.keys(),
        shared.values(),
        shared.items(),
        shared.snapshot(),
    )
    shared["a"] = 5
    shared["c"] = 6
    assert keys == {"a", "b"}
    assert list(values) == [1, [2]]
    assert list(items) == [("a", 1), ("b", [2])]
    assert dict(snapshot) == {"a": 1, "b": [2]}
    snapshot["b"].append(3)
    assert snapshot["b"] == [2]
    assert isinstance(snapshot, collections.abc.Mapping)
    assert "c" not in snapshot
    assert len(snapshot) == 2
    assert snapshot.version + 2 == shared.version
    with pytest.raises(TypeError):
        snapshot["a"] = 1


def test_what_is_read_is_a_private_copy(medium):
    shared = medium.dict(jobs=[])
    shared["jobs"].append(1)
    shared.setdefault("jobs", None).append(2)
    assert shared["jobs"] == []


def test_a_missing_key_is_a_keyerror_that_changes_nothing(medium):
    shared = medium.dict(a=1)
    for wrong in (
        lambda: shared["b"],
        lambda: shared.pop("b"),
        lambda: shared.__delitem__("b"),
        lambda: medium.dict().popitem(),
    ):
        with pytest.raises(KeyError):
            wrong()
    assert shared.pop("b", 5) == 5
    assert shared.get("b") is None
    assert shared.get("b", 3) == 3
    assert shared.version == 1
    assert not inside.token_of(shared)


# --- Values and sizes -------------------------------------------------------------------------


@pytest.mark.needs("crosses_fork")
def test_values_are_whatever_a_share_takes(medium):
    class Local:
        n = 3

    by = 5
    shared = medium.dict(
        f=lambda x: x + by, cls=Local, obj=Local(), array=numpy.arange(5000), none=None
    )
    assert shared["f"](1) == 6
    assert shared["obj"].n == 3
    assert shared["array"].sum() == 5000 * 4999 // 2
    assert shared["none"] is None
    array = shared["array"]
    array[0] = 99
    assert shared["array"][0] == 0
    assert in_child(lambda: shared["f"](2)) == 7


def test_close_and_repr(medium):
    shared = medium.dict(a=1)
    assert repr(shared) == "{'a': 1}"
    assert json.dumps(shared.copy()) == '{"a": 1}'
    with shared.locked(), pytest.raises(TransactionError):
        shared.close()
    shared.close()
    shared.close()
    assert shared.closed
    for use in (lambda: shared["a"], lambda: shared.update(a=1), lambda: len(shared)):
        with pytest.raises(ClosedError):
            use()
    assert "closed" in repr(shared)


@pytest.mark.needs("is_memory")
def test_a_dropped_one_closes_by_itself(medium):
    shared = medium.dict(a=1)
    fd = inside.segment_of(shared).fd
    os.fstat(fd)
    del shared
    gc.collect()
    with pytest.raises(OSError):
        os.fstat(fd)


@pytest.mark.needs("is_memory")
def test_info_and_version(medium):
    shared = medium.dict(a=1)
    shared["b"] = 2
    info = shared.info()
    assert (info.version, info.commits, info.holder_pid) == (2, 2, None)
    assert 0 < info.used_bytes < info.resident_bytes


@pytest.mark.needs("crosses_fork")
def test_shared_state_works_on_one(medium):
    shared = medium.dict(calls=0)

    @shared_state(share=shared)
    def tally(state, n):
        state["calls"] += n
        return state["calls"]

    assert tally(2) == 2
    assert in_child(tally, 3) == 5
    assert shared["calls"] == 5
    assert tally.share is shared
    with pytest.raises(TypeError, match=r"tally\.share"):
        tally.reset()


@pytest.mark.needs("crosses_fork")
def test_a_share_inside_lives_as_long_as_its_key(medium):
    shared = medium.dict()
    shared["inner"] = Share(5)
    assert in_child(lambda: shared["inner"].get()) == 5
    shared["other"] = 1  # It committed, and then it failed.
    assert shared["inner"].get() == 5
    with shared.locked() as view:
        view["inner"].set(6)
    assert shared["inner"].get() == 6
    del shared["inner"]
    assert not inside.kept_of(shared)


def test_wrong_options_say_what_is_right():
    for options, error in (
        ({"kind": "disk"}, ValueError),
        ({"max_size": -1}, ValueError),
        ({"timeout": "soon"}, TypeError),
    ):
        with pytest.raises(error):
            SharedDict(**options)
    assert mmapshare.SharedDict({"timeout": 3})["timeout"] == 3


@pytest.mark.needs("crosses_fork")
def test_keys_that_nobody_could_find_again_are_refused(medium):
    """One that loads as something unhashable kept every other process from reading anything."""

    class Unhashable:
        def __reduce__(self):
            return list, ()

    class Changing:
        def __reduce__(self):
            return object, ()

    class Refusing:
        def __reduce__(self):
            return int, ("x",)

    shared = medium.dict(a=1)
    for key in (Unhashable(), Changing(), Refusing(), object(), float("nan")):
        for change in (
            lambda k=key: shared.update({k: 1}),
            lambda k=key: shared.update({k: 1, 2: 2}),
        ):
            with pytest.raises(UnpicklableError, match="key"):
                change()
    assert in_child(shared.copy) == {"a": 1}


def test_another_shared_dict_is_taken_at_one_version(medium):
    first, second = medium.dict(a=1), medium.dict(b=2)
    assert first | second == {"a": 1, "b": 2}
    assert second | first == {"b": 2, "a": 1}
    first |= second
    second.update(first)
    assert first == second
    with first.locked() as view:
        view.update(medium.dict(c=3))
        view |= medium.dict(d=4)
        assert view.pop("c") == 3
        view.value = second
    assert first == second
    assert medium.dict(first) == second
    assert list(reversed(first.keys())) == ["a", "b"]
    assert list(reversed(first.items())) == [("a", 1), ("b", 2)]
    assert list(reversed(first.values())) == [1, 2]


def test_a_snapshot_says_what_it_is_and_stays_in_its_process(medium):
    snapshot = medium.dict(a=1, b=2).snapshot()
    assert repr(snapshot) == "<DictSnapshot of version 1: 2 keys>"
    with pytest.raises(TypeError, match=r"dict\(snapshot\)"):
        pickle.dumps(snapshot)
    assert pickle.loads(pickle.dumps(dict(snapshot))) == {"a": 1, "b": 2}
