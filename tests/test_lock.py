"""The lock's parts, each in a state that a race, a signal or a killed process leads to."""

import os
import threading
import time
from threading import get_ident

import pytest
from support import Child

from mmapshare import LockTimeout, Share, _deadlock, _futex, _lock
from mmapshare._door import TRY
from mmapshare._lock import HOLDER, LEASE, QUEUED
from mmapshare._owner import claim_by, shares_thread


def _held_by_a_child(share):
    def hold(child):
        share.lock()
        child.say()
        child.hear()
        share.unlock()

    child = Child(hold)
    child.hear()
    return child


def test_who_waits_at_the_door_does_not_have_the_lock():
    """It has the gate. Its wait for another lock must not be written into this one's header."""
    share = Share(0)
    lock = share._region.lock
    holder = _held_by_a_child(share)
    waiter = threading.Thread(target=lambda: share.set(1))
    waiter.start()
    while lock.claim is None:
        pass
    try:
        assert not lock.is_held_by(waiter.ident, lambda owner: False)
        assert not lock.is_held_by(0, lambda owner: True)
    finally:
        holder.say()
        holder.result()
        waiter.join()
    with share.locked():
        assert lock.is_held_by(get_ident(), lambda owner: False)
        assert not lock.is_held_by(0, lambda owner: False)
        assert lock.is_held_by(0, lambda owner: owner == get_ident())
        lock.claim._owner, owner = None, lock.claim._owner  # As a void claim's.
        assert not lock.is_held_by(None, lambda owner: True)
        lock.claim._owner = owner
    assert not lock.is_held_by(get_ident(), lambda owner: True)


def test_who_lets_go_naps_for_nobody_who_only_sleeps(monkeypatch):
    """Beside a waiter for the next version each commit would take milliseconds."""
    share = Share(0)
    lock, naps, wakes = share._region.lock, [], []
    monkeypatch.setattr(_lock.time, "sleep", naps.append)
    monkeypatch.setattr(_futex, "wake", lambda words, offset: wakes.append(offset))
    lock.take_lease(time.monotonic_ns() + 10**9)
    share.set(1)
    assert (naps, wakes) == ([], [64])
    lock.words[QUEUED] = time.monotonic_ns() + 10**9 // 1000  # Blocked for less than its patience.
    share.set(2)
    assert (naps, wakes) == ([], [64, 64])
    lock.take_lease(1)
    share.set(3)
    assert (naps, wakes, lock.words[LEASE]) == ([], [64, 64], 1)  # Still asks for attention.


def test_one_ring_at_a_time_and_the_next_where_the_first_does_not_wake():
    share = Share(0)
    lock, rung = share._region.lock, []
    for name in "abc":
        lock._waiters.append(_lock._Waiter(lambda name=name: rung.append(name)))
    lock._wake_first()
    assert rung == ["a"]
    lock._wake_first()
    assert rung == ["a", "a", "b"]
    lock._wake_first()
    assert rung == ["a", "a", "b", "a", "b", "c"]
    lock._waiters.clear()


def test_a_holder_that_is_dead_is_none():
    """What it left in the header names nobody who could let go."""
    share = Share(0)
    lock, child = share._region.lock, Child(lambda child: None)
    child.result()
    lock.words[HOLDER] = child.pid
    assert lock.holder() is None
    taken = _held_by_a_child(share)
    lock.words[HOLDER] = child.pid
    try:
        with pytest.raises(LockTimeout, match="who held it is gone") as caught:
            share.lock(timeout=0)
    finally:
        taken.say()
        taken.result()
    assert (caught.value.holder_pid, caught.value.held_s) == (None, None)


@pytest.mark.parametrize(("refused", "contended"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_a_wait_counts_from_the_first_nap_on(refused, contended):
    share = Share(0)
    lock, real, left = share._region.lock, share._region.lock._flock, [None] * refused

    def flock(fd, operation):
        if operation == TRY and left:
            left.pop()
            raise BlockingIOError
        real(fd, operation)

    lock._flock = flock
    share.set(1)
    lock._flock = real
    assert (left, lock.contended) == ([], contended)


def test_who_has_got_the_lock_itself_while_it_stood_in_line_takes_it_no_second_time():
    """A signal handler may have done that for it, and left with the lock held."""
    share = Share(0)
    lock, mine, handlers = share._region.lock, get_ident(), claim_by(get_ident())
    lock._gate[0] = claim_by(0)

    def take():
        while not lock._waiters:
            pass
        lock._gate[0] = handlers
        lock._wake_first()

    thread = threading.Thread(target=take)
    thread.start()
    assert lock.acquire(claim_by(mine), None) is False
    thread.join()
    assert lock.claim is handlers and not lock._waiters and lock.words[HOLDER] == 0
    assert lock.acquire(claim_by(mine), None) is False
    lock.abandon(handlers)


def test_letting_go_rings_however_it_is_done():
    """Who waits looks again by itself, but late."""
    share = Share(0)
    lock, rung = share._region.lock, []
    claim = claim_by(get_ident())
    for let_go in (lock.release, lambda: lock.abandon(claim)):
        assert lock.acquire(claim, None)
        lock._waiters.append(_lock._Waiter(lambda: rung.append(let_go)))
        let_go()
        assert rung.pop() is let_go and not rung
        lock._waiters.clear()
    lock._waiters.append(_lock._Waiter(lambda: rung.append(None)))
    lock.abandon(claim)
    assert not rung  # It had nothing.
    lock._waiters.clear()


@pytest.mark.parametrize("free", [True, False])
def test_who_gives_up_hands_on_a_ring_that_was_meant_for_it(free):
    share = Share(0)
    lock, rung = share._region.lock, []
    lock._gate[0] = claim_by(0)
    claim = claim_by(get_ident())
    watch = _deadlock.Watch(lock, claim._owner, shares_thread)
    line = lock._line_up(claim, None, lambda: rung.append("it"), shares_thread, watch)
    next(line)
    lock._waiters.append(_lock._Waiter(lambda: rung.append("the next")))
    if free:
        lock._gate.clear()
    line.close()
    assert rung == ["the next"] * free
    assert len(lock._waiters) == 1
    lock._waiters.clear()
    lock._gate.clear()


def test_how_long_the_lock_has_been_held_is_never_less_than_nothing():
    share = Share(0)
    lock = share._region.lock
    with share.locked():
        lock.words[_lock.SINCE] -= 3600 * 10**9
        pid, held_s = lock.holder()
        assert pid == os.getpid() and 3600 <= held_s < 7200
        lock.words[_lock.SINCE] += 7200 * 10**9
        assert lock.holder() == (pid, 0.0)


def test_who_has_stood_in_line_for_long_is_not_overtaken():
    """But what waits in the caller's own thread, or was rung and sleeps on, is."""
    share = Share(0)
    lock, now = share._region.lock, time.monotonic()
    first, second = (_lock._Waiter(lambda: None) for _ in range(2))
    lock._waiters.append(first)
    other_thread = first.thread + 1
    for since_s, rung_s, thread, expected in [
        (now - 60, None, other_thread, True),
        (now + 60, None, other_thread, False),
        (now - 60, now + 60, other_thread, True),
        (now - 60, now - 60, other_thread, False),
        (now - 60, None, get_ident(), False),
    ]:
        first.since_s, first.rung_s, first.thread = since_s, rung_s, thread
        assert lock._somebody_waits_long(True) is expected
        assert lock._somebody_waits_long(False) is (expected or thread == get_ident())
    first.rung_s, first.since_s = now - 60, now - 60
    second.since_s, second.thread = now - 60, other_thread
    lock._waiters.append(second)
    assert lock._somebody_waits_long(True)
    second.since_s = now + 60
    assert not lock._somebody_waits_long(True)
    lock._waiters.clear()
