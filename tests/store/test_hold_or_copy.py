"""Where nothing can be held there is a copy; and what a writer finds of those who hold."""

import errno
import fcntl
import mmap
import os
import pickle
import resource

import pytest
from support import Wanted, as_somebody_else, in_child, inside, no_more_descriptors, trap
from support.large import extents_held, filled, is_filled, is_held

from mmapshare import (
    CorruptRegionError,
    EmptyShareError,
    RegionFullError,
    Share,
    SharedDict,
    UnloadableError,
)

numpy = Wanted("numpy")


def _both():
    return Share(filled(4), max_size="64M"), SharedDict({"a": filled(4)}, max_size="64M")


def _reads(share, shared):
    return share.get(copy=False), shared.get("a", copy=False), shared.snapshot(copy=False)["a"]


def _are_copies(share, shared):
    """Whether both give right values, and hold nothing; then whether they can be changed."""
    values = _reads(share, shared)
    held = extents_held(share) + extents_held(shared)
    right = all(is_filled(value, 4) and value.flags.writeable for value in values)
    return right and held == []


def test_where_there_are_holds_they_are_taken():
    share, shared = _both()
    assert not _are_copies(share, shared)


def test_without_such_locks_it_is_a_copy(monkeypatch):
    share, shared = _both()
    monkeypatch.setattr(*inside.at("GETLK"), None)
    assert _are_copies(share, shared)
    share.set(filled(5))
    shared["a"] = filled(5)
    assert is_filled(share.get(), 5) and is_filled(shared["a"], 5)


def test_a_kernel_without_such_locks_gives_copies(monkeypatch):
    share, shared = _both()

    def refuse(fd, command, *more):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert all(is_filled(value, 4) for value in _reads(share, shared))
    assert share.info().held_bytes == 0
    for number in range(3):
        share.set(filled(number))
        shared["a"] = filled(number)
    assert is_filled(share.get(), 2) and is_filled(shared["a"], 2)


def test_a_writer_that_may_not_ask_for_holds_changes_nothing(monkeypatch):
    """Who cannot tell whether a place is held must not write there."""
    share, _ = _both()

    def refuse(fd, command, *more):
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with pytest.raises(PermissionError):
        share.set(filled(5))
    monkeypatch.undo()
    assert is_filled(share.get(), 4) and share.version == 1


def test_without_a_descriptor_to_spare_it_is_a_copy():
    share, shared = _both()
    with no_more_descriptors(0):
        assert _are_copies(share, shared)


def test_without_proc_it_is_a_copy(monkeypatch):
    share, shared = _both()
    monkeypatch.setattr(*inside.at("PROC"), "/nowhere")
    assert _are_copies(share, shared)


def test_without_the_right_to_the_file_it_is_a_copy():
    def ask(share, shared):
        with as_somebody_else():
            return _are_copies(share, shared)

    assert in_child(ask, *_both())


def test_where_others_have_closed_our_descriptors_it_is_a_copy(ordered):
    """Where stores are not ordered one cannot read what needs the lock."""

    def ask(share, shared):
        os.closerange(3, 10)
        os.closerange(500, 2000)
        return all(is_filled(value, 4) for value in _reads(share, shared))

    assert in_child(ask, *_both())


def test_without_address_space_there_is_no_memory_and_later_there_is():
    share = Share(numpy.zeros(64 << 17), max_size="80M")

    def ask():
        share.get(copy=False)
        before = resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm") as statm:
            has = int(statm.read().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (has + (4 << 20), before[1]))
        try:
            share.get(copy=False)
        except MemoryError:
            resource.setrlimit(resource.RLIMIT_AS, before)
            return is_held(share.get(copy=False))

    assert in_child(ask)


def test_a_mapping_that_is_refused_is_a_copy(monkeypatch):
    share, shared = _both()
    real = mmap.mmap

    def refuse(fd, *args, **more):
        if args[1:] or "offset" in more:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return real(fd, *args, **more)

    monkeypatch.setattr(mmap, "mmap", refuse)
    monkeypatch.setattr(*inside.at("HUGE_LEAST"), 1 << 40)
    assert _are_copies(share, shared)


def test_a_signal_handlers_error_is_no_missing_hold(monkeypatch):
    """A TimeoutError that a handler raises is an OSError too."""
    share = Share(filled(4))

    def handler(*args):
        raise TimeoutError

    monkeypatch.setattr(fcntl, "fcntl", handler)
    with pytest.raises(TimeoutError):
        share.get(copy=False)


def test_a_damaged_region_is_found_out_by_who_holds(monkeypatch):
    share = Share(filled(4))
    words = inside.words_of(inside.store_of(share))
    words[inside.OLDEST_READABLE] = 9
    with pytest.raises(CorruptRegionError, match="OLDEST_READABLE"):
        share.get(copy=False)
    words[inside.OLDEST_READABLE] = 0
    start = inside.load_slot(inside.store_of(share)).start
    inside.map_of(inside.store_of(share))[start] ^= 1
    with pytest.raises(CorruptRegionError, match="table"):
        share.get(copy=False)


def test_a_region_whose_writers_do_not_ask_for_holds_is_copied():
    share, shared = _both()
    for one in (share, shared):
        inside.words_of(inside.store_of(one))[inside.HOLDS] = 0
    assert _are_copies(share, shared)


def test_a_reader_that_is_overtaken_asks_again(ordered, monkeypatch):
    share = Share(filled(0), max_size="64M")
    real, left = inside.hold, iter((1, 2))

    def slow(*args):
        for number in left:
            share.set(filled(number))
            share.set(filled(number))
            break
        return real(*args)

    monkeypatch.setattr(*inside.at("hold"), slow)
    kept = share.get(copy=False)
    assert is_held(kept) and is_filled(kept, 2)
    assert inside.all_held and len(extents_held(share)) == 1


def test_the_machine_that_maps_no_room_for_holds_makes_a_smaller_region(monkeypatch):
    refused = []
    real = mmap.mmap

    def refuse(fd, size, *args, **more):
        if size > 200 << 20:
            refused.append(size)
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return real(fd, size, *args, **more)

    monkeypatch.setattr(mmap, "mmap", refuse)
    share = Share(filled(1), max_size="64M")
    assert len(refused) == 1 and share.info().max_size == 64 << 20
    kept = share.get(copy=False)
    share.set(filled(2))
    assert is_held(kept) and is_filled(kept, 1)
    with pytest.raises(RegionFullError, match="max_size"):
        Share(max_size="400M")


def test_what_is_given_back_is_not_held():
    share = Share(filled(1), max_size="64M")
    held = [share.get(copy=False)]
    for number in range(2, 5):
        share.set(filled(number))
        held.append(share.get(copy=False))
    held[:2] = []
    share.set("small")
    assert is_filled(held[0], 3) and is_filled(held[1], 4)
    assert share.get() == "small"


def test_an_empty_share_has_nothing_to_hold():
    with pytest.raises(EmptyShareError):
        Share(max_size="64M").get(copy=False)


def test_descriptors_that_go_while_they_are_used_are_none(monkeypatch):
    share = Share(filled(4))
    answers = iter((True, False))
    monkeypatch.setattr(inside.Descriptor, "stands", lambda self: next(answers, True))
    assert is_filled(share.get(copy=False), 4)
    assert next(answers, None) is None and extents_held(share) == []


@pytest.mark.parametrize("lack", ["no /proc", "no descriptor"])
def test_how_many_hold_is_told_only_where_it_can_be_seen(monkeypatch, lack):
    share, kept = Share(filled(0), max_size=len(filled(0)) * 8 + 65536), []
    with pytest.raises(RegionFullError, match="processes hold") as caught:
        while True:
            kept.append(share.get(copy=False))
            if lack == "no /proc":
                monkeypatch.setattr(*inside.at("PROC"), "/nowhere")
            else:
                monkeypatch.setattr(os, "listdir", _no_descriptor)
            try:
                share.set(filled(1))
            finally:
                monkeypatch.undo()
    assert caught.value.held_by == 0 and "some processes hold" in str(caught.value)


def test_processes_that_have_ended_meanwhile_hold_nothing(monkeypatch):
    share, kept = Share(filled(0), max_size=len(filled(0)) * 8 + 65536), []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [*real(path), "4194304999"])
    with pytest.raises(RegionFullError, match="1 process holds"):
        while True:
            kept.append(share.get(copy=False))
            share.set(filled(1))


def _no_descriptor(path):
    raise OSError(errno.EMFILE, "Too many open files")


def test_what_is_free_ends_at_what_is_held_and_that_is_not_given_back():
    share = Share(filled(1))
    kept = share.get(copy=False)
    areas, words = inside.areas_of(share), inside.words_of(inside.store_of(share))
    ((start, end),) = extents_held(share)
    assert areas.free_until(end, end + 100) == end + 100
    assert areas.free_until(start - 100, end + 100) == start
    assert areas.free_until(start + 1, end) == start + 1
    for _ in range(2):  # The second time there is nothing left.
        areas.trim_past_holds(0, 16)
        assert words[inside.ALLOCATED[0]] == end
    words[inside.OLDEST_READABLE] = 0
    assert is_filled(kept, 1) and is_filled(share.get(), 1)


class Refusing:
    """What pickles, with a buffer, and does not load."""

    def __reduce_ex__(self, protocol):
        return _refuse, (pickle.PickleBuffer(bytearray(5 << 20)),)


def _refuse(buffer):
    raise ValueError("not here")


def test_a_large_value_that_does_not_load_says_so():
    share, shared = Share(Refusing()), SharedDict({"a": Refusing()})
    with pytest.raises(UnloadableError, match="not here"):
        share.get(copy=False)
    with pytest.raises(UnloadableError, match="not here") as caught:
        shared.get("a", copy=False)
    assert caught.value.key == "a"
    with pytest.raises(UnloadableError, match="not here") as caught, shared.locked() as view:
        view["a"]
    assert caught.value.key == "a" and shared.version == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # What is closed by its end alone.
def test_an_interrupted_hold_leaves_nothing():
    share = Share(filled(1))

    def interrupt():
        raise KeyboardInterrupt

    step, finished = 0, False
    while not finished:
        step += 7
        try:
            with trap(step, interrupt):
                share.get(copy=False)
            finished = True
        except KeyboardInterrupt as err:
            err.__traceback__ = None
        assert extents_held(share) == [], step
    assert step > 300
