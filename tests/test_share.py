"""The contract of `Share`, on every kind of memory and lock."""

import inspect
import math
import threading
import time
from functools import partial

import pytest
from support import Child, Wanted, in_child, inside
from support.inside import claim_by, current_owner

import mmapshare
from mmapshare import (
    ClosedError,
    DeadlockError,
    EmptyShareError,
    LockTimeout,
    RegionFullError,
    Share,
    Snapshot,
    TransactionError,
    UnpicklableError,
    VersionConflict,
)

numpy = Wanted("numpy")


def test_get_returns_a_fresh_private_copy(make):
    share = make({"xs": [1]})
    share.get()["xs"].append(2)
    assert share.get() == {"xs": [1]}


def test_a_child_sees_what_the_parent_set_and_the_other_way_round(make):
    share = make(1)
    share.set(2)
    assert in_child(share.get) == 2
    in_child(share.set, 3)
    assert share.get() == 3


def test_an_empty_share_has_no_value_and_none_is_one(make):
    share = make()
    assert share.version == 0
    for read in (share.get, share.snapshot, lambda: share.update(lambda value: value)):
        with pytest.raises(EmptyShareError):
            read()
    assert share.set(None, if_version=0) == 1
    assert share.get() is None


def test_an_empty_share_is_filled_by_assigning_in_a_block(make):
    share = make()
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


def test_a_rolled_back_first_value_leaves_the_share_empty(make):
    share = make()
    with share.locked() as view:
        view.value = 1
        view.rollback()
    assert share.version == 0


def test_each_commit_is_one_version(make):
    share = make(0)
    assert (share.version, share.set(1), share.set(1)) == (1, 2, 3)
    with share.locked() as view:
        view.value += 1
        assert view.version == 3
    assert share.snapshot() == Snapshot(2, 4)


def test_a_block_that_changed_nothing_publishes_nothing(make):
    share = make({"a": [1, 2], "f": math.sqrt, "g": lambda x: x, "s": {"p", "q"}})
    for _ in range(3):
        with share.locked() as view:
            view["a"] = [1, 2]
    assert share.version == 1


def test_a_set_that_lists_its_members_in_another_order_is_unchanged(make):
    """Two members of a small set that collide may change places each time it is rebuilt."""
    members = [n << 3 | 7 for n in range(6)]
    share = make({"set": {7, 15}, "frozen": [frozenset({7, 23, 15})], "n": 0})
    for n in members:
        with share.locked() as view:
            view["set"].add(n)
            view["n"] += 1
        version = share.version
        for _ in range(4):
            with share.locked() as view:
                view["n"] += 0
        assert share.version == version


def test_an_exception_in_a_block_drops_the_draft_and_is_raised_unchanged(make):
    share = make([1])
    err = ValueError("mine")
    with pytest.raises(ValueError) as caught, share.locked() as view:
        view.append(2)
        raise err
    assert caught.value is err
    assert (share.get(), share.version) == ([1], 1)


def test_get_inside_ones_own_block_is_the_last_commit(make):
    share = make(1)
    with share.locked() as view:
        view.value = 2
        assert share.get() == 1
        assert share.snapshot() == Snapshot(1, 1)
    assert share.get() == 2


def test_get_does_not_wait_for_a_holder(make):
    share = make("old")

    def hold(child):
        with share.locked() as view:
            view.value = "new"
            child.say("held")
            child.hear()

    child = Child(hold)
    assert child.hear() == "held"
    assert share.get() == "old"
    assert share.info().holder_pid == child.pid
    child.say()
    child.result()
    assert share.get() == "new"
    assert share.info().holder_pid is None


def test_set_refuses_a_version_that_has_passed(make):
    share = make("a")
    _, version = share.snapshot().value, share.snapshot().version
    share.set("b")
    with pytest.raises(VersionConflict, match="expected version 1, found 2") as caught:
        share.set("c", if_version=version)
    assert (caught.value.expected, caught.value.found) == (1, 2)
    assert share.get() == "b"


def test_compare_and_set_lets_one_of_many_win(make):
    share = make(0)

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


def test_update_keeps_the_argument_on_none_and_the_result_otherwise(make):
    share = make([1])
    assert share.update(list.append, 2) == [1, 2]
    assert share.update(lambda xs, *, by: xs + [by], by=3) == [1, 2, 3]
    assert share.get() == [1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        share.update(lambda xs: 1 / 0)
    assert share.get() == [1, 2, 3]


def test_update_is_one_transaction_over_processes(make):
    share = make(0)

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


def test_between_lock_and_unlock_set_commits_at_once(make):
    share = make(1)
    share.lock()
    assert share.set(2) == 2
    assert in_child(share.get) == 2
    assert share.set(3, if_version=2) == 3
    with pytest.raises(VersionConflict):
        share.set(4, if_version=1)
    with pytest.raises(LockTimeout):
        in_child(partial(share.lock, timeout=0))
    with share.locked() as view:
        view.value += 1
        with pytest.raises(TransactionError, match="unlock"):
            share.unlock()
        with pytest.raises(TransactionError, match="view.value"):
            share.set(9)
        with share.locked() as inner:
            inner.value += 1
    assert share.get() == 5
    assert share.update(lambda n: n + 1) == 6
    share.unlock()
    in_child(partial(share.set, 7))
    assert share.get() == 7


def test_locking_twice_is_a_deadlock_and_unlocking_unlocked_an_error(make):
    share = make(1)
    share.lock()
    with pytest.raises(DeadlockError):
        share.lock()
    share.unlock()
    with pytest.raises(TransactionError, match="lock"):
        share.unlock()
    with share.locked(), pytest.raises(DeadlockError):
        share.lock()
    with share.locked(), pytest.raises(TransactionError):
        share.unlock()


def test_an_exception_between_lock_and_unlock_leaves_the_lock_usable(make):
    share = make(1)
    share.lock()
    with pytest.raises(KeyError), share.locked() as view:
        view.value = 2
        raise KeyError
    assert share.set(5) == 2
    share.unlock()


def test_set_inside_ones_own_block_names_view_value(make):
    share = make(1)
    with share.locked() as view:
        with pytest.raises(TransactionError, match=r"view\.value"):
            share.set(5)
        view.value = 2
    assert share.get() == 2


def test_a_nested_block_joins_the_outer_one(make):
    share = make([])
    with share.locked() as outer:
        outer.append(1)
        with share.locked() as inner:
            assert inner is outer
            inner.append(2)
        assert share.get() == []
        outer.append(3)
    assert (share.get(), share.version) == ([1, 2, 3], 2)


def test_a_nested_block_of_an_empty_share_joins_the_outer_one(make):
    """What the outer view covered was looked for among the attributes of its value, and there
    was none yet: the inner block raised EmptyShareError. The state machines found it."""
    share = make()
    with share.locked() as outer, share.locked() as inner:
        assert inner is outer
        inner.value = 1
    assert share.snapshot() == Snapshot(1, 1)


def test_a_failed_inner_block_lets_the_outer_one_commit_nothing(make):
    share = make([])
    with pytest.raises(TransactionError, match="KeyError") as caught, share.locked() as outer:
        outer.append(1)
        with pytest.raises(KeyError), share.locked() as inner:
            inner.append(2)
            raise KeyError("inner")
        outer.append(3)
    assert isinstance(caught.value.__cause__, KeyError)
    assert share.get() == []


def test_rollback_after_a_failed_inner_block_makes_the_outer_one_whole_again(make):
    share = make([])
    with share.locked() as outer:
        outer.append(1)
        with pytest.raises(KeyError), share.locked():
            raise KeyError
        outer.rollback()
        outer.append(3)
    assert share.get() == [3]


def test_a_transaction_is_used_once(make):
    share = make(1)
    transaction = share.locked()
    with transaction, pytest.raises(TransactionError, match="once"):
        transaction.__enter__()
    with pytest.raises(TransactionError, match="once"), transaction:
        pass
    assert share.set(2) == 2


def test_a_timeout_says_who_holds_the_lock_and_for_how_long(make):
    share = make(1, timeout=0.01)

    def hold(child):
        with share.locked():
            child.say()
            child.hear()

    child = Child(hold)
    child.hear()
    for wait in (share.locked().__enter__, share.lock, partial(share.set, 2)):
        with pytest.raises(LockTimeout, match=f"by pid {child.pid}") as caught:
            wait()
        assert caught.value.holder_pid == child.pid
        assert caught.value.held_s >= 0
        assert isinstance(caught.value, TimeoutError)
    begin = time.monotonic()
    with pytest.raises(LockTimeout), share.locked(timeout=0.05):
        pass
    assert time.monotonic() - begin >= 0.05
    with pytest.raises(LockTimeout), share.locked(timeout=0):
        pass
    child.say()
    child.result()
    with share.locked(timeout=0):
        pass


def test_a_timeout_says_when_the_holder_is_a_thread_of_ones_own_process(make):
    share = make(1)
    share.lock()

    def wait():
        with pytest.raises(LockTimeout, match="thread of this process"):
            share.set(2) if inside.timeout_of(share) else share.lock(timeout=0.01)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    share.unlock()


def test_info_tells_sizes_and_counts(make, kind):
    share = make(b"x" * 10_000, max_size="2M")
    share.set(b"y" * 20_000)
    info = share.info()
    assert (info.version, info.commits, info.kind) == (2, 2, kind)
    assert info.max_size == 2 << 20
    assert 20_000 <= info.used_bytes < 21_000
    assert 30_000 <= info.resident_bytes < 1 << 20
    assert (info.holder_pid, info.held_s) == (None, None)
    assert (info.contended_waits, info.holders_found_dead) == (0, 0)
    share.lock()
    assert share.info().holder_pid is not None
    assert share.info().held_s >= 0
    share.unlock()
    with pytest.raises(AttributeError):
        info.version = 3


def test_a_contended_wait_is_counted(make):
    share = make(0)

    def hold(child):
        with share.locked():
            child.say()
            child.hear()

    child = Child(hold)
    child.hear()
    waiter = Child(lambda c: share.set(1))
    waiter.sleeps()
    child.say()
    child.result()
    waiter.result()
    assert share.info().contended_waits == 1


def test_a_value_over_the_ceiling_is_refused_and_the_old_one_stands(make):
    share = make(b"old", max_size=1000)
    for store in (
        lambda: share.set(bytes(2000)),
        lambda: share.update(lambda _: bytes(2000)),
    ):
        with pytest.raises(RegionFullError, match=r"2,0\d\d bytes.*1,000 bytes") as caught:
            store()
        assert caught.value.max_size_bytes == 1000
        assert caught.value.needed_bytes > 2000
    assert (share.get(), share.version) == (b"old", 1)
    share.set(bytes(900))
    assert share.get() == bytes(900)


def test_a_value_as_large_as_the_ceiling_can_be_replaced_by_another(make):
    share = make(max_size="1M")
    for byte in b"abcdef":
        share.set(bytes([byte]) * ((1 << 20) - 100))
        assert share.get() == bytes([byte]) * ((1 << 20) - 100)


@pytest.mark.parametrize("size", ["", "G", "-1", "1.5M", "1X", "ten"])
def test_a_string_that_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match="size"):
        Share(max_size=size)


def test_a_size_is_a_positive_int_or_a_string_in_binary_units():
    for size in (0, -5):
        with pytest.raises(ValueError, match="at least 1"):
            Share(max_size=size)
    for size in (1.5, None, True, b"1G"):
        with pytest.raises(TypeError, match="size"):
            Share(max_size=size)
    for size, count in {
        "3": 3,
        "64K": 65536,
        "1m": 1 << 20,
        "2 GiB": 2 << 30,
        " 1T ": 1 << 40,
    }.items():
        share = Share(max_size=size)
        assert share.info().max_size == count


def test_a_timeout_is_a_number_of_seconds_or_none():
    for timeout in ("1", True, [1]):
        with pytest.raises(TypeError, match="timeout"):
            Share(timeout=timeout)
    for timeout in (-1, math.nan):
        with pytest.raises(ValueError, match="timeout"):
            Share(timeout=timeout)
    share = Share(1)
    with pytest.raises(ValueError, match="timeout"):
        share.locked(timeout=-0.5)
    with pytest.raises(TypeError, match="timeout"):
        share.lock(timeout="soon")


def test_a_ceiling_that_cannot_be_mapped_is_refused_clearly():
    with pytest.raises(RegionFullError, match="max_size"):
        Share(max_size=1 << 62)
    with pytest.raises(ValueError, match="kind"):
        Share(kind="paper")


def test_what_looks_like_an_operation_on_a_share_says_what_to_write_instead(make):
    share = make({"a": 1})
    with pytest.raises(TypeError, match=r"share\.locked\(\) as view"):
        share["a"] = 2
    with pytest.raises(TypeError, match=r"share\.get\(\)\['a'\]"):
        share["a"]
    with pytest.raises(TypeError, match=r"share\.locked\(\) as view"):
        del share["a"]
    with pytest.raises(TypeError, match=r"view\.value \+="):
        share += 1
    with pytest.raises(TypeError, match=r"share\.locked\(\) as view"), share:
        pass
    with pytest.raises(TypeError, match=r"share\.get\(\)"):
        list(share)
    with pytest.raises(TypeError, match=r"share\.get\(\)"):
        "a" in share
    with pytest.raises(TypeError, match=r"len\(share\.get\(\)\)"):
        len(share)
    with pytest.raises(AttributeError, match=r"share\.get\(\)"):
        share.value
    with pytest.raises(AttributeError, match=r"share\.set\(\.\.\.\)"):
        share.value = 3
    for use in (lambda block: block["a"], lambda block: block.__setitem__("a", 2), list, len):
        with pytest.raises(TypeError, match=r"with share\.locked\(\) as view"):
            use(share.locked())
    assert share.locked()
    with pytest.raises(TypeError, match="calls a function"):
        share.update({"b": 2})
    for version in ("1", True, 1.0):
        with pytest.raises(TypeError, match="if_version"):
            share.set({}, if_version=version)
    assert share and share.get() == {"a": 1}


def test_a_closed_share_refuses_everything(make):
    share = make(1)
    share.close()
    share.close()
    assert share.closed
    assert repr(share) == "<Share, closed>"
    for use in (
        share.get,
        share.snapshot,
        share.info,
        share.lock,
        share.unlock,
        partial(share.set, 2),
        partial(share.update, abs),
        lambda: share.version,
        lambda: share.locked().__enter__(),
        lambda: mmapshare.Share(share),
    ):
        with pytest.raises(ClosedError):
            use()


def test_closing_inside_a_block_is_refused_and_the_block_goes_on(make):
    share = make(1)
    with share.locked() as view:
        with pytest.raises(TransactionError, match="close"):
            share.close()
        view.value = 2
    assert share.get() == 2


def test_closing_in_a_child_leaves_the_parents_share_open(make):
    share = make(1)
    in_child(share.close)
    share.set(2)
    assert share.get() == 2


def test_an_unpicklable_value_is_named_and_changes_nothing(make):
    import threading

    share = make({"a": 1})
    with pytest.raises(UnpicklableError, match=r"value\['a'\]: a _thread.lock"):
        share.set({"a": threading.Lock()})
    with pytest.raises(UnpicklableError) as caught, share.locked() as view:
        view["b"] = [threading.Lock()]
    assert caught.value.path == "value['b'][0]"
    assert (share.get(), share.version) == ({"a": 1}, 1)
    share.set(2)


def test_a_set_clears_a_claim_that_an_interrupted_one_left(make):
    """Its owner asks for the lock, has it already, and nothing of it is under way any more."""
    share = make(1)
    assert inside.lock_of(share).acquire(claim_by(current_owner()), 0)
    assert share.set(2) == 2
    assert in_child(share.set, 3) == 3
    assert inside.claim_of(share) is None


def test_a_value_gets_more_parts_or_fewer_in_a_block(make):
    """A draft is compared with what is stored before it is published."""
    share = make([1])
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


def test_defaults_that_are_no_values_read_as_what_they_stand_for():
    assert "initial: 'T' = <empty>" in str(inspect.signature(Share))
    for method in (Share.locked, Share.lock):
        assert "= <the share's own>" in str(inspect.signature(method))
