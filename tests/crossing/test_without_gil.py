"""What keeps threads apart where no GIL does, and what CPython itself breaks there."""

import errno
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from weakref import ref

import pytest
from support import in_child, inside
from support.inside import ClosingToken, ThreadOwner, current_owner, token_by
from support.without_gil import FORKS_BESIDE_THREADS_HANG

from mmapshare import ClosedError, SharedDict, TransactionError

ALONE = Path(__file__).parent.parent / "support" / "planted_fork_beside_threads.py"


def test_what_is_skipped_for_cpythons_sake_is_cpythons_fault():
    """The script knows nothing of mmapshare; where no child hangs nothing may be skipped."""
    seconds = 60 if FORKS_BESIDE_THREADS_HANG else 1
    command = [sys.executable, "-W", "ignore", ALONE, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == FORKS_BESIDE_THREADS_HANG, done.stdout + done.stderr
    assert "forked children hung" in done.stdout


@pytest.mark.parametrize(
    "use",
    [
        lambda shared: shared["a"],
        lambda shared: shared.update(a=bytes(100_000)),
        lambda shared: shared.snapshot()["a"],
        lambda shared: len(shared),
    ],
    ids=["read", "write", "copy", "length"],
)
def test_closing_beside_threads_that_use_a_dict_is_a_clear_error(use):
    """Without the GIL a thread copied out of memory that was being unmapped: a crash.

    With it, it got a ValueError that spoke of an mmap.
    """
    for _ in range(10):
        _close_beside(use, SharedDict(a=bytes(100_000)))


@pytest.mark.parametrize(
    "use",
    [
        lambda share: share.get(),
        lambda share: share.update(lambda value: value[::-1]),
        lambda share: share.set(bytes(100_000)),
        lambda share: share.wait(timeout=0.001),
        lambda share: (share.version, share.info()),
    ],
    ids=["read", "block", "write", "wait", "look"],
)
def test_closing_beside_threads_that_use_a_share_is_a_clear_error(use, make):
    for _ in range(10):
        _close_beside(use, make(bytes(range(250)) * 400))


def _close_beside(use, shared):
    begin, ends = threading.Barrier(4), []

    def work():
        begin.wait()
        try:
            while True:
                use(shared)
        except BaseException as err:
            ends.append(err)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    begin.wait()
    use(shared)
    while not shared.closed:
        try:
            shared.close()
        except TransactionError:  # One of them has the lock.
            pass
    for thread in threads:
        thread.join()
    assert [type(end) for end in ends] == [ClosedError] * 3, ends
    assert {str(end).partition(";")[0] for end in ends} == {"this share was closed in this process"}


def test_nobody_comes_by_the_lock_while_it_is_closed(make, monkeypatch):
    """A thread that took it then committed what another process committed meanwhile."""
    share = make(1)
    lock = inside.lock_of(share)
    real, tried, thread = inside.forget_open, [], ThreadOwner()

    def forget(shared):
        real(shared)
        tried.append(lock.try_acquire(token_by(ref(thread))))
        shared.close()  # Of another thread's close, or a second one, nothing more is to be had.

    monkeypatch.setattr(*inside.at("forget_open"), forget)
    share.close()
    assert tried == [False]
    assert share.closed
    with pytest.raises(ClosedError, match="was closed in this process"):
        lock.acquire(token_by(current_owner()), None)


def test_of_two_threads_that_close_at_once_one_does(make):
    share = make(1)
    region = inside.region_of(share)
    thread = ThreadOwner()
    other = token_by(ref(thread), ClosingToken)
    assert region.lock.acquire_to_close(other)
    share.close()
    assert not share.closed
    assert not region.lock.is_held_by(inside.owner_of(other), lambda owner: True)
    region.lock.abandon(other)
    share.close()


def test_a_close_that_comes_second_closes_nothing_of_a_share(make, monkeypatch):
    share = make(1)
    real = type(inside.lock_of(share)).acquire_to_close

    def acquire_to_close(lock, token):
        monkeypatch.undo()
        share.close()
        return real(lock, token)

    monkeypatch.setattr(type(inside.lock_of(share)), "acquire_to_close", acquire_to_close)
    share.close()
    assert share.closed


def test_a_weak_set_that_changes_is_looked_through_again():
    looks = iter([RuntimeError("Set changed size during iteration"), None])

    class Changing:
        def __iter__(self):
            err = next(looks)
            if err is not None:
                raise err
            return iter([1])

    assert inside.members(Changing()) == [1]


def test_threads_that_load_one_handle_get_one_share_however_they_meet(make, monkeypatch):
    share = make(1)
    raw = pickle.dumps(share)
    real, both = inside.attrs_in_handle.evolve, threading.Barrier(2)

    def evolve(*args, **kwargs):
        both.wait()
        return real(*args, **kwargs)

    def work():
        inside.open_here.clear()
        monkeypatch.setattr(inside.attrs_in_handle, "evolve", evolve)
        got = []
        threads = [threading.Thread(target=lambda: got.append(pickle.loads(raw))) for _ in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len({id(one) for one in got}), got[0].get()

    assert in_child(work) == (1, 1)


def test_whatever_is_done_to_what_was_closed_is_a_clear_error():
    closed = inside.CLOSED

    def store():
        closed[0] = 1

    uses = [lambda: closed[0], store, lambda: closed.madvise(0)]
    if sys.version_info >= (3, 12):
        uses.append(lambda: memoryview(closed))
    for use in uses:
        with pytest.raises(ClosedError, match="was closed in this process"):
            use()
    assert not hasattr(closed, "__wrapped__")


def test_the_memory_in_use_of_what_another_thread_closes_meanwhile(make, monkeypatch):
    """It was a bare OSError, "Bad file descriptor"."""
    share = make(1)

    def closed_or(closes):
        def fstat(fd):
            monkeypatch.undo()
            if closes:
                share.close()
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

        return fstat

    for closes, error in (False, OSError), (True, ClosedError):
        monkeypatch.setattr(os, "fstat", closed_or(closes))
        with pytest.raises(error):
            share.info()


def test_a_block_whose_process_lock_went_first_is_left_in_silence(make):
    """At the end of a process without the GIL a share may be gone before its generator's block."""
    share = make(1)
    transaction = share.locked()
    transaction.__enter__()
    inside.process_lock_of(inside.lock_of(share)).close()
    transaction.__exit__(GeneratorExit, GeneratorExit(), None)
    assert inside.lock_of(share).token is None


@pytest.mark.parametrize(
    "look, found",
    [
        (lambda view: view[4], "four"),
        (lambda view: 4 in view, True),
        (len, 5),
        (list, [0, 1, 2, 3, 4]),
    ],
    ids=["value", "key", "length", "keys"],
)
def test_work_without_the_lock_looks_at_the_index_while_nobody_changes_it(look, found, monkeypatch):
    """It looked when another thread of the process could be half through taking a key out.

    The last key was missing for a moment then; without the GIL listing the keys could fail.
    """
    shared = SharedDict({0: 0, 1: 1, 2: 2, 3: 3, 4: "four"})
    places, taken = inside.index_of(shared).current().places, {}
    real = inside.Index.read

    def read(index, look):
        places.update(taken)
        found = real(index, look)
        taken.update([places.popitem()])  # As `Places.take_out` does, under the mutex.
        return found

    monkeypatch.setattr(inside.Index, "read", read)
    assert shared.transact(look) == found


def test_an_absent_share_that_another_thread_reaches_is_closed_all_the_same(make, monkeypatch):
    """Its region stayed open; or the share was open again, with the region that was reached."""
    share = make(1)
    raw = pickle.dumps(share)

    def work():
        inside.open_here.clear()
        monkeypatch.setattr(*inside.at("is_reached"), lambda *given: False)
        loaded = pickle.loads(raw)
        absent = inside.region_of(loaded)
        forget = inside.forget_open

        def reached(shared):
            monkeypatch.undo()
            forget(shared)
            assert shared.get() == 1

        monkeypatch.setattr(*inside.at("forget_open"), reached)
        loaded.close()
        with pytest.raises(ClosedError):
            absent.version
        return loaded.closed

    assert in_child(work)
