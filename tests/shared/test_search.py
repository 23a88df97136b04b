"""Whoever made or opened a share keeps it: those who have it are found once its maker is gone."""

import multiprocessing
import os
import pickle

import attrs
import pytest
from support import Child, in_child, inside, open_fds, workers

from mmapshare import HandleError, Share, SharedDict


def _made_by_one_that_has_ended(kind="memfd"):
    """A share that this process has open and whose maker is gone; and the maker's handle."""

    def make(child):
        share = Share({"n": 1}, kind=kind)
        child.say(pickle.dumps(share))
        child.hear()

    maker = Child(make)
    raw = maker.hear()
    share = pickle.loads(raw)
    maker.say()
    maker.result()
    return share, raw


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_what_a_worker_stored_and_the_parent_opened_is_found_by_a_later_worker(method, kind):
    """The worker that had made it had ended: a later one got a HandleError, though the parent
    still had it."""
    context = multiprocessing.get_context(method)
    outer = SharedDict(kind=kind)
    ready, leave = context.Event(), context.Event()
    maker = context.Process(target=workers.store_and_stay, args=(outer, kind, ready, leave))
    maker.start()
    ready.wait()
    inner = outer["inner"]
    leave.set()
    maker.join()
    assert outer["inner"] is inner
    with context.Pool(1) as pool:
        assert pool.apply(workers.look_inside, (outer, 1)) == 1
        pool.close()
        pool.join()
    inner.close()
    outer.close()


def test_a_sibling_has_it_though_parent_and_maker_are_gone():
    """A grandchild opens what its uncle made, after the parent of both was killed."""

    def parent(child):
        outer = SharedDict()

        def make(maker):
            outer["inner"] = Share(3)
            maker.say()
            maker.hear()

        def keep(keeper):
            kept = outer["inner"]
            keeper.say((pickle.dumps(outer), pickle.dumps(kept)))
            os.read(hold, 1)
            os._exit(0)

        hold, let_go = os.pipe()
        maker = Child(make)
        maker.hear()
        keeper = Child(keep)
        raws = keeper.hear()
        maker.say()
        maker.result()
        child.say((*raws, keeper.pid))
        os.close(hold)
        child.hear()

    gone = Child(parent)
    outer_raw, inner_raw, keeper = gone.hear()
    pidfd = os.pidfd_open(keeper)
    outer = pickle.loads(outer_raw)
    inner = outer["inner"]
    assert inner.get() == 3
    assert pickle.loads(inner_raw) is inner
    inner.close()
    assert outer["inner"].get() == 3  # Found in the keeper alone.
    gone.kill()
    assert outer["inner"].get() == 3
    os.kill(keeper, 9)
    os.close(pidfd)
    outer.close()


def test_shares_within_shares_within_shares_are_found_one_after_the_other():
    def make(child):
        innermost = Share("here")
        middle = SharedDict(innermost=innermost)
        outer = Share({"middle": middle})
        child.say(pickle.dumps(outer))
        child.hear()

    maker = Child(make)
    raw = maker.hear()
    outer = pickle.loads(raw)
    middle = outer.get()["middle"]
    innermost = middle["innermost"]
    maker.say()
    maker.result()

    def look():
        inside.open_here.clear()
        return pickle.loads(raw).get()["middle"]["innermost"].get()

    assert in_child(look) == "here"
    for share in (innermost, middle, outer):
        share.close()


def test_a_look_at_a_value_whose_shares_maker_is_gone_publishes_nothing():
    """Each process named itself in the handle that it stored again: every look was a commit."""
    inner, _ = _made_by_one_that_has_ended()
    outer = Share({"inner": inner, "n": 0})
    shared = SharedDict(inner=inner)

    def look():
        inside.open_here.pop(inside.region_id_of(inner))
        for share in (outer, shared):
            with share.locked() as view:
                assert view["inner"].get() == {"n": 1}

    look_here = inside.open_here.copy()
    versions = outer.version, shared.version
    in_child(look)
    inside.open_here.update(look_here)
    for share in (outer, shared):
        with share.locked() as view:
            assert view["inner"] is inner
    in_child(look)
    assert (outer.version, shared.version) == versions
    for share in (inner, outer, shared):
        share.close()


def test_who_hands_a_share_on_is_named_where_its_maker_is_gone(monkeypatch):
    """So that who gets it need not look through all processes."""
    share, raw = _made_by_one_that_has_ended()
    monkeypatch.setattr(*inside.at("holders_in_handle"), lambda *which: [])

    def load(raw):
        inside.open_here.clear()
        return pickle.loads(raw).get()

    assert in_child(load, pickle.dumps(share)) == {"n": 1}
    with pytest.raises(HandleError, match="gone"):
        in_child(load, raw)
    share.close()


def test_what_is_no_region_is_not_opened_in_its_place(monkeypatch):
    """Opening what has the number now may do harm: a terminal, a tape, a FIFO."""
    share = Share(1)
    read, write = os.pipe()
    own = inside.own_place(inside.segment_of(share).fd)
    place = attrs.evolve(own, fd=read)
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda *args: opened.append(args) or real(*args))
    with pytest.raises(FileNotFoundError, match="another file"):
        place.open()
    assert not opened
    monkeypatch.setattr(*inside.at("place_lives"), lambda place: True)  # Then it was exchanged.
    before = open_fds()
    with pytest.raises(FileNotFoundError, match="another file"):
        place.open()
    assert opened
    assert open_fds() == before
    os.close(read)
    os.close(write)


def test_descriptors_that_are_closed_during_the_search_are_passed_over(monkeypatch):
    share = Share(1)
    found = os.fstat(inside.segment_of(share).fd)
    which = (found.st_dev, found.st_ino)
    own = [fd for pid, fd in inside.holders(*which) if pid == os.getpid()]
    assert inside.segment_of(share).fd in own
    real = os.readlink

    def readlink(path):
        if path.endswith(f"/{own[0]}"):
            raise FileNotFoundError
        return real(path)

    monkeypatch.setattr(os, "readlink", readlink)
    assert [fd for pid, fd in inside.holders(*which) if pid == os.getpid()] == own[1:]


def test_a_found_descriptor_that_cannot_be_opened_is_not_the_last_word(monkeypatch):
    share, raw = _made_by_one_that_has_ended()
    real = inside.holders_in_handle
    monkeypatch.setattr(
        *inside.at("holders_in_handle"), lambda *which: [(2**22 + 1, 0), *real(*which)]
    )

    def load():
        inside.open_here.clear()
        return pickle.loads(raw).get()

    assert in_child(load) == {"n": 1}
    share.close()
