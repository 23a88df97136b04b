"""The lock's parts, each in a state that a race, a signal or a killed process leads to."""

import asyncio
import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import Child, in_child, inside
from support.inside import (
    BLOCKED,
    HOLDER,
    LEASE,
    RELEASE,
    TRY,
    current_owner,
    shares_thread,
    token_by,
)
from support.owners import ELSEWHERE

from mmapshare import LockTimeout, Share, TransactionError


def _held_by_a_child(share):
    def hold(child):
        share.lock()
        child.say()
        child.hear()
        share.unlock()

    child = Child(hold)
    child.hear()
    return child


def _refuse(lock, times):
    """Let the process lock be taken so many times more."""
    real, left = inside.flock_of(lock), [None] * times

    def flock(fd, operation):
        if operation == TRY and left:
            left.pop()
            raise BlockingIOError
        real(fd, operation)

    inside.flock_of.set(lock, flock)


def test_who_waits_for_the_process_lock_does_not_have_the_lock():
    """It has the thread lock. Its wait for another must not be written into this one's header."""
    share = Share(0)
    lock = inside.lock_of(share)
    holder = _held_by_a_child(share)
    waiter = threading.Thread(target=lambda: share.set(1))
    waiter.start()
    while lock.token is None:
        pass
    try:
        assert not lock.is_held_by(waiter.ident, lambda owner: False)
        assert not lock.is_held_by(ELSEWHERE, lambda owner: True)
    finally:
        holder.say()
        holder.result()
        waiter.join()
    assert not lock.holds_own()
    with share.locked():
        assert lock.holds_own()
        assert lock.is_held_by(current_owner(), lambda owner: False)
        assert not lock.is_held_by(ELSEWHERE, lambda owner: False)
        assert lock.is_held_by(ELSEWHERE, lambda owner: owner == current_owner())
        owner = inside.owner_of(lock.token)
        inside.owner_of.set(lock.token, None)  # As a void token's.
        assert not lock.is_held_by(None, lambda owner: True)
        inside.owner_of.set(lock.token, owner)
    assert not lock.is_held_by(current_owner(), lambda owner: True)


def test_who_lets_go_naps_for_nobody_who_only_sleeps(monkeypatch):
    """Beside a waiter for the next version each commit would take milliseconds."""
    share = Share(0)
    lock, naps, wakes = inside.lock_of(share), [], []
    monkeypatch.setattr(time, "sleep", naps.append)
    monkeypatch.setattr(*inside.at("futex_wake"), lambda words, offset: wakes.append(offset))
    monkeypatch.setattr(*inside.at("PATIENCE_NS"), 10**9)  # However slow the machine is.
    lock.words[inside.LEASE] = time.monotonic_ns() + 10**9
    share.set(1)
    assert (naps, wakes) == ([], [64])
    lock.words[BLOCKED] = time.monotonic_ns()  # Blocked for less than its patience.
    share.set(2)
    assert (naps, wakes) == ([], [64, 64])
    lock.words[inside.LEASE] = 1
    share.set(3)
    assert (naps, wakes, lock.words[LEASE]) == ([], [64, 64], 1)  # Still asks for attention.


def test_who_lets_go_wakes_who_sleeps():
    """Whoever is not woken sleeps for longer than this test may last."""

    def sleep(child):
        words = inside.words_of(inside.region_of(share))
        child.say()
        inside.futex_sleep(words, 8 * inside.VERSION, 1, 10_000)

    share = Share(0)
    lease = time.monotonic_ns() + 10**9
    inside.lock_of(share).words[LEASE] = lease
    child = Child(sleep)
    child.hear()
    child.sleeps()
    share.set(1)
    child.result()
    assert inside.lock_of(share).words[LEASE] == lease


def test_a_lease_that_is_over_or_lies_too_far_ahead_goes():
    share = Share(0)
    words = inside.lock_of(share).words
    for lease in (1, time.monotonic_ns() + 10**11):
        words[LEASE] = lease
        share.set(1)
        assert words[LEASE] == 0


def test_who_made_way_goes_on_as_soon_as_somebody_is_in(monkeypatch):
    share = Share(0)
    words, naps = inside.lock_of(share).words, []

    def nap(seconds):
        naps.append(seconds)
        words[HOLDER] = len(naps) == 2

    monkeypatch.setattr(time, "sleep", nap)
    words[BLOCKED] = words[LEASE] = 1
    share.set(1)
    assert tuple(naps) == inside.WAY_S[:2]


def test_a_holder_that_is_dead_is_none():
    """What it left in the header names nobody who could let go."""
    share = Share(0)
    lock, child = inside.lock_of(share), Child(lambda child: None)
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
    assert caught.value.__context__ is None  # That the first try failed is no part of the story.


@pytest.mark.parametrize(("refused", "contended"), [(0, 0), (1, 0), (2, 1), (3, 1), (11, 1)])
def test_a_wait_counts_from_the_first_nap_on(refused, contended):
    share = Share(0)
    lock = inside.lock_of(share)
    _refuse(lock, refused)
    share.set(1)
    assert lock.contended == contended


def test_how_long_the_lock_has_been_held_is_never_less_than_nothing():
    """The moment may lie ahead: in the header of a region stands whatever was written there."""
    share = Share(0)
    lock = inside.lock_of(share)
    with share.locked():
        since_ns = lock.words[inside.SINCE] // 2  # Half as long as the machine runs.
        lock.words[inside.SINCE] -= since_ns
        pid, held_s = lock.holder()
        assert pid == os.getpid() and held_s >= since_ns / 1e9
        lock.words[inside.SINCE] += since_ns + 3600 * 10**9
        assert lock.holder() == (pid, 0.0)


def test_a_task_takes_the_lock_as_a_thread_does():
    share = Share(0)
    lock, token = inside.lock_of(share), token_by(current_owner())
    for refused, dead in [(0, 0), (1, 1)]:
        _refuse(lock, refused)
        lock.words[HOLDER] = dead
        before = time.monotonic_ns()
        assert asyncio.run(lock.acquire_async(token, None)) is True
        assert lock.words[HOLDER] == os.getpid()
        assert before <= lock.words[inside.SINCE] <= time.monotonic_ns()
        lock.release()
        assert (lock.contended, lock.found_dead) == (refused, dead)
    assert lock.acquire(token, 9)
    assert asyncio.run(lock.acquire_async(token_by(current_owner()), None)) is False
    lock.release()


@pytest.mark.parametrize("way", ["thread", "task"])
def test_what_one_waits_for_is_told_while_one_waits_and_no_longer(way):
    """Left in the header it would be a link of circles that are none."""
    share, held = Share(0), Share(0)
    lock, told = inside.lock_of(share), []

    def flock(fd, operation, real=inside.flock_of(lock)):
        told.append(inside.lock_of(held).words[inside.WAITS_ID])
        if operation == TRY and len(told) < 4:
            raise BlockingIOError
        real(fd, operation)

    inside.flock_of.set(lock, flock)
    with held.locked():
        token = token_by(current_owner())
        if way == "task":
            assert asyncio.run(lock.acquire_async(token, None))
        else:
            assert lock.acquire(token, None)
        assert inside.lock_of(held).words[inside.WAITS_ID] == 0
        lock.release()
    assert told[1:4] == [lock.region_id] * 3


def test_a_wait_with_a_timeout_counts_as_one_without():
    share = Share(0)
    for refused, contended in [(1, 0), (2, 1)]:
        _refuse(inside.lock_of(share), refused)
        with share.locked(timeout=60):
            pass
        assert inside.lock_of(share).contended == contended


def test_who_takes_it_only_if_it_is_free_does_not_pause(monkeypatch):
    share = Share(0)
    lock, pauses = inside.lock_of(share), []
    monkeypatch.setattr(time, "sleep", pauses.append)
    holder = _held_by_a_child(share)
    try:
        assert not lock.try_acquire(token_by(current_owner()))
        assert pauses == [] and lock.token is None
        assert lock.words[HOLDER] == holder.pid
    finally:
        holder.say()
        holder.result()
    token = token_by(current_owner())
    assert lock.try_acquire(token) and lock.token is token
    assert not lock.try_acquire(token_by(current_owner()))
    lock.release()


def test_pauses_for_the_process_lock_double_and_end_with_the_deadline():
    share = Share(0)
    lock = inside.lock_of(share)

    def take(timeout_s):
        watch = inside.Watch(lock, current_owner(), shares_thread, timeout_s)
        for _, pause_s in inside.process_lock_of(lock).take(lock.words, watch, inside.TASK):
            yield pause_s

    _refuse(lock, 10)
    pauses = list(take(None))
    assert pauses[:6] == [50e-6, 100e-6, 200e-6, 400e-6, 800e-6, 1e-3]
    assert pauses[6:] == [1e-3] * 4
    _refuse(lock, 10)
    with pytest.raises(LockTimeout):
        assert all(pause_s <= 1e-5 for pause_s in take(1e-5))
    inside.flock_of(lock)(inside.descriptor_of(lock), RELEASE)


def test_an_interrupt_while_one_lets_go_leaves_nothing_held():
    share = Share(0)
    lock, token, real = (
        inside.lock_of(share),
        token_by(current_owner()),
        inside.flock_of(inside.lock_of(share)),
    )
    assert lock.acquire(token, None)

    def interrupted(fd, operation):
        inside.flock_of.set(lock, real)
        raise KeyboardInterrupt

    inside.flock_of.set(lock, interrupted)
    with pytest.raises(KeyboardInterrupt):
        lock.abandon(token)
    assert lock.token is None and lock.words[HOLDER] == 0
    _held_by_a_child(share).kill()


def test_who_may_be_waited_for_by_the_holder_is_told_so():
    """Joining a child or a thread inside of one's own block hung without a word."""
    share = Share(0, timeout=0)
    told = []

    def wants():
        with pytest.raises(LockTimeout, match="waiting for this one to end") as caught:
            share.set(1)
        told.append(str(caught.value))

    with share.locked():
        in_child(wants)
        thread = threading.Thread(target=wants)
        thread.start()
        thread.join()
    assert "a thread of this process" in told[0]


def test_an_error_of_flock_itself_is_raised_as_it_is_and_the_lock_is_free():
    share = Share(0)
    lock = inside.lock_of(share)
    flock = inside.flock_of(lock)

    def fail(fd, operation):
        if operation == RELEASE:
            inside.flock_of.set(lock, flock)
            raise OSError(errno.EIO, "the disk is gone")
        flock(fd, operation)

    inside.flock_of.set(lock, fail)
    with pytest.raises(OSError, match="the disk is gone"), share.locked():
        pass
    with share.locked(timeout=0) as view:
        view.value = 1
    assert share.get() == 1


def test_another_threads_lock_is_not_ones_own_to_unlock():
    share = Share(0)
    share.lock()
    with ThreadPoolExecutor(1) as pool, pytest.raises(TransactionError, match="without lock"):
        pool.submit(share.unlock).result()
    share.unlock()
