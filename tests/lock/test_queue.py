"""The queue within a process: who waits in it, who is woken, who gives up."""

import asyncio
import os
import threading
import time
import weakref

import pytest
from support import inside
from support.inside import HOLDER, current_owner, shares_thread, token_by
from support.owners import ELSEWHERE, HERE

from mmapshare import LockTimeout, Share

WAITERS = []


@pytest.fixture(autouse=True)
def nobody_waits():
    yield
    WAITERS.clear()


def _join(lock, waiter):
    WAITERS.append(waiter)  # As its frame keeps it.
    inside.waiters_of(lock).append(weakref.ref(waiter))


def test_one_wake_up_at_a_time_and_the_next_where_the_first_does_not_wake():
    share = Share(0)
    lock, woken = inside.lock_of(share), []
    for name in "abc":
        _join(lock, inside.Waiter(lambda name=name: woken.append(name)))
    inside.waiters_of(lock).wake_first()
    assert woken == ["a"]
    inside.waiters_of(lock).wake_first()
    assert woken == ["a", "a", "b"]
    inside.waiters_of(lock).wake_first()
    assert woken == ["a", "a", "b", "a", "b", "c"]
    inside.waiters_of(lock).clear()


def test_who_has_got_the_lock_itself_while_it_waited_takes_it_no_second_time():
    """A signal handler may have done that for it, and left with the lock held."""
    share = Share(0)
    lock, mine, handlers = inside.lock_of(share), current_owner(), token_by(current_owner())
    inside.thread_lock_of(lock)[0] = token_by(ELSEWHERE)

    def take():
        while not inside.waiters_of(lock):
            pass
        inside.thread_lock_of(lock)[0] = handlers
        inside.waiters_of(lock).wake_first()

    thread = threading.Thread(target=take)
    thread.start()
    assert lock.acquire(token_by(mine), None) is False
    thread.join()
    assert lock.token is handlers and not inside.waiters_of(lock) and lock.words[HOLDER] == 0
    assert lock.acquire(token_by(mine), None) is False
    lock.abandon(handlers)


@pytest.mark.parametrize("gets_it", [True, False])
def test_a_task_that_waited_has_the_lock_or_finds_it_its_own(gets_it):
    share = Share(0)
    lock, token, handlers = inside.lock_of(share), token_by(HERE), token_by(HERE)
    inside.thread_lock_of(lock)[0] = token_by(ELSEWHERE)

    def leave():
        while not inside.waiters_of(lock):
            pass
        if gets_it:
            del inside.thread_lock_of(lock)[0]
        else:
            inside.thread_lock_of(lock)[0] = handlers
        inside.waiters_of(lock).wake_first()

    thread = threading.Thread(target=leave)
    thread.start()
    assert asyncio.run(lock.acquire_async(token, None)) is gets_it
    thread.join()
    assert lock.token is (token if gets_it else handlers)
    assert lock.words[HOLDER] == (os.getpid() if gets_it else 0)
    lock.abandon(lock.token)
    assert lock.words[HOLDER] == 0


def test_letting_go_wakes_however_it_is_done():
    """Who waits looks again by itself, but late."""
    share = Share(0)
    lock, woken = inside.lock_of(share), []
    token = token_by(current_owner())
    for let_go in (lock.release, lambda: lock.abandon(token)):
        assert lock.acquire(token, None)
        _join(lock, inside.Waiter(lambda: woken.append(let_go)))
        let_go()
        assert woken.pop() is let_go and not woken
        inside.waiters_of(lock).clear()
    _join(lock, inside.Waiter(lambda: woken.append(None)))
    lock.abandon(token)
    assert not woken  # It had nothing.
    inside.waiters_of(lock).clear()


@pytest.mark.parametrize("free", [True, False])
def test_who_gives_up_hands_on_a_wake_up_that_was_meant_for_it(free):
    share = Share(0)
    lock, woken = inside.lock_of(share), []
    inside.thread_lock_of(lock)[0] = token_by(ELSEWHERE)
    token = token_by(current_owner())
    watch = inside.Watch(lock, inside.owner_of(token), shares_thread, None)
    turn = inside.waiters_of(lock).wait_turn(lock, token, watch, inside.THREAD)
    next(turn)
    _join(lock, inside.Waiter(lambda: woken.append("the next")))
    if free:
        inside.thread_lock_of(lock).clear()
    turn.close()
    assert woken == ["the next"] * free
    assert len(inside.waiters_of(lock)) == 1
    inside.waiters_of(lock).clear()
    inside.thread_lock_of(lock).clear()


def test_who_has_waited_for_long_is_not_overtaken():
    """But what waits in the caller's own thread, or was woken and sleeps on, is."""
    share = Share(0)
    lock, now = inside.lock_of(share), time.monotonic()
    first, second = (inside.Waiter(lambda: None) for _ in range(2))
    _join(lock, first)
    other_thread = ELSEWHERE
    for since_s, woken_s, thread, expected in [
        (now - 60, None, other_thread, True),
        (now + 60, None, other_thread, False),
        (now - 60, now + 60, other_thread, True),
        (now - 60, now - 60, other_thread, False),
        (now - 60, None, current_owner(), False),
    ]:
        first.since_s, first.woken_s, first.thread = since_s, woken_s, thread
        assert inside.waiters_of(lock).somebody_waits_long(True) is expected
        assert inside.waiters_of(lock).somebody_waits_long(False) is (
            expected or thread == current_owner()
        )
    first.woken_s, first.since_s = now - 60, now - 60
    second.since_s, second.thread = now - 60, other_thread
    _join(lock, second)
    assert inside.waiters_of(lock).somebody_waits_long(True)
    second.since_s = now + 60
    assert not inside.waiters_of(lock).somebody_waits_long(True)
    inside.waiters_of(lock).clear()


def test_who_waits_looks_again_as_often_as_it_must():
    share, held = Share(0), Share(0)
    lock = inside.lock_of(share)
    inside.thread_lock_of(lock)[0] = token_by(ELSEWHERE)

    def first_pause(timeout_s):
        token = token_by(current_owner())
        watch = inside.Watch(lock, inside.owner_of(token), shares_thread, timeout_s)
        turn = inside.waiters_of(lock).wait_turn(lock, token, watch, inside.THREAD)
        _, pause_s = next(turn)
        turn.close()
        return pause_s

    assert first_pause(None) == first_pause(60) == inside.RECHECK_S
    assert 0 < first_pause(0.04) <= 0.04
    with pytest.raises(LockTimeout):
        first_pause(0)
    with held.locked():  # Others could wait for what it holds.
        assert first_pause(None) == inside.LOOK_S
    assert not inside.waiters_of(lock)
    inside.thread_lock_of(lock).clear()


def test_one_whose_wait_was_cut_off_stands_in_nobodys_way():
    """An interrupt in the middle of leaving the queue left it there, and all others behind it."""
    share = Share(0)
    lock = inside.lock_of(share)
    inside.waiters_of(lock).append(weakref.ref(inside.Waiter(lambda: None)))
    assert share.set(1) == 2
    assert not inside.waiters_of(lock)


def test_a_waiter_whose_holder_is_just_leaving_looks_again(monkeypatch):
    share = Share(0)
    lock = inside.lock_of(share)
    token = inside.token_by(None)
    inside.thread_lock_of(lock)[0] = token
    done = threading.Thread(target=lambda: share.set(1))
    done.start()
    inside.thread_lock_of(lock).pop(0)
    done.join()
    assert share.get() == 1
