"""What keeps threads apart where no GIL does, and what CPython itself breaks there."""

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import in_child
from without_gil import FORKS_BESIDE_THREADS_HANG

from mmapshare import SharedDict, _handle, _weak
from mmapshare._index import Index

ALONE = Path(__file__).parent / "planted_fork_beside_threads.py"


def test_what_is_skipped_for_cpythons_sake_is_cpythons_fault():
    """The script knows nothing of mmapshare; where no child hangs nothing may be skipped."""
    seconds = 60 if FORKS_BESIDE_THREADS_HANG else 1
    command = [sys.executable, "-W", "ignore", ALONE, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == FORKS_BESIDE_THREADS_HANG, done.stdout + done.stderr
    assert "forked children hung" in done.stdout


def test_a_weak_set_that_changes_is_looked_through_again():
    looks = iter([RuntimeError("Set changed size during iteration"), None])

    class Changing:
        def __iter__(self):
            err = next(looks)
            if err is not None:
                raise err
            return iter([1])

    assert _weak.members(Changing()) == [1]


def test_threads_that_load_one_handle_get_one_share_however_they_meet(make, monkeypatch):
    share = make(1)
    raw = pickle.dumps(share)
    real, both = _handle.attrs.evolve, threading.Barrier(2)

    def evolve(*args, **kwargs):
        both.wait()
        return real(*args, **kwargs)

    def work():
        _handle._open_here.clear()
        monkeypatch.setattr(_handle.attrs, "evolve", evolve)
        got = []
        threads = [threading.Thread(target=lambda: got.append(pickle.loads(raw))) for _ in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len({id(one) for one in got}), got[0].get()

    assert in_child(work) == (1, 1)


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
    places, taken = shared._index.current().places, {}
    real = Index.read

    def read(index, look):
        places.update(taken)
        found = real(index, look)
        taken.update([places.popitem()])  # As `Places.take_out` does, under the mutex.
        return found

    monkeypatch.setattr(Index, "read", read)
    assert shared.transact(look) == found
