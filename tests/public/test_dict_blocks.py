"""`SharedDict`: what a block of it commits, drops and refuses."""

import collections.abc
import pickle
import sys
import threading

import pytest
from support import Child, Wanted, in_child

from mmapshare import (
    EmptyShareError,
    LockTimeout,
    RegionFullError,
    TransactionError,
    UnpicklableError,
    ViewClosedError,
)

numpy = Wanted("numpy")


# --- Blocks -----------------------------------------------------------------------------------


@pytest.mark.needs("crosses_fork")
def test_a_block_commits_all_its_keys_and_changes_within_values_together(medium, ordered):
    shared = medium.dict(jobs=[], tree={"a": {"b": 0}}, n=1)
    version = shared.version
    with shared.locked() as view:
        view["jobs"].append(1)
        view["tree"]["a"]["b"] = 1
        view["n"] += 1
        view["new"] = {1}
        view["new"].add(2)
        assert in_child(shared.copy) == {"jobs": [], "tree": {"a": {"b": 0}}, "n": 1}
        assert shared["n"] == 1
    assert shared == {"jobs": [1], "tree": {"a": {"b": 1}}, "n": 2, "new": {1, 2}}
    assert shared.version == version + 1


def test_the_view_is_a_mutable_mapping(medium):
    with medium.dict(a=1, b=2).locked() as view:
        assert isinstance(view, collections.abc.MutableMapping)
        assert isinstance(view.value, collections.abc.MutableMapping)
        assert (len(view), list(view), "a" in view, view.get("z", 9)) == (2, ["a", "b"], True, 9)
        del view["a"]
        view["c"] = 3
        view["a"] = 4
        assert list(view.items()) == [("b", 2), ("c", 3), ("a", 4)]
        assert list(reversed(view.value)) == ["a", "c", "b"]
        assert view.popitem() == ("a", 4)
        assert view.popitem() == ("c", 3)
        assert view.popitem() == ("b", 2)
        with pytest.raises(KeyError):
            view.popitem()
        assert not view
        view |= {"x": 1}
        assert view == {"x": 1}
        assert view | {"y": 2} == {"x": 1, "y": 2}
        assert {"y": 2} | view == {"y": 2, "x": 1}
        assert repr(view) == "<View of version 1: {'x': 1}>"
        assert view.copy() == {"x": 1}
        with pytest.raises(TypeError, match="arithmetic"):
            view + {}
        view.clear()
        with pytest.raises(KeyError):
            view["b"]
        with pytest.raises(KeyError):
            del view["b"]
    assert repr(view) == "<View, closed>"


def test_assigning_the_views_value_replaces_everything(medium):
    shared = medium.dict(a=1, b=2, c=3)
    with shared.locked() as view:
        view.value = {"b": 5, "d": 6}
        assert view == {"b": 5, "d": 6}
        with pytest.raises(TypeError, match="mapping, not int"):
            view.value = 5
        view.value = view.value
    assert shared == {"b": 5, "d": 6}


def test_only_what_was_changed_is_written(medium):
    shared = medium.dict({"array": numpy.zeros(100_000), "big": "x" * 100_000, "n": 0})
    before = shared.info().used_bytes
    with shared.locked() as view:
        assert view["array"].sum() == 0
        assert len(view["big"]) == 100_000
        view["n"] = 1
    assert shared.info().used_bytes - before < 200
    version = shared.version
    with shared.locked() as view:
        assert list(view.values())[2] == 1
        view["n"] = 1
        view["big"] = "x" * 100_000
        view["array"] = numpy.zeros(100_000)
    assert shared.version == version


def test_a_set_that_lists_its_members_in_another_order_is_unchanged(medium):
    """A set that is built again from what was stored may do so."""
    shared = medium.dict({n: {f"{n} {m}" for m in range(40)} for n in range(20)})
    version = shared.version
    with shared.locked() as view:
        for key in view:
            assert len(view[key]) == 40
    assert shared.version == version


@pytest.mark.needs("crosses_fork")
@pytest.mark.core("python")
def test_a_read_that_another_thread_overtakes_is_not_older_than_its_begin(medium):
    """Between the look at the index and the look at the version another thread caught up."""
    shared = medium.dict(a=1)
    assert shared["a"] == 1
    in_child(shared.update, {"a": 2})
    caught_up = []

    def trace(frame, event, arg):
        if frame.f_code.co_name != "__getitem__":
            return None
        if event == "line" and "raw" in frame.f_locals and not caught_up:
            caught_up.append(True)
            thread = threading.Thread(target=len, args=(shared,))
            thread.start()
            thread.join()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = shared["a"]
    finally:
        sys.settrace(before)
    assert caught_up
    assert found == 2


def test_an_exception_or_a_rollback_drops_all(medium):
    shared = medium.dict(a=[1])
    with pytest.raises(ZeroDivisionError), shared.locked() as view:
        view["a"].append(2)
        view["b"] = 1
        raise ZeroDivisionError
    with shared.locked() as view:
        view["a"].append(2)
        del view["a"]
        view.rollback()
        assert view == {"a": [1]}
        view["c"] = 3
    assert shared == {"a": [1], "c": 3}


def test_what_cannot_be_pickled_is_named_with_its_key_and_nothing_is_changed(medium):
    shared = medium.dict(a=1)
    with pytest.raises(UnpicklableError, match=r"value\['model'\]\['guard'\]") as caught:
        with shared.locked() as view:
            view["a"] = 2
            view["model"] = {"guard": threading.Lock()}
    assert caught.value.path == "value['model']['guard']"
    assert shared == {"a": 1}


def test_nested_blocks_join_and_a_failed_inner_one_fails_the_outer(medium):
    shared = medium.dict(a=1)
    with shared.locked() as outer, shared.locked() as inner:
        assert inner is outer
        inner["a"] = 2
    assert shared["a"] == 2
    with pytest.raises(TransactionError, match="inner block"), shared.locked() as outer:
        outer["a"] = 3
        with pytest.raises(KeyError), shared.locked():
            raise KeyError
    assert shared["a"] == 2


def test_changes_inside_ones_own_block_are_refused_and_the_block_goes_on(medium):
    shared = medium.dict(a=1)
    with shared.locked() as view:
        for change in (
            lambda: shared.update(a=2),
            lambda: shared.__setitem__("a", 2),
            shared.clear,
            shared.popitem,
        ):
            with pytest.raises(TransactionError, match="view"):
                change()
        view["a"] = 5
    assert shared["a"] == 5


@pytest.mark.needs("crosses_fork")
def test_between_lock_and_unlock_changes_commit_at_once(medium):
    shared = medium.dict(a=1)
    shared.lock()
    shared["a"] = 2
    assert in_child(lambda: shared["a"]) == 2
    with pytest.raises(LockTimeout):
        in_child(lambda: shared.lock(timeout=0))
    with shared.locked() as view:
        view["a"] += 1
    shared.unlock()
    assert shared["a"] == 3


@pytest.mark.needs("crosses_fork")
def test_locks_time_out_and_views_close(medium):
    shared = medium.dict(a=1, timeout=0)

    def hold(child):
        with shared.locked():
            child.say()
            child.hear()

    child = Child(hold)
    child.hear()
    for change in (lambda: shared.update(a=1), lambda: shared.locked().__enter__()):
        with pytest.raises(LockTimeout, match=str(child.pid)):
            change()
    assert shared["a"] == 1
    child.say()
    child.wait()
    with shared.locked() as view:
        pass
    for use in (lambda: view["a"], lambda: view.value, lambda: len(view), view.__repr__):
        if use != view.__repr__:
            with pytest.raises(ViewClosedError):
                use()


def test_an_empty_one_is_a_dict_like_any(medium):
    shared = medium.dict()
    assert (len(shared), list(shared), shared.version) == (0, [], 0)
    with pytest.raises(KeyError):
        shared["a"]
    with shared.locked() as view:
        assert len(view) == 0
    assert shared.version == 0
    assert not issubclass(KeyError, EmptyShareError)


# --- What fresh eyes found ---------------------------------------------------------------------


def test_a_draft_of_elsewhere_is_a_mapping_like_any_and_a_dead_one_is_dead(medium):
    """Its positions were taken for this dict's, and a region was lost for good."""
    first, second = medium.dict(a=1), medium.dict(b=2)
    with first.locked() as one, second.locked() as other:
        one["new"] = [1]
        other.value = one.value
        assert list(other) == ["a", "new"]
    assert second == {"a": 1, "new": [1]} == first
    with first.locked() as view:
        saved, items = view.value, view.items()
    with first.locked() as view:
        with pytest.raises(ViewClosedError):
            view.value = saved
        view.value = dict(view)
    for use in (
        lambda: saved.update(lost=1),
        lambda: list(items),
        lambda: saved["a"],
        lambda: len(saved),
    ):
        with pytest.raises(ViewClosedError):
            use()
    with first.locked() as view:
        before = view.value
        view.rollback()
        before["kept"] = 1
        assert view["kept"] == 1
        assert pickle.loads(pickle.dumps(before)) == {"a": 1, "new": [1], "kept": 1}


def test_a_replaced_value_has_its_own_order(medium):
    shared = medium.dict(a=1, b=2)
    with shared.locked() as view:
        view.value = {"b": 1, "new": 2, "a": 3}
    assert list(shared) == ["b", "new", "a"]
    version = shared.version
    with shared.locked() as view:
        view.value = {"b": 1, "new": 2, "a": 3}
    assert shared.version == version


def test_a_value_that_is_deleted_and_set_again_counts_once(medium):
    """Its old size was taken off twice, and far more than the ceiling went in."""
    shared = medium.dict(max_size="1M", k=b"x" * 600_000)
    with pytest.raises(RegionFullError), shared.locked() as view:
        del view["k"]
        view["k"] = b"y" * 1_500_000
    shared["small"] = 1
    assert shared.keys() == {"k", "small"}


def test_taking_many_items_from_the_end_is_not_quadratic(medium):
    shared, plain = medium.dict({n: n for n in range(3000)}), {n: n for n in range(3000)}
    with shared.locked() as view:
        for n in range(3000):
            if n % 5 == 0:
                view[f"new {n}"] = plain[f"new {n}"] = n
                assert len(view) == len(plain)
            if n % 7 == 0:
                assert view.pop(n, None) == plain.pop(n, None)
            assert view.popitem() == plain.popitem()
    assert shared == plain


def test_items_taken_from_the_end_are_those_that_were_set_last(medium):
    """A stored value that was looked at or replaced keeps its place; the last one goes first."""
    shared = medium.dict(a=[1], b=[2])
    with shared.locked() as view:
        view["c"] = [3]
        view["a"].append(1)
        view["b"] = [4]
        taken = [view.popitem() for _ in range(3)]
        with pytest.raises(KeyError):
            view.popitem()
    assert taken == [("c", [3]), ("b", [4]), ("a", [1, 1])]
    assert shared == {}


def test_the_views_value_takes_more_with_an_operator(medium):
    shared = medium.dict(a=1, b=2)
    with shared.locked() as view:
        view.value |= {"b": 3, "c": 4}
    assert list(shared.items()) == [("a", 1), ("b", 3), ("c", 4)]
