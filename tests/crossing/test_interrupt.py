"""Ctrl-C ends waits, and what it abandons is rolled back. Exceptions at every bytecode, and
storms of signals: see proof/test_exceptions.py."""

import os
import signal
import threading

import pytest
from support import Child, inside

from mmapshare import LockTimeout


def test_an_abandoned_block_is_rolled_back_by_its_finaliser(make):
    share = make([1])
    transaction = share.locked()
    transaction.__enter__().append(2)
    del transaction
    assert inside.token_of(share) is None
    assert (share.get(), share.version) == ([1], 1)
    share.set([3])


def test_ctrl_c_ends_a_wait_for_the_lock_at_once(make):
    share = make(1)

    def hold(child):
        with share.locked():
            child.say()
            child.hear()

    def wait(child):
        try:
            child.say()
            with share.locked():
                return "got it"
        except KeyboardInterrupt:
            return inside.token_of(share) is None

    holder = Child(hold)
    holder.hear()
    waiter = Child(wait)
    waiter.hear()
    waiter.sleeps()
    os.kill(waiter.pid, signal.SIGINT)
    assert waiter.result() is True
    holder.say()
    holder.result()


def test_ctrl_c_ends_a_wait_for_another_thread_at_once(make):
    share = make(1)
    held, leave = threading.Event(), threading.Event()

    def hold():
        with share.locked():
            held.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    signal.setitimer(signal.ITIMER_REAL, 0.05)

    def strike(signum, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, strike)
    try:
        with pytest.raises(KeyboardInterrupt):
            share.lock()
    finally:
        signal.signal(signal.SIGALRM, before)
        leave.set()
        thread.join()
    share.set(2)
    with pytest.raises(LockTimeout):
        share.lock()
        Child(lambda child: share.lock(timeout=0)).result()
    share.unlock()
