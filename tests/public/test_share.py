"""The contract of `Share`, on every medium: values, versions, blocks and updates."""

import math
import threading

import pytest
from support import Child, Wanted, in_child

from mmapshare import (
    EmptyShareError,
    Snapshot,
    UnpicklableError,
    VersionConflict,
)

numpy = Wanted("numpy")


def test_get_returns_a_fresh_private_copy(medium):
    share = medium.share({"xs": [1]})
    share.get()["xs"].append(2)
    assert share.get() == {"xs": [1]}


@pytest.mark.needs("crosses_fork")
def test_a_child_sees_what_the_parent_set_and_the_other_way_round(medium):
    share = medium.share(1)
    share.set(2)
    assert in_child(share.get) == 2
    in_child(share.set, 3)
    assert share.get() == 3


def test_an_empty_share_has_no_value_and_none_is_one(medium):
    share = medium.share()
    assert share.version == 0
    for read in (share.get, share.snapshot, lambda: share.update(lambda value: value)):
        with pytest.raises(EmptyShareError):
            read()
    assert share.set(None, if_version=0) == 1
    assert share.get() is None


def test_an_empty_share_is_filled_by_assigning_in_a_block(medium):
    share = medium.share()
    with share.locked():
        pass
    assert share.version == 0
    with share.locked() as view:
        with pytest.raises(EmptyShareError):
            view["a"]
        with pytest.raises(EmptyShareError):
            view["a"] = 1
        with pytest.raises(EmptyShareError):
            view.value
        assert view.version == 0
        view.rollback()
        view.value = {"a": 1}
        view["b"] = 2
    assert share.get() == {"a": 1, "b": 2}


def test_a_rolled_back_first_value_leaves_the_share_empty(medium):
    share = medium.share()
    with share.locked() as view:
        view.value = 1
        view.rollback()
    assert share.version == 0


def test_each_commit_is_one_version(medium):
    share = medium.share(0)
    assert (share.version, share.set(1), share.set(1)) == (1, 2, 3)
    with share.locked() as view:
        view.value += 1
        assert view.version == 3
    assert share.snapshot() == Snapshot(2, 4)


def test_a_block_that_changed_nothing_publishes_nothing(medium):
    share = medium.share({"a": [1, 2], "f": math.sqrt, "g": lambda x: x, "s": {"p", "q"}})
    for _ in range(3):
        with share.locked() as view:
            view["a"] = [1, 2]
    assert share.version == 1


def test_a_set_that_lists_its_members_in_another_order_is_unchanged(medium):
    """Two members of a small set that collide may change places each time it is rebuilt."""
    members = [n << 3 | 7 for n in range(6)]
    share = medium.share({"set": {7, 15}, "frozen": [frozenset({7, 23, 15})], "n": 0})
    for n in members:
        with share.locked() as view:
            view["set"].add(n)
            view["n"] += 1
        version = share.version
        for _ in range(4):
            with share.locked() as view:
                view["n"] += 0
        assert share.version == version


def test_an_exception_in_a_block_drops_the_draft_and_is_raised_unchanged(medium):
    share = medium.share([1])
    err = ValueError("mine")
    with pytest.raises(ValueError) as caught, share.locked() as view:
        view.append(2)
        raise err
    assert caught.value is err
    assert (share.get(), share.version) == ([1], 1)


def test_get_inside_ones_own_block_is_the_last_commit(medium):
    share = medium.share(1)
    with share.locked() as view:
        view.value = 2
        assert share.get() == 1
        assert share.snapshot() == Snapshot(1, 1)
    assert share.get() == 2


def test_set_refuses_a_version_that_has_passed(medium):
    share = medium.share("a")
    _, version = share.snapshot().value, share.snapshot().version
    share.set("b")
    with pytest.raises(VersionConflict, match="expected version 1, found 2") as caught:
        share.set("c", if_version=version)
    assert (caught.value.expected, caught.value.found) == (1, 2)
    assert share.get() == "b"


@pytest.mark.needs("crosses_fork")
def test_compare_and_set_lets_one_of_many_win(medium):
    share = medium.share(0)

    def grab(child):
        child.hear()
        try:
            share.set(child.pid, if_version=1)
        except VersionConflict:
            return False
        return True

    children = [Child(grab) for _ in range(4)]
    for child in children:
        child.say()
    assert sum(child.result() for child in children) == 1


def test_update_keeps_the_argument_on_none_and_the_result_otherwise(medium):
    share = medium.share([1])
    assert share.update(list.append, 2) == [1, 2]
    assert share.update(lambda xs, *, by: xs + [by], by=3) == [1, 2, 3]
    assert share.get() == [1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        share.update(lambda xs: 1 / 0)
    assert share.get() == [1, 2, 3]


@pytest.mark.needs("crosses_fork")
def test_update_is_one_transaction_over_processes(medium):
    share = medium.share(0)

    def add(child):
        child.hear()
        for _ in range(200):
            share.update(int.__add__, 1)

    children = [Child(add) for _ in range(3)]
    for child in children:
        child.say()
    for child in children:
        child.result()
    assert share.get() == 600


def test_an_unpicklable_value_is_named_and_changes_nothing(medium):

    share = medium.share({"a": 1})
    with pytest.raises(UnpicklableError, match=r"value\['a'\]: a _thread.lock"):
        share.set({"a": threading.Lock()})
    with pytest.raises(UnpicklableError) as caught, share.locked() as view:
        view["b"] = [threading.Lock()]
    assert caught.value.path == "value['b'][0]"
    assert (share.get(), share.version) == ({"a": 1}, 1)
    share.set(2)


@pytest.mark.needs("crosses_fork")
def test_a_value_gets_more_parts_or_fewer_in_a_block(medium):
    """A draft is compared with what is stored before it is published."""
    share = medium.share([1])
    for parts in (1, 2, 1, 0):
        value = [numpy.arange(1000) + n for n in range(parts)]
        with share.locked() as view:
            view.value = value
        version = share.version
        with share.locked() as view:
            assert len(view) == parts
        assert share.version == version
        assert [int(array[5]) for array in in_child(share.get)] == [5, 6][:parts]
    assert share.version == 5


def test_a_block_that_leaves_an_array_as_it_was_commits_nothing(medium):
    share = medium.share(numpy.zeros(9000))
    with share.locked() as view:
        view.value[0] += 0
    assert share.version == 1
    with share.locked() as view:
        view.value[0] += 1
    assert (share.version, share.get()[0]) == (2, 1)


def test_of_a_large_value_its_begin_tells_what_it_is(medium):
    bundle = medium.share(list(range(100_000)))._repr_mimebundle_()
    assert "list, " in bundle["text/html"]
