"""What a handle keeps alive, whom it is given back by, and what it says where it leads nowhere."""

import ctypes
import errno
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from types import SimpleNamespace

import attrs
import pytest
from support import (
    Child,
    as_somebody_else,
    in_child,
    inside,
    no_more_descriptors,
    open_fds,
    workers,
)

from mmapshare import ClosedError, HandleError, Share

NOWHERE = inside.Place(2**22 + 1, 0, 0, 0, None, 0)


def _run(context, target, *args):
    process = context.Process(target=target, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_stored_share_outlives_the_worker_that_stored_it_again(make):
    """Each worker stores the handle anew; newcomers must not be sent to a worker that has ended."""
    inner = make(5)
    outer = make({"inner": inner, "n": 0})
    before = inside.region_of(outer).read()[1]

    def work():
        with outer.locked() as view:
            view["n"] += 0
        assert inside.region_of(outer).read()[1] == before
        with outer.locked() as view:
            view["n"] += 1

    in_child(work)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(workers.read_inner, (outer,)) == 5
        pool.close()
        pool.join()


def test_a_handle_whose_process_is_gone_says_so(kind):
    def make_one(child):
        child.share = Share(1, kind=kind)
        child.say(pickle.dumps(child.share))
        child.hear()
        child.share.close()

    child = Child(make_one)
    raw = child.hear()
    with_it = pickle.loads(raw)
    assert with_it.get() == 1
    with_it.close()
    child.say()
    child.result()
    absent = pickle.loads(raw)
    with pytest.raises(HandleError, match="gone"):
        absent.get()


def test_a_handle_to_a_closed_share_says_so(make):
    share = make(1)
    raw = pickle.dumps(share)
    in_child(lambda: pickle.loads(raw).get())
    share.close()
    absent = pickle.loads(raw)
    with pytest.raises(HandleError, match="gone"):
        absent.get()


def test_a_number_that_now_leads_elsewhere_is_not_taken_for_the_region():
    share = Share(1)
    raw = pickle.dumps(share)
    fd = inside.segment_of(share).fd
    share.close()
    other = os.memfd_create("other")
    os.dup2(other, fd)
    try:
        absent = pickle.loads(raw)
        with pytest.raises(HandleError):
            absent.get()
    finally:
        os.close(other)
        if fd != other:
            os.close(fd)


def test_the_descriptor_that_multiprocessing_passes_serves_where_proc_does_not(monkeypatch):
    share = Share(0)
    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(*inside.at("place_lives"), lambda place: False)
    real = inside.own_place
    monkeypatch.setattr(*inside.at("own_place"), lambda fd: NOWHERE)
    _run(context, workers.add, share)
    assert share.get() == 1
    monkeypatch.setattr(*inside.at("own_place"), real)


def test_a_share_takes_two_descriptors_at_most_and_closing_gives_them_back():
    before = len(open_fds())
    share = Share(2)
    assert len(open_fds()) == before + (1 if sys.version_info >= (3, 13) else 2)
    share.close()
    assert len(open_fds()) == before


def test_shares_dropped_without_closing_leave_nothing(kind):
    before = len(open_fds())
    for _ in range(50):
        Share(1, kind=kind)
    assert len(open_fds()) == before


def test_the_portable_kinds_folder_outlives_its_maker_and_goes_with_the_last(tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def make_one(child):
        share = Share(1, kind="file")

        def live_on(grandchild):
            grandchild.say(pickle.dumps(share))
            grandchild.hear()
            share.update(int.__add__, 1)

        grandchild = Child(live_on)
        child.say(grandchild.hear())
        child.hear()
        share.close()
        child.say(os.listdir(tmp_path))
        grandchild.say()
        grandchild.result()

    child = Child(make_one)
    share = pickle.loads(child.hear())
    child.say()
    assert len(child.hear()) == 1
    child.result()
    assert share.get() == 2
    share.set(3)
    share.close()
    assert os.listdir(tmp_path) == []


def test_a_killed_maker_does_not_keep_the_others_from_working(kind):
    def make_one(child):
        child.share = Share(1, kind=kind)
        child.say(pickle.dumps(child.share))
        signal.pause()

    child = Child(make_one)
    share = pickle.loads(child.hear())
    child.kill()
    share.set(2)
    assert share.get() == 2
    assert in_child(share.get) == 2
    raw = pickle.dumps(share)
    assert in_child(lambda: pickle.loads(raw).get()) == 2
    share.close()


def test_a_share_that_only_a_stored_value_names_lives_on_as_long_as_that(make):
    """It was gone as soon as its maker had stored it, and with it the value could not be loaded."""
    outer = make({"inner": Share(1)})
    assert outer.get()["inner"].get() == 1
    assert in_child(lambda: outer.get()["inner"].set(2)) == 2
    with outer.locked() as view:
        view["inner"].set(3)
        view["more"] = Share("b")
    outer.update(lambda value: {"both": list(value.values())})
    first, second = outer.get()["both"]
    assert (first.get(), second.get()) == (3, "b")
    before = len(open_fds())
    del first, second, view
    outer.set(None)
    assert len(open_fds()) < before
    outer.lock()
    outer.set([Share(5)])
    outer.unlock()
    assert outer.get()[0].get() == 5


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="a handle to a memfd needs /proc")
def test_a_lack_of_descriptors_is_not_told_as_a_share_that_is_gone():
    """Whatever kept a handle from being opened, it was said that the share's process is gone."""
    share = Share(1)
    raw = pickle.dumps(share)

    def load():
        inside.open_here.clear()
        before = open_fds()
        with no_more_descriptors():
            absent = pickle.loads(raw)
            with pytest.raises(OSError) as caught:
                absent.get()
        assert caught.value.errno == errno.EMFILE
        caught = None
        assert open_fds() == before
        assert absent.get() == 1

    in_child(load)


def test_a_descriptor_passed_along_is_closed_where_it_cannot_be_opened():
    """It was left open where the way through it failed."""
    share = Share(1)
    fd = os.dup(inside.segment_of(share).fd)
    passed = SimpleNamespace(detach=lambda: fd)
    handle = inside.Handle(inside.region_id_of(share), NOWHERE, None, None, passed)

    def load():
        inside.open_here.clear()
        with no_more_descriptors():
            inside.open_shared(Share, handle, None, False, (), {})
        assert fd not in open_fds()

    in_child(load)
    os.close(fd)


def test_a_handle_that_the_user_may_not_follow_is_no_gone_process():
    """It was told that the process, which was there and had the share, was gone."""

    def keep(child):
        set_dumpable = 4
        ctypes.CDLL(None).prctl(set_dumpable, 0, 0, 0, 0)  # As after giving up privileges.
        share = Share(1)
        child.say(pickle.dumps(share))
        child.hear()

    keeper = Child(keep)
    handle = keeper.hear()

    def stranger():
        expected = f"may not look into process {keeper.pid}, which"
        with as_somebody_else():
            absent = pickle.loads(handle)
            with pytest.raises(HandleError, match=expected):
                absent.get()

    in_child(stranger)
    keeper.say()
    keeper.result()


def test_a_place_that_holds_another_region_is_not_taken_for_the_shares(make):
    """Device and inode agree, as a number that came round does: the region's id decides."""
    share = make(1)
    before = open_fds()
    handle = attrs.evolve(inside.handle_of(share), region_id=b"another region's")
    absent = inside.open_shared(Share, handle, None, False, (), {})
    with pytest.raises(HandleError, match="cannot be opened here"):
        absent.get()
    assert open_fds() == before
    assert in_child(share.get) == 1


def test_a_share_that_a_worker_closes_is_not_kept_for_the_parent():
    def work():
        first, second, third = Share(1), Share(2), Share(3)
        pickle.dumps((first, second))
        first.close()
        third.close()
        assert list(inside.handed_out) == [second]
        second.close()
        assert list(inside.handed_out) == []

    _run(multiprocessing.get_context("fork"), work)


def test_closing_a_share_that_another_thread_is_closing_is_harmless(make, monkeypatch):
    share = make(1)
    real = inside.lock_token.fget
    others = iter([share.close])

    def token(lock):
        for other in others:
            other()
        return real(lock)

    monkeypatch.setattr(*inside.at("lock_token"), property(token))
    share.close()
    assert share.closed
    with pytest.raises(ClosedError):
        share.get()


def test_threads_that_load_one_handle_get_one_share(make):
    """Two shares, and so two locks, for one region: a block nested through both hung."""
    share = make(1)
    raw = pickle.dumps(share)

    def work():
        inside.open_here.clear()
        start = threading.Barrier(8)
        got = []

        def load():
            start.wait()
            got.append(pickle.loads(raw))

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len({id(one) for one in got}), got[0].get()

    for _ in range(5):
        assert in_child(work) == (1, 1)
