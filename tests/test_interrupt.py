"""Ctrl-C anywhere leaves the lock free, and the old value or the new one."""

import contextlib
import os
import random
import signal
import sys
import threading

import pytest
from support import Child, block, nested_block, trap

from mmapshare import LockTimeout, Share, _guard, _lock
from mmapshare._transaction import Transaction

SEED = int.from_bytes(os.urandom(4), "little")


def _lock_is_free(share):
    """Whether another process could take it: asked through a description of our own."""
    door = type(share._region.lock._door)(share._region.lock._door._path)
    try:
        door.flock(door.fd, _lock.TRY)
    except BlockingIOError:
        return False
    else:
        door.flock(door.fd, _lock.RELEASE)
        return True
    finally:
        door.close()


ACTIONS = {
    "block": block,
    "nested": nested_block,
    "set": lambda share: share.set({"n": 2}),
    "update": lambda share: share.update(dict.update, n=2),
}


# What strikes inside of a finaliser can only be reported.
unraisable = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@unraisable
@pytest.mark.parametrize("exception", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("name", ACTIONS)
def test_an_exception_at_any_step_leaves_the_lock_free(name, exception):
    share = Share({"n": 1})
    action = ACTIONS[name]
    step = 0
    sprung = True

    def spring():
        nonlocal sprung
        sprung = True
        raise exception

    while sprung:
        step += 1
        sprung = False
        with contextlib.suppress(exception), trap(step, spring):
            action(share)
        assert _lock_is_free(share), f"step {step}"
        assert share._region.lock.claim is None, f"step {step}"
        assert share.get() in ({"n": 1}, {"n": 2}), f"step {step}"
        share.set({"n": 1})
    assert step > 100


def _storm(action, interrupts, rng, struck):
    """Run ``action`` over and over while SIGALRM raises at random moments.

    ``struck`` is called while the exception is being handled: its traceback keeps everything
    alive, so that no finaliser has helped yet.
    """

    class Struck(BaseException):
        pass

    count = 0
    armed = False

    def strike(signum, frame):
        nonlocal count
        if armed:
            count += 1
            raise Struck

    before = signal.signal(signal.SIGALRM, strike)
    try:
        while count < interrupts:
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 150e-6))
                armed = True
                for _ in range(50):
                    action()
                armed = False
            except Struck:
                armed = False
                struck()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@unraisable
@pytest.mark.parametrize("name", ACTIONS)
def test_a_storm_of_signals_leaves_no_lock_held(name):
    print("seed", SEED)
    rng = random.Random(SEED)
    share = Share({"n": 1})

    def struck():
        assert share._region.lock.claim is None

    _storm(lambda: ACTIONS[name](share), 3000, rng, struck)
    assert _lock_is_free(share)
    share.set({"n": 1})


def _unguarded(monkeypatch):
    """Transaction without its protection at the first instruction."""
    code = Transaction.__exit__.__code__
    table = code.co_exceptiontable
    start, rest = _guard._number(table)
    length, rest = _guard._number(rest)
    assert start == 0, "the guard is not in place"
    narrowed = bytes([0x80 | 2]) + _guard._digits(length - 2) + rest
    exit_ = type(Transaction.__exit__)(
        code.replace(co_exceptiontable=narrowed), Transaction.__exit__.__globals__
    )
    monkeypatch.setattr(Transaction, "__exit__", exit_)


@unraisable
@pytest.mark.skipif(sys.implementation.name != "cpython", reason="CPython's bytecode")
def test_without_the_guard_the_storm_finds_locks_held_and_the_next_block_clears_them(monkeypatch):
    """The planted bug: it shows that the storm can fail, and that the second line holds."""
    print("seed", SEED)
    rng = random.Random(SEED)
    _unguarded(monkeypatch)
    share = Share({"n": 1})
    held = 0

    def struck():
        nonlocal held
        if share._region.lock.claim is not None:
            held += 1
            with share.locked() as view:
                view["n"] = held
            assert share._region.lock.claim is None
            assert share.get() == {"n": held}

    _storm(lambda: block(share), 3000, rng, struck)
    assert held > 0
    assert _lock_is_free(share)


def test_an_abandoned_block_is_rolled_back_by_its_finaliser(make):
    share = make([1])
    transaction = share.locked()
    transaction.__enter__().append(2)
    del transaction
    assert share._region.lock.claim is None
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
            return share._region.lock.claim is None

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
