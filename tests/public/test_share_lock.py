"""`Share`: who has the lock, what a timeout says, and blocks within blocks."""

import threading
import time
from functools import partial

import pytest
from support import Child, in_child, inside
from support.inside import current_owner, token_by

from mmapshare import (
    DeadlockError,
    LockTimeout,
    Snapshot,
    TransactionError,
    VersionConflict,
)


@pytest.mark.needs("crosses_fork", "reads_wait_for_nobody")
def test_get_does_not_wait_for_a_holder(medium):
    share = medium.share("old")

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


@pytest.mark.needs("crosses_fork")
def test_between_lock_and_unlock_set_commits_at_once(medium):
    share = medium.share(1)
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


def test_locking_twice_is_a_deadlock_and_unlocking_unlocked_an_error(medium):
    share = medium.share(1)
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


def test_an_exception_between_lock_and_unlock_leaves_the_lock_usable(medium):
    share = medium.share(1)
    share.lock()
    with pytest.raises(KeyError), share.locked() as view:
        view.value = 2
        raise KeyError
    assert share.set(5) == 2
    share.unlock()


def test_set_inside_ones_own_block_names_view_value(medium):
    share = medium.share(1)
    with share.locked() as view:
        with pytest.raises(TransactionError, match=r"view\.value"):
            share.set(5)
        view.value = 2
    assert share.get() == 2


def test_a_nested_block_joins_the_outer_one(medium):
    share = medium.share([])
    with share.locked() as outer:
        outer.append(1)
        with share.locked() as inner:
            assert inner is outer
            inner.append(2)
        assert share.get() == []
        outer.append(3)
    assert (share.get(), share.version) == ([1, 2, 3], 2)


def test_a_nested_block_of_an_empty_share_joins_the_outer_one(medium):
    """What the outer view covered was looked for among the attributes of its value, and there
    was none yet: the inner block raised EmptyShareError. The state machines found it."""
    share = medium.share()
    with share.locked() as outer, share.locked() as inner:
        assert inner is outer
        inner.value = 1
    assert share.snapshot() == Snapshot(1, 1)


def test_a_failed_inner_block_lets_the_outer_one_commit_nothing(medium):
    share = medium.share([])
    with pytest.raises(TransactionError, match="KeyError") as caught, share.locked() as outer:
        outer.append(1)
        with pytest.raises(KeyError), share.locked() as inner:
            inner.append(2)
            raise KeyError("inner")
        outer.append(3)
    assert isinstance(caught.value.__cause__, KeyError)
    assert share.get() == []


def test_rollback_after_a_failed_inner_block_makes_the_outer_one_whole_again(medium):
    share = medium.share([])
    with share.locked() as outer:
        outer.append(1)
        with pytest.raises(KeyError), share.locked():
            raise KeyError
        outer.rollback()
        outer.append(3)
    assert share.get() == [3]


def test_a_transaction_is_used_once(medium):
    share = medium.share(1)
    transaction = share.locked()
    with transaction, pytest.raises(TransactionError, match="once"):
        transaction.__enter__()
    with pytest.raises(TransactionError, match="once"), transaction:
        pass
    assert share.set(2) == 2


@pytest.mark.needs("crosses_fork")
def test_a_timeout_says_who_holds_the_lock_and_for_how_long(medium):
    share = medium.share(1, timeout=0.01)

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


def test_a_timeout_says_when_the_holder_is_a_thread_of_ones_own_process(medium):
    share = medium.share(1)
    share.lock()

    def wait():
        with pytest.raises(LockTimeout, match="thread of this process"):
            share.set(2) if inside.timeout_of(share) else share.lock(timeout=0.01)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    share.unlock()


@pytest.mark.needs("crosses_fork", "sleeps_to_wait")
def test_a_contended_wait_is_counted(medium):
    share = medium.share(0)

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


@pytest.mark.needs("crosses_fork")
def test_a_set_clears_a_token_that_an_interrupted_one_left(medium):
    """Its owner asks for the lock, has it already, and nothing of it is under way any more."""
    share = medium.share(1)
    assert inside.lock_of(share).acquire(token_by(current_owner()), 0)
    assert share.set(2) == 2
    assert in_child(share.set, 3) == 3
    assert inside.token_of(share) is None
