"""Signal handlers, finalisers and hooks that use a share in the middle of its own work."""

import contextlib
import gc
import os
import signal
import threading

import pytest
from support import Child, in_child, inside, trap

from mmapshare import DeadlockError, Share, TransactionError, ViewClosedError


def _block(share):
    with share.locked() as view:
        view.value += 1


@pytest.mark.core("python")
@pytest.mark.parametrize("use", ["set", "update"])
@pytest.mark.parametrize(
    "action", [_block, lambda share: share.set(5), lambda share: (share.lock(), share.unlock())]
)
def test_a_signal_handler_in_mid_commit_is_refused_and_never_tears(action, use):
    """A handler that called `set` at some step took the interrupted `set` for an abandoned one
    and published the same version: two values under one version, torn reads beside it."""
    share = Share(0)
    step, outcomes, sprung = 0, set(), True
    while sprung:
        step += 1
        sprung = False
        share.set(0)
        before, stored = share.version, 0

        def spring():
            nonlocal sprung, stored
            sprung = True
            try:
                share.set(100) if use == "set" else share.update(lambda n: n + 100)
                stored = 1
            except (DeadlockError, TransactionError, ViewClosedError) as err:
                outcomes.add(type(err))

        with trap(step, spring), contextlib.suppress(TransactionError):
            action(share)
        assert inside.token_of(share) is None, step
        assert share.version <= before + 1 + stored, step
        assert share.get() in {0, 1, 5, 100, 101, 105}, step
    assert step > 50
    assert DeadlockError in outcomes


def test_a_finaliser_that_uses_the_share_in_mid_commit_is_refused(make):
    share = make(0)
    said = []

    class Leaves:
        def __del__(self):
            try:
                share.update(int.__add__, 1)
            except DeadlockError as err:
                said.append(str(err))

    class Collects:
        def __reduce__(self):
            garbage = Leaves()
            garbage.me = garbage
            del garbage
            gc.collect()
            return (int, (7,))

    share.update(lambda n: Collects())
    assert share.get() == 7
    assert "finaliser" in said[0]


def test_a_pickling_hook_that_uses_its_own_share_is_refused(make):
    share = make(0)

    class Nested:
        def __setstate__(self, state):
            share.set(5)

        def __getstate__(self):
            return {"a": 1}

    share.set(Nested())
    with pytest.raises(DeadlockError, match="pickling hook"), share.locked():
        pass
    share.set(1)


@pytest.mark.untraced
def test_an_interrupted_release_does_not_let_go_of_anothers_lock():
    """After it had left the thread lock, an interrupted release unlocked what another thread had
    locked since."""
    share = Share(0)
    lock = inside.lock_of(share)
    step, sprung, taken = 0, True, 0
    while sprung:
        step += 1
        sprung = False
        entered, leave = threading.Event(), threading.Event()

        def other(entered=entered, leave=leave):
            with share.locked(timeout=5):
                entered.set()
                leave.wait()

        thread = threading.Thread(target=other)

        def spring(thread=thread, entered=entered):
            nonlocal sprung, taken
            sprung = True
            if lock.token is None and inside.lock_words_of(lock)[inside.HOLDER] == 0:
                thread.start()
                entered.wait()
                taken += 1
            raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt), trap(step, spring):
            share.set(1)
        if thread.ident is not None:
            assert lock.token is not None, step
            with pytest.raises(Exception, match="held"):
                in_child(lambda: share.lock(timeout=0))
            leave.set()
            thread.join()
        assert lock.token is None, step
    assert taken > 3


def test_a_signal_handlers_exception_is_not_lost_while_pickling(make):
    share = make(0)

    class Alarm(ValueError):
        pass

    class Slow:
        def __reduce__(self):
            signal.raise_signal(signal.SIGUSR1)
            return (int, ())

    def strike(signum, frame):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        raise Alarm

    before = signal.signal(signal.SIGUSR1, strike)
    try:
        with pytest.raises(Exception) as caught:
            share.set(Slow())
        assert isinstance(caught.value, Alarm) or isinstance(caught.value.__cause__, Alarm)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert share.get() == 0
    assert Child(lambda child: os.getpid()).result() != os.getpid()
