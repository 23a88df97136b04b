"""Interrupts that come while another is being dealt with: one line of defence behind the other.

The proof's sweeps and storms strike everywhere; here each line is made to be needed.
"""

import asyncio
import gc
import signal
import threading
import weakref

import pytest
from support import in_child, inside, interrupt_releases, is_free
from support.inside import current_owner, token_by

from mmapshare import LockTimeout, Share, TransactionError


@pytest.mark.parametrize("times", [1, 2])
def test_an_unlock_that_is_interrupted_lets_go_all_the_same(make, times):
    share = make(1)
    share.lock()
    interrupt_releases(share, times)
    with pytest.raises(KeyboardInterrupt):
        share.unlock()
    assert is_free(share)
    with pytest.raises(TransactionError, match="without lock"):
        share.unlock()


@pytest.mark.parametrize("times", [1, 2])
def test_a_blocks_end_that_is_interrupted_lets_go_all_the_same(make, times):
    share = make([1])
    interrupt_releases(share, times)
    with pytest.raises(KeyboardInterrupt), share.locked() as view:
        view.append(2)
    assert is_free(share)
    assert share.get() == [1, 2]


def test_who_is_interrupted_while_waking_the_next_takes_nothing_from_that(make):
    share = make(1)
    lock = inside.lock_of(share)
    token = token_by(current_owner())
    lock.acquire(token, None)
    held, leave = threading.Event(), threading.Event()

    def hold():
        with share.locked(timeout=5):
            held.set()
            leave.wait()

    thread = threading.Thread(target=hold)

    def wake():
        thread.start()
        held.wait()
        raise KeyboardInterrupt

    waiter = inside.Waiter(wake)
    inside.waiters_of(lock).append(weakref.ref(waiter))
    try:
        with pytest.raises(KeyboardInterrupt):
            lock.abandon(token)
        inside.waiters_of(lock).remove(weakref.ref(waiter))
        with pytest.raises(LockTimeout):
            in_child(lambda: share.lock(timeout=0))
    finally:
        leave.set()
        thread.join()
    assert is_free(share)


def test_a_wait_whose_end_is_interrupted_leaves_no_trace(monkeypatch):
    a, b = Share(1), Share(2)
    taken, done = threading.Event(), threading.Event()
    lock = inside.lock_of(a)
    real = inside.lock_words_of(lock)

    def hold():
        with b.locked():
            taken.set()
            done.wait()

    class Striking:
        def __setitem__(self, index, word):
            inside.lock_words_of.set(lock, real)
            raise KeyboardInterrupt

    def over(watch):
        inside.lock_words_of.set(lock, Striking())
        real_over(watch)

    real_over = inside.watch_over
    monkeypatch.setattr(*inside.at("watch_over"), over)
    with a.locked():
        holder = threading.Thread(target=hold)
        holder.start()
        taken.wait()
        try:
            with pytest.raises(KeyboardInterrupt):
                b.lock(timeout=0)
        finally:
            done.set()
            holder.join()
        assert inside.lock_words_of(inside.lock_of(a))[inside.WAITS_ID] == 0


@pytest.mark.core("c")
def test_the_compiled_core_keeps_no_block_alive_whose_end_is_stopped(make):
    """There is no frame of an `__exit__` in the traceback: the block is gone, and lets go."""
    share = make([1])
    interrupt_releases(share, 3)
    with pytest.raises(KeyboardInterrupt), share.locked() as view:
        view.append(2)
    assert is_free(share)
    assert share.get() == [1, 2]


# --- A block whose end was stopped for good ------------------------------------------------------


def _stop(share):
    """A block whose `__exit__`, with all that it tries, is interrupted each time."""
    interrupt_releases(share, 3)
    with share.locked() as view:
        view.append(2)


def _handled_at_once(share):
    try:
        _stop(share)
    except KeyboardInterrupt:
        _append(share)


def _handled_as_a_context(share):
    try:
        try:
            _stop(share)
        except KeyboardInterrupt:
            raise ValueError
    except ValueError:
        _append(share)


def _handled_as_a_cause(share):
    try:
        _stop(share)
    except KeyboardInterrupt as err:
        stopped = err
    try:
        raise ValueError from stopped
    except ValueError:
        _append(share)


def _append(share):
    assert inside.token_of(share) is not None, "nothing was stopped"
    with share.locked(timeout=5) as view:
        view.append(3)


@pytest.mark.core("python")
@pytest.mark.parametrize(
    "handle",
    [_handled_at_once, _handled_as_a_context, _handled_as_a_cause],
    ids=lambda f: f.__name__,
)
def test_a_stopped_block_is_cleared_by_the_next_one_while_that_is_handled(make, handle):
    share = make([1])
    handle(share)
    assert is_free(share)
    assert share.get() == [1, 2, 3]


@pytest.mark.core("python")
def test_an_exception_handled_in_ones_own_block_does_not_clear_it(make):
    share, other = make([1]), make([1])
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first  # A chain that never ends.
    with share.locked() as outer:
        try:
            raise first
        except ValueError:
            with share.locked() as inner:
                assert inner is outer
        try:
            _stop(other)
        except KeyboardInterrupt:
            with share.locked() as inner:
                assert inner is outer
            _append(other)
        outer.append(4)
    assert (share.get(), other.get()) == ([1, 4], [1, 2, 3])


# --- What is left of others, and goes meanwhile --------------------------------------------------


def _lock_and_unlock(share):
    share.lock(timeout=5)
    share.set(2)
    share.unlock()


def _block(share):
    with share.locked(timeout=5) as view:
        view.value = 2


async def _async_block(share):
    async with share.locked(timeout=5) as view:
        view.value = 2


USES = pytest.mark.parametrize("use", [_lock_and_unlock, _block, _async_block])


def _in_a_task(left, use, share):
    """``left`` and ``use`` by one owner."""

    async def main():
        left()
        done = use(share)
        if done is not None:
            await done

    asyncio.run(main())


@USES
def test_what_a_stopped_set_has_left_is_cleared_by_the_same_owner(make, use):
    share = make(1)
    lock = inside.lock_of(share)
    _in_a_task(lambda: lock.acquire(token_by(current_owner()), None), use, share)
    assert share.get() == 2
    assert is_free(share)


@USES
def test_a_block_that_its_finaliser_clears_meanwhile_is_not_joined(make, use, monkeypatch):
    """It is found as the owner's own, and is gone when one looks what it is."""
    share = make(1)
    abandoned = []

    def leave():
        abandoned.append(share.locked())
        abandoned[0].__enter__().value = 99

    def acquire(lock, token, timeout_s):
        taken = real(lock, token, timeout_s)
        if not taken:
            abandoned.clear()
            gc.collect()
        return taken

    async def acquire_async(lock, token, timeout_s):
        taken = await real_async(lock, token, timeout_s)
        if not taken:
            abandoned.clear()
            gc.collect()
        return taken

    real, real_async = inside.lock_acquire, inside.lock_acquire_async
    monkeypatch.setattr(*inside.at("lock_acquire"), acquire)
    monkeypatch.setattr(*inside.at("lock_acquire_async"), acquire_async)
    _in_a_task(leave, use, share)
    assert abandoned == []
    assert (share.get(), share.version) == (2, 2)
    assert is_free(share)


# --- A handler that takes the lock while one waits in the queue ----------------------------------


class _Handler:
    """Another thread's block, and a handler that ends it and takes the lock itself."""

    def __init__(self, share):
        self.share = share
        self.main = threading.get_ident()
        self.held, self.leave = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.hold)
        self.before = signal.signal(signal.SIGUSR1, self.strike)

    def hold(self):
        with self.share.locked():
            self.held.set()
            self.leave.wait()

    def strike(self, *args):
        self.leave.set()
        self.thread.join()
        self.share.lock(timeout=5)

    def __enter__(self):
        self.thread.start()
        self.held.wait()

    def __exit__(self, *exc):
        signal.signal(signal.SIGUSR1, self.before)
        self.leave.set()
        self.thread.join()


def test_a_block_in_the_queue_stands_inside_of_what_a_handler_took_meanwhile(make):
    share = make(0)
    main = threading.get_ident()

    def interrupt():
        while not inside.waiters_of(inside.lock_of(share)):
            pass
        signal.pthread_kill(main, signal.SIGUSR1)

    striker = threading.Thread(target=interrupt)
    with _Handler(share):
        striker.start()
        with share.locked(timeout=5) as view:
            view.value += 1
            with pytest.raises(TransactionError, match="inside a locked"):
                share.unlock()
        striker.join()
        with pytest.raises(LockTimeout):
            in_child(lambda: share.lock(timeout=0))
        share.unlock()
    assert is_free(share)
    assert share.get() == 1


def test_a_task_in_the_queue_stands_inside_of_what_a_handler_took_meanwhile(make, monkeypatch):
    share = make(0)
    real = inside.task_event

    def event():
        signal.raise_signal(signal.SIGUSR1)
        return real()

    async def main():
        async with share.locked(timeout=5) as view:
            view.value += 1
            with pytest.raises(TransactionError, match="inside a locked"):
                share.unlock()
        with pytest.raises(LockTimeout):
            in_child(lambda: share.lock(timeout=0))
        share.unlock()

    monkeypatch.setattr(*inside.at("task_event"), staticmethod(event))
    with _Handler(share):
        asyncio.run(main())
    assert is_free(share)
    assert share.get() == 1
