"""Patched values of a dict among processes, beside other shares, and where a kernel lacks much."""

import fcntl
import multiprocessing
import os
import pickle
import random
import subprocess
import sys

import pytest
from support import Child, Wanted, in_child, inside, no_more_descriptors
from support.command import printed
from support.large import COUNT, extents_held, filled, is_filled, is_held

from mmapshare import RegionFullError, Share, SharedDict, UnpicklableError, locked

numpy = Wanted("numpy")


@pytest.fixture
def patched(monkeypatch):
    """The keys that were patched in this process, one after the other."""
    keys, patch = [], inside.state_patch

    def patches(state, key, *more):
        keys.append(key)
        return patch(state, key, *more)

    monkeypatch.setattr(*inside.at("state_patch"), patches)
    return keys


def _change(shared, index, number, key="a"):
    with shared.locked() as view:
        view[key][index] = number


def _place(shared, key="a"):
    return inside.store_of(shared).current().places[key]


def _forget(shared):
    store = inside.store_of(shared)
    store.state = inside.unread_state(store)


# --- Others --------------------------------------------------------------------------------------


def test_one_who_follows_and_one_who_comes_late_find_the_same(make_dict):
    shared = make_dict({"a": filled(0), "n": 0}, max_size="64M")

    def follow(child):
        while (index := child.hear()) is not None:
            _change(shared, index, -index)
            assert shared["n"] == index
            child.say(float(shared["a"].sum()))
        _forget(shared)
        return float(shared["a"].sum()), len(_place(shared).runs)

    child, total = Child(follow), 0.0
    for number in range(1, 15):
        with shared.locked() as view:
            view["n"] = index = number * 7000
            view["a"][number] = number
        total += number - index
        child.say(index)
        assert child.hear() == total == shared["a"].sum()
    child.say(None)
    assert child.result() == (total, len(_place(shared).runs))


def test_a_child_goes_on_from_what_its_parent_has_held(make_dict, patched):
    shared = make_dict({"a": filled(1)}, max_size="64M")
    _change(shared, 5, 7)
    with shared.locked() as view:
        kept = view["a"]
        kept[6] = 8

    def use():
        assert (kept[5], kept[6]) == (7, 8)
        kept[5] = 1
        _change(shared, 9, 9)
        return is_held(kept), float(shared["a"].sum())

    assert in_child(use) == (True, COUNT + 6 + 7 + 8)
    assert (kept[5], kept[9], shared["a"][9]) == (7, 1, 9)
    shared["a"] = kept
    assert list(shared["a"][5:10]) == [7, 8, 1, 1, 1] and len(patched) == 3


def _spawned(shared, queue):
    with shared.locked() as view:
        view["a"][3] = 4
        held = is_held(view["a"])
    queue.put((float(shared["a"].sum()), float(shared.get("a", copy=False).sum()), held))


def test_a_spawned_process_reads_and_patches_too(make_dict):
    shared = make_dict({"a": filled(0)}, max_size="64M")
    _change(shared, 5, 1)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_spawned, args=(shared, queue))
    process.start()
    assert queue.get(timeout=30) == (5, 5, True)
    process.join()
    assert shared["a"].sum() == 5


def test_it_is_seen_from_outside():
    shared = SharedDict.open("patched", {"a": [filled(0), "x"]}, max_size="64M")
    with shared.locked() as view:
        view["a"][0][0] = 77
        view["a"][1] = "yes"
    assert "yes" in printed("show", "patched")
    assert "77." in printed("get", "patched", "--key", "a", "--load")
    shared.unlink()
    shared.close()


def test_work_without_the_lock_meets_a_patch(make_dict):
    shared = make_dict({"a": filled(0), "n": 0}, max_size="64M")
    seen = []

    def work(view):
        seen.append(float(view["a"][5]))
        if len(seen) == 1:
            in_child(_change, shared, 5, 3)
        view["a"][6] = seen[-1]
        view["n"] += 1

    for _ in range(2):  # As it was stored whole, and patched.
        seen.clear()
        _change(shared, 5, 0)
        shared.transact(work)
        assert seen == [0, 3] and list(shared["a"][4:8]) == [0, 3, 3, 0]
    assert shared["n"] == 2


def test_a_new_snapshot_has_patched_values_whole(make_dict, monkeypatch, patched):
    shared = make_dict({"a": filled(0), "b": [filled(1), "old"], "n": 0}, max_size="64M")
    _change(shared, 5, 1)
    with shared.locked() as view:
        view["b"][0][7] = 2
        view["b"][1] = "a longer one"
    assert patched == ["a", "b"]
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), -(1 << 40))
    shared["n"] = 1
    assert type(_place(shared)) is tuple and type(_place(shared, "b")) is tuple
    for forget in False, True:
        if forget:
            _forget(shared)
        assert list(shared["a"][4:7]) == [0, 1, 0] and shared["a"].sum() == 1
        assert list(shared["b"][0][6:9]) == [1, 2, 1] and shared["b"][1] == "a longer one"


def test_a_new_snapshot_keeps_the_definitions_that_the_newest_stream_needs(
    make_dict, monkeypatch, patched
):
    class Old:
        pass

    class New:
        what = "new"

    shared = make_dict({"a": [filled(0), Old()], "n": 0}, max_size="64M")
    with shared.locked() as view:
        view["a"][1] = New()
    assert patched == ["a"]
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), -(1 << 40))
    shared["n"] = 1
    assert type(_place(shared)) is tuple
    assert len(inside.store_of(shared).current().definitions) == 1
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)['a'][1].what)"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(shared), stdout=-1)
    assert done.stdout == b"new\n"


# --- Several in one block -------------------------------------------------------------------------


def test_several_shares_in_one_block(make_dict, make, patched):
    a, b, c = make_dict({"a": filled(0)}, max_size="64M"), make_dict(n=0), make(filled(0))
    for number in range(1, 5):
        with locked(a, b, c) as (first, second, third):
            first["a"][number] = second["n"] = third.value[number] = number
    assert a["a"].sum() == c.get().sum() == 10 and b["n"] == 4 and patched == ["a"] * 4
    with pytest.raises(UnpicklableError), locked(a, b) as (first, second):
        first["a"][3] = 9
        second["n"] = (n for n in ())
    assert a["a"][3] == 3 and a.version == 5
    assert extents_held(a) == []


def test_where_room_is_made_first_the_draft_is_stored_whole(make_dict, monkeypatch, patched):
    """What a draft was taken of lies elsewhere by then."""
    shared, other = make_dict({"a": filled(0)}, max_size="64M"), Share(0)
    _change(shared, 5, 1)
    real, full = inside.log_has_room, [True]
    monkeypatch.setattr(
        *inside.at("log_has_room"), lambda *args: not (full and full.pop()) and real(*args)
    )
    with locked(shared, other) as (view, number):
        view["a"][6] = number.value = 2
    assert list(shared["a"][4:8]) == [0, 1, 2, 0] and other.get() == 2
    assert patched == ["a"] and type(_place(shared)) is tuple
    assert in_child(lambda: shared["a"].sum()) == 3


def test_no_room_for_a_whole_one_leaves_the_old_value(make_dict):
    shared, kept = make_dict({"a": filled(0)}, max_size=COUNT * 8 + 65536), []
    with pytest.raises(RegionFullError, match="copy=False") as caught:
        for number in range(1, 999):
            kept.append(shared.get("a", copy=False))
            _change(shared, slice(None), number)
    assert caught.value.held_bytes > 0 and is_filled(shared["a"], len(kept) - 1)
    assert all(is_filled(value, number) for number, value in enumerate(kept))
    with pytest.raises(RegionFullError), locked(shared) as (view,):
        view["a"] = filled(-1)
    kept.clear()
    _change(shared, slice(None), 99)
    assert is_filled(shared["a"], 99)


def test_a_patch_is_made_where_no_whole_value_has_room(make_dict, patched):
    """What is live is not more by it; what is dead goes when there is room again."""
    shared = make_dict({"a": filled(0)}, max_size=COUNT * 8 + 2000)
    for number in range(1, 20):
        _change(shared, number, number)
        with pytest.raises(RegionFullError, match="max_size"):
            shared["b"] = bytes(5000)
    assert len(patched) == 19 and shared["a"].sum() == sum(range(20))


# --- Chance --------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [1, 2])
def test_a_random_history_is_a_models(make_dict, turn, monkeypatch):
    """Two processes change it by turns, and forget at times; all of them see the model's."""
    seed = random.randrange(1 << 32) + turn
    print(f"seed {seed}")  # Shown where it fails.
    rng = random.Random(seed)
    monkeypatch.setattr(*inside.at("SPENT_PART"), rng.choice((1, 2, 8)))
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), rng.choice((0, 64 << 10)))
    model = {"a": filled(0), "b": [filled(1)[:-3], filled(2)[:-5]], "n": 0}
    shared, kept = make_dict(model, max_size="128M"), []

    def work(child):
        while (changes := child.hear()) is not None:
            _apply(shared, changes)
            child.say({key: _sums(value) for key, value in shared.copy().items()})

    child = Child(work)
    for step in range(1, 50):
        changes = [_drawn(rng, step) for _ in range(rng.randrange(1, 4))]
        if rng.random() < 0.1:
            kept.append(({key: _sums(value) for key, value in model.items()}, _held(shared, rng)))
        for change in changes:
            _make(model, *change)
        if rng.random() < 0.5:
            _apply(shared, changes)
        else:
            child.say(changes)
            assert child.hear() == {key: _sums(value) for key, value in model.items()}, step
        if rng.random() < 0.1:
            _forget(shared)
        assert list(shared) == list(model), step
        for key, value in model.items():
            for found in shared[key], shared.get(key, copy=False), shared.snapshot()[key]:
                assert _equal(found, value), (step, key)
        for wanted, found in kept:
            assert {key: _sums(found[key]) for key in found} == wanted, step
        if len(kept) > 2:
            del kept[rng.randrange(3)]
    child.say(None)
    child.result()


def _held(shared, rng):
    return shared.snapshot(copy=rng.random() < 0.5)


def _drawn(rng, step):
    what = rng.choices(["a", "b", "n", "replace", "order", "delete"], [9, 9, 4, 1, 1, 1])[0]
    begin = rng.choice((rng.randrange(COUNT), rng.randrange(9000), COUNT - 5))
    return what, step, begin, rng.choice((1, 3, 700, 2000)), rng.random() < 0.5


def _make(values, what, step, begin, size, first):
    """One change of a view, or of a model."""
    if what == "a":
        values["a"][begin : begin + size] = step
    elif what == "b":
        values["b"][0 if first else 1][begin : begin + size] = -step
    elif what == "n":
        values["n"] = "x" * step
    elif what == "replace":
        values["a"] = filled(step)
    elif what == "order":
        values["b"] = [*values["b"][::-1]]
    else:
        values["a"] = values.pop("a") if first else filled(-step)


def _apply(shared, changes):
    with shared.locked() as view:
        for change in changes:
            _make(view.value, *change)


def _sums(value):
    return [float(part.sum()) for part in value] if isinstance(value, list) else str(value)


def _equal(found, wanted):
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_equal, found, wanted))
    return bool((found == wanted).all()) if hasattr(wanted, "all") else found == wanted


# --- Without what a kernel may lack --------------------------------------------------------------


def _blocks(shared):
    for number in (1, 2, 3):
        _change(shared, 5, number)
        _change(shared, 100_000, -number)
    _change(shared, 5, 3)
    value = shared["a"]
    assert (value[5], value[100_000], value.sum()) == (3, -3, 0)
    assert (shared.get("a", copy=False) == value).all()
    return shared.version


def _made():
    return SharedDict({"a": filled(0)}, max_size="64M")


def test_without_pagemap_scan_the_words_of_the_pages_tell(monkeypatch, patched):
    monkeypatch.setattr(fcntl, "ioctl", lambda *args: os.read(-1, 1))  # An OSError.
    assert _blocks(_made()) == 7 and len(patched) == 6


def test_without_words_of_pages_all_is_compared(monkeypatch, patched):
    shared = _made()
    _change(shared, 6, 1)
    _change(shared, 6, 0)
    monkeypatch.setattr(fcntl, "ioctl", lambda *args: os.read(-1, 1))
    monkeypatch.setattr(os, "pread", lambda *args: b"")
    _change(shared, 6, 0)
    assert shared.version == 3
    assert _blocks(shared) == 9 and len(patched) == 2


def test_without_proc_drafts_are_copies(monkeypatch, patched):
    shared = _made()
    _change(shared, 6, 1)
    _change(shared, 6, 0)
    monkeypatch.setattr(*inside.at("PROC"), "/nowhere")
    assert _blocks(shared) == 9 and len(patched) == 2


def test_without_proc_in_the_middle_of_a_block_all_is_compared(monkeypatch, patched):
    shared = _made()
    with shared.locked() as view:
        assert is_held(view["a"])
        view["a"][5] = 1
        monkeypatch.setattr(*inside.at("PROC"), "/nowhere")
    _change(shared, 5, 1)
    assert shared.version == 2 and patched == []


def test_without_such_locks_drafts_are_copies(monkeypatch, patched):
    monkeypatch.setattr(*inside.at("GETLK"), None)
    assert _blocks(_made()) == 7 and patched == []


def test_without_descriptors_to_spare_it_is_as_it_was(patched):
    shared = _made()
    with no_more_descriptors(0):
        assert _blocks(shared) == 7 and patched == []


def test_dicts_in_files_are_stored_whole(tmp_path, patched):
    for durable in False, True:
        shared = SharedDict.open(
            tmp_path / f"{durable}", {"a": filled(0)}, max_size="64M", durable=durable
        )
        assert _blocks(shared) == 7 and patched == []
        shared.unlink()
        shared.close()
