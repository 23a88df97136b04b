"""Large values without a copy: they stay what they were, for as long as anybody uses them."""

import gc
import multiprocessing
import os
import signal
import threading

import pytest
from support import Child, Wanted, in_child, open_fds
from support.large import COUNT, extents_held, filled, is_filled, is_held

from mmapshare import RegionFullError, Share, SharedDict

numpy = Wanted("numpy")


def test_a_held_value_never_changes_and_is_ones_own(make):
    share = make(filled(0), max_size="64M")
    kept = share.get(copy=False)
    assert is_held(kept)
    for number in range(1, 9):
        share.set(filled(number))
        assert is_filled(kept, 0)
        assert is_filled(share.get(copy=False), number)
        assert is_filled(share.get(), number)
    kept[3] = 9
    assert is_filled(share.get(), 8) and kept[3] == 9 and kept[4] == 0


def test_a_snapshot_holds_and_tells_the_version(make):
    share = make({"a": filled(1), "b": [filled(2), "small"]})
    snapshot = share.snapshot(copy=False)
    assert snapshot.version == 1
    share.set(None)
    assert is_held(snapshot.value["a"]) and is_held(snapshot.value["b"][0])
    assert is_filled(snapshot.value["a"], 1) and is_filled(snapshot.value["b"][0], 2)
    assert share.snapshot(copy=False).value is None


def test_small_values_and_values_without_buffers_are_copied(make):
    share = make([1, 2])
    assert share.get(copy=False) == [1, 2]
    share.set(numpy.zeros(10_000))
    assert share.get(copy=False).sum() == 0
    share.set(b"x" * (5 << 20))
    assert share.get(copy=False) == b"x" * (5 << 20)
    assert extents_held(share) == []


def test_a_held_value_outlives_its_share(make):
    share = make(filled(1))
    kept = share.get(copy=False)
    share.close()
    del share
    gc.collect()
    assert is_filled(kept, 1)
    kept[:] = 2
    assert is_filled(kept, 2)


def test_a_held_value_takes_no_descriptor(make):
    share = make(filled(1))
    share.get(copy=False)
    before = open_fds()
    kept = [share.get(copy=False) for _ in range(5)]
    assert open_fds() == before
    assert all(is_filled(one, 1) for one in kept)


def test_it_is_held_until_the_last_part_of_it_is_gone(make):
    share = make({"a": filled(1), "b": filled(2)})
    part = share.get(copy=False)["b"][100:200]
    share.set(0)
    share.set(1)
    assert extents_held(share) != [] and (part == 2).all()
    assert share.info().held_bytes > 8 << 20
    del part
    assert extents_held(share) == [] and share.info().held_bytes == 0


def test_a_forked_child_holds_what_it_inherits(make):
    share = make(filled(1), max_size="64M")
    kept = [share.get(copy=False)]

    def use(child):
        child.hear()
        assert is_filled(kept[0], 1)
        kept[0][0] = 5
        return kept[0][0]

    child = Child(use)
    kept.clear()
    for number in range(2, 9):
        share.set(filled(number))
    assert len(extents_held(share)) == 1
    child.say()
    assert child.result() == 5
    assert extents_held(share) == [] and is_filled(share.get(), 8)


def test_what_a_child_writes_is_not_its_parents(make):
    share = make(filled(1))
    kept = share.get(copy=False)
    in_child(kept.__setitem__, slice(None), 2)
    assert is_filled(kept, 1)


def test_a_killed_holder_leaves_nothing(make):
    share = make(filled(1), max_size="64M")

    def hold(child):
        kept = [share.get(copy=False) for _ in range(5)]
        kept[1][:] = 7
        child.say()
        signal.pause()

    child = Child(hold)
    child.hear()
    assert extents_held(share) != []
    child.kill()
    assert extents_held(share) == []
    for number in range(4):
        share.set(filled(number))
    assert share.info().resident_bytes < 5 * COUNT * 8


def test_memory_comes_back_after_the_last_hold(make):
    share, kept = make(filled(0), max_size="64M"), []
    for number in range(1, 9):
        share.set(filled(number))
        kept.append(share.get(copy=False))
    assert share.info().resident_bytes > 8 * COUNT * 8
    assert all(is_filled(one, number) for number, one in enumerate(kept, 1))
    kept.clear()
    share.set(filled(0))
    share.set(filled(1))
    assert share.info().resident_bytes <= 18 << 20


def test_without_room_beside_what_is_held_the_old_value_stands(make):
    share, kept = make(filled(0), max_size=COUNT * 8 + 65536), []
    with pytest.raises(RegionFullError, match="copy=False") as caught:
        for number in range(1, 99):
            share.set(filled(number))
            kept.append(share.get(copy=False))
    assert len(kept) >= 4 and is_filled(share.get(), len(kept))
    assert caught.value.held_bytes == share.info().held_bytes > len(kept) * COUNT * 8
    assert caught.value.held_by == 1 and "1 process holds" in str(caught.value)
    with pytest.raises(RegionFullError), share.locked() as view:
        view.value = filled(-1)
    assert all(is_filled(one, number) for number, one in enumerate(kept, 1))
    kept.clear()
    share.set(filled(3))
    assert is_filled(share.get(), 3)


def test_the_error_counts_the_processes_that_hold(make):
    share = make(filled(0), max_size=COUNT * 8 + 65536)

    def hold(child):
        kept = share.get(copy=False)
        child.say()
        child.hear()
        return is_filled(kept, 0)

    children = [Child(hold) for _ in range(2)]
    for child in children:
        child.hear()
    kept = []
    with pytest.raises(RegionFullError, match="3 processes hold"):
        while True:
            kept.append(share.get(copy=False))
            share.set(filled(1))
    for child in children:
        child.say()
        assert child.result()


def test_small_values_beside_held_large_ones(make):
    share = make(filled(4), max_size="64M")
    kept = share.get(copy=False)
    for number in range(500):
        share.set(number)
        assert share.get() == number
    share.set(filled(5))
    other = share.get(copy=False)
    for number in range(500):
        share.set([number] * 99)
        assert share.get() == [number] * 99
    assert is_filled(kept, 4) and is_filled(other, 5)
    del kept, other
    for number in range(500):
        share.set(number)
    assert share.info().resident_bytes < 17 << 20 and share.get() == 499


def test_readers_in_threads_see_one_version_each(make):
    share = make(filled(0), max_size="64M")
    stop, torn = threading.Event(), []

    def read():
        while not stop.is_set():
            value = share.get(copy=False)
            number = value[0]
            if not is_filled(value, number) or not is_filled(value, number):
                torn.append(number)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(60):
        share.set(filled(number))
    stop.set()
    for thread in threads:
        thread.join()
    assert torn == []


def _spawned(share, queue):
    value = share.get(copy=False)
    queue.put((float(value[0]), is_held(value)))


def test_a_spawned_process_holds_too(make):
    share = make(filled(6))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_spawned, args=(share, queue))
    process.start()
    assert queue.get(timeout=30) == (6.0, True)
    process.join()


# --- Dicts -------------------------------------------------------------------------------------


def test_a_dicts_large_value_is_held_and_small_ones_go_on(make_dict):
    shared = make_dict({"a": filled(0), "n": 0}, max_size="64M")
    kept = []
    for number in range(1, 5):
        kept.append(shared.get("a", copy=False))
        assert is_held(kept[-1])
        shared["a"] = filled(number)
        shared["n"] = number
        assert shared["n"] == shared.get("n", copy=False) == number
    for number in range(2000):
        shared["n"] = number
    assert all(is_filled(one, number) for number, one in enumerate(kept))
    assert is_filled(shared["a"], 4) and shared["n"] == 1999
    assert in_child(lambda: (is_filled(shared["a"], 4), shared["n"])) == (True, 1999)
    assert shared.get("b", copy=False) is shared.get("b") is None
    assert shared.get("b", 7, copy=False) == 7
    kept.clear()
    shared["a"] = 0
    for number in range(5000):
        shared["n"] = number * 10**30
    assert extents_held(shared) == [] and shared.info().resident_bytes < 2 << 20


def test_a_dicts_snapshot_is_held(make_dict):
    shared = make_dict({"a": filled(0), "n": 0}, max_size="64M")
    snapshot = shared.snapshot(copy=False)
    for number in range(1, 5):
        shared.update(a=filled(number), n=number)
    first = snapshot["a"]
    assert is_held(first) and is_filled(first, 0) and snapshot["n"] == 0
    first[:] = 9
    assert is_filled(snapshot["a"], 0), "values of a snapshot are each one of its own"
    shared.close()
    assert is_filled(snapshot["a"], 0), "a copy, once there is no region to map from"
    del snapshot
    assert is_filled(first, 9)


def test_a_dict_without_large_values_gives_an_ordinary_snapshot(make_dict):
    shared = make_dict(a=1)
    assert dict(shared.snapshot(copy=False)) == {"a": 1}
    assert extents_held(shared) == []


def test_a_dict_without_room_beside_what_is_held_stays_as_it_is(make_dict):
    shared, kept = make_dict({"a": filled(0)}, max_size=COUNT * 8 + 65536), []
    with pytest.raises(RegionFullError, match="copy=False"):
        for number in range(1, 99):
            kept.append(shared.get("a", copy=False))
            shared["a"] = filled(number)
    assert is_filled(shared["a"], len(kept) - 1)
    assert all(is_filled(one, number) for number, one in enumerate(kept))
    kept.clear()
    shared["a"] = filled(99)
    assert is_filled(shared["a"], 99)


# --- Names and files -----------------------------------------------------------------------------


def test_named_shares_are_held_and_durable_files_are_copied(tmp_path):
    name = f"test-hold-{os.getpid()}"
    for cls, value in ((Share, filled(1)), (SharedDict, {"a": filled(1)})):
        for where, durable, held in (
            (name, False, True),
            (tmp_path / f"{cls.__name__}-plain", False, cls is Share),
            (tmp_path / f"{cls.__name__}-durable", True, False),
        ):
            share = cls.open(where, value, max_size="64M", durable=durable)
            got = share.get(copy=False) if cls is Share else share.get("a", copy=False)
            assert is_filled(got, 1)
            assert (extents_held(share) != []) == held, where
            for number in range(4):
                if cls is Share:
                    share.set(filled(number))
                else:
                    share["a"] = filled(number)
            assert is_filled(got, 1)
            got[:] = 9
            share.unlink()
            share.close()
            del got
