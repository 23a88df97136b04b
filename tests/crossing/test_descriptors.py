"""What others do to our descriptors, and what we must not do to theirs."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import pickle
import sys
import threading

import pytest
from support import Child, in_child, inside
from support.descriptors import close_all

from mmapshare import ClosedError, Share, SharedDict, locked

DESCRIPTORS = 1 if sys.version_info >= (3, 13) else 2
"""What one share takes: its own description, and mmap's duplicate where mmap keeps one."""


def _numbers(share):
    """The descriptors of a share in this process, that of its lock last."""
    segment = inside.segment_of(share)
    all_of_them = (inside.hidden_of(segment), inside.users_of(segment), segment.process_lock)
    return [one.fd for one in all_of_them if one is not None]


class Strangers:
    """Files of somebody else at given numbers, empty and locked by flock."""

    def __init__(self, folder, numbers):
        self.paths = {number: folder / f"log{number}" for number in numbers}
        for number, path in self.paths.items():
            opened = os.open(path, os.O_RDWR | os.O_CREAT)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            fcntl.flock(number, fcntl.LOCK_EX)

    def are_untouched(self):
        for number, path in self.paths.items():
            assert os.path.samestat(os.fstat(number), path.stat()), "closed, or replaced"
            assert os.lseek(number, 0, os.SEEK_CUR) == path.stat().st_size == 0
            assert path.stat().st_blocks == 0
            other = os.open(path, os.O_RDWR)
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(other)


def _block(share):
    with share.locked() as view:
        view["n"] += 1


def _grow(share):
    with share.locked() as view:
        view["more"] = bytes(3_000_000)


def _block_of_two(share):
    with locked(share, Share(0, kind="memfd")) as (view, _):
        view["n"] += 1


async def _async_block(share):
    async with share.locked() as view:
        view["n"] += 1


def _add_one(value):
    value["n"] += 1


USES = {
    "block": _block,
    "block of two": _block_of_two,
    "async block": lambda share: asyncio.run(_async_block(share)),
    "block with a timeout": lambda share: share.locked(timeout=0).__enter__(),
    "lock": lambda share: share.lock(),
    "set": lambda share: share.set({"n": 5}),
    "growth": lambda share: share.set({"n": bytes(3_000_000)}),
    "update": lambda share: share.update(_add_one),
    "optimistic": lambda share: share.update(_add_one, optimistic=True),
    "info": lambda share: share.info(),
    "pickle": pickle.dumps,
}


def _refuses_everything(share, uses=USES):
    """Each use says what happened, takes nothing, and reading goes on."""
    for use in uses.values():
        with pytest.raises(ClosedError, match="closed this share's file descriptors"):
            use(share)
        assert inside.token_of(share) is None
        assert inside.lock_of(share).holder() is None
    assert share.get() == {"n": 0}
    assert share.wait(since=0, timeout=0)


@pytest.mark.parametrize("replaced", [False, True], ids=["closed", "replaced"])
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_a_daemon_that_closes_all_is_told_and_its_own_files_are_left_alone(
    tmp_path, replaced, used
):
    """Its log got our number: we locked it and made it 1.1 GB long, and exclusion was gone."""

    def daemon(child):
        share = Share({"n": 0})
        if used:
            share.set({"n": 0})
        ours = _numbers(share)
        assert len(ours) == DESCRIPTORS
        close_all(child)
        strangers = Strangers(tmp_path, ours if replaced else ())
        inside.looked_ns_of.set(inside.lock_of(share), 0)  # As if some time had gone by.
        _refuses_everything(share)
        in_child(_refuses_everything, share)
        strangers.are_untouched()
        share.close()
        strangers.are_untouched()
        del share
        gc.collect()
        strangers.are_untouched()

    Child(daemon).result()


@pytest.mark.parametrize("which", range(DESCRIPTORS))
def test_one_descriptor_that_was_replaced_is_exact_or_told(tmp_path, which):
    share = Share({"n": 0})

    def add():
        for _ in range(500):
            _block(share)
        _grow(share)

    def replaces():
        strangers = Strangers(tmp_path, [_numbers(share)[which]])
        inside.looked_ns_of.set(inside.lock_of(share), 0)
        told = 0
        for _ in range(500):
            try:
                _block(share)
            except ClosedError:
                told += 1
        if not told:
            _grow(share)
        strangers.are_untouched()
        share.close()
        gc.collect()
        strangers.are_untouched()
        return told

    other = Child(lambda child: add())
    told = in_child(replaces)
    other.result()
    assert share.get()["n"] == 1000 - told
    assert told == (500 if which == DESCRIPTORS - 1 else 0)


def test_a_number_that_came_to_another_share_is_not_taken_for_ones_own():
    """Both are memfds, and both of ours: only the mark of the description tells."""

    def work():
        share = Share({"n": 0})
        (*_, number) = _numbers(share)
        other = Share([])
        os.dup2(inside.segment_of(other).fd, number)
        with other.locked() as view:
            _refuses_everything(share)
            view.append(1)
            with pytest.raises(BlockingIOError):
                again = os.open(f"/proc/self/fd/{number}", os.O_RDWR)
                fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert other.get() == [1]

    in_child(work)


def test_new_descriptors_do_not_get_the_number_of_one_that_was_closed_over():
    def work():
        numbers = set()
        for _ in range(100):
            share = Share({"n": 0})
            number = inside.segment_of(share).fd
            numbers.add(number)
            os.close(number)
            _refuses_everything(share, {"set": USES["set"]})
        return len(numbers)

    assert in_child(work) == 100


@pytest.mark.parametrize("use", ["dict item", "dict block", "transact"])
def test_a_dict_is_told_too(tmp_path, use):
    def work(child):
        shared = SharedDict(a=1)
        ours = _numbers(shared)
        close_all(child)
        strangers = Strangers(tmp_path, ours)
        uses = {
            "dict item": lambda: shared.__setitem__("a", bytes(3_000_000)),
            "dict block": lambda: shared.locked().__enter__(),
            "transact": lambda: shared.transact(lambda view: view.update(a=2)),
        }
        with pytest.raises(ClosedError, match="file descriptors"):
            uses[use]()
        assert inside.token_of(shared) is None
        assert shared["a"] == 1
        shared.close()
        strangers.are_untouched()

    Child(work).result()


def test_what_was_closed_inside_of_a_block_and_changed_by_another_is_not_published():
    """The lock goes with the descriptor: another's commit was overwritten by an older value."""
    share = Share({"n": 0})

    def closes(child):
        with pytest.raises(ClosedError), share.locked() as view:
            view["n"] += 1
            os.close(inside.segment_of(share).fd)
            child.say("closed")
            child.hear()
        with pytest.raises(ClosedError), share.locked():
            raise AssertionError("never reached")
        assert inside.token_of(share) is None

    child = Child(closes)
    child.hear()
    share.set({"n": 10})
    child.say(None)
    child.result()
    assert share.get() == {"n": 10}


@pytest.mark.parametrize("leave", ["block", "failing block", "together", "unlock", "rollback"])
def test_what_was_closed_inside_of_a_block_leaves_no_token(leave):
    share, other = Share({"n": 0}), Share(0)

    def closes():
        fd = inside.segment_of(share).fd
        with pytest.raises((ClosedError, KeyError)):
            if leave == "together":
                with locked(share, other) as (view, view_of_other):
                    view["n"] = view_of_other.value = 1
                    os.close(fd)
            elif leave == "unlock":
                share.lock()
                os.close(fd)
                share.unlock()
            else:
                with share.locked() as view:
                    view["n"] = 1
                    os.close(fd)
                    if leave == "failing block":
                        raise KeyError
                    if leave == "rollback":
                        view.rollback()
                raise KeyError
        assert inside.token_of(share) is None
        assert inside.token_of(other) is None
        assert inside.lock_of(share).holder() is None

    in_child(closes)
    share.set({"n": 5})
    other.set(5)


def test_who_waits_while_the_descriptor_is_closed_gets_no_lock():
    """A blocked flock goes on with the description, which is gone when it returns."""
    share = Share({"n": 0})

    def holds(child):
        with share.locked():
            child.say("held")
            child.hear()

    def waits(child):
        lock = inside.lock_of(share)
        told = []

        def block():
            try:
                _block(share)
            except ClosedError as err:
                told.append(err)

        thread = threading.Thread(target=block)
        thread.start()
        while not inside.lock_words_of(lock)[8]:  # Until it is about to block.
            pass
        os.close(inside.segment_of(share).fd)
        child.say("closed")
        thread.join()
        assert len(told) == 1
        assert lock.token is None

    holder = Child(holds)
    holder.hear()
    waiter = Child(waits)
    waiter.hear()
    holder.say(None)
    holder.result()
    waiter.result()
    assert share.get() == {"n": 0}


def test_a_holder_that_still_stands_there_is_a_reason_to_look():
    """Who finds another's name under a lock of its own may have locked a stranger's file."""
    share = Share({"n": 0})

    def work():
        inside.looked_ns_of.set(inside.lock_of(share), 2**62)  # As if it had looked this moment.
        with open(os.devnull) as stranger:
            os.dup2(stranger.fileno(), inside.segment_of(share).fd)
        with pytest.raises(ClosedError):
            _block(share)

    with share.locked():
        in_child(work)


def test_files_of_the_portable_kind_are_left_alone(tmp_path):
    def work(child):
        share = Share({"n": 0}, kind="file")
        folder = inside.segment_of(share).folder
        ours = _numbers(share)
        assert len(ours) == DESCRIPTORS + 1
        close_all(child)
        strangers = Strangers(tmp_path, ours)
        _refuses_everything(share, {k: v for k, v in USES.items() if k != "pickle"})
        in_child(_refuses_everything, share, {"set": USES["set"]})
        share.close()
        strangers.are_untouched()
        inside.remove_folder(folder)  # Whether others use it cannot be asked any more.

    Child(work).result()


def test_memory_whose_descriptor_was_replaced_stays_mapped_at_the_end(tmp_path):
    """What is open when the interpreter ends is unmapped without a word, and closed with it."""

    def work():
        share = Share({"n": 0})
        strangers = Strangers(tmp_path, _numbers(share))
        inside.spare_strangers()
        mapping = inside.segment_of(share).map
        inside.finalizer_of(inside.segment_of(share)).detach()
        before = sys.getrefcount(mapping)
        share.close()
        del share
        gc.collect()
        assert sys.getrefcount(mapping) < before
        del mapping
        strangers.are_untouched()

    in_child(work)
