"""Blocks on large values: the draft is held, and the commit writes the pages that were touched."""

import fcntl
import gc
import os
import random

import pytest
from support import Wanted, in_child, inside, no_more_descriptors
from support.large import COUNT, extents_held, filled, is_filled, is_held

from mmapshare import RegionFullError, Share, UnpicklableError, ViewClosedError, locked

numpy = Wanted("numpy")


class Way:
    """How often the pages that a block touched were what was written, and over what."""

    def __init__(self, monkeypatch):
        self.patched = self.over = 0
        patch, lagging = inside.patch_draft, inside.lagging

        def patches(store, frames):
            version = patch(store, frames)
            self.patched += version is not None
            return version

        def lags(store, slot):
            found = lagging(store, slot)
            self.over += found is not None
            return found

        monkeypatch.setattr(*inside.at("patch_draft"), patches)
        monkeypatch.setattr(*inside.at("lagging"), lags)


@pytest.fixture
def way(monkeypatch):
    return Way(monkeypatch)


def _change(share, index, number):
    with share.locked() as view:
        view.value[index] = number


def test_a_block_writes_what_it_touched_over_the_record_before(make, way):
    share = make(filled(0), max_size="64M")
    model = filled(0)
    for number in range(1, 9):
        index = number * 1000
        _change(share, index, number)
        model[index] = number
        assert (share.get() == model).all() and (share.get(copy=False) == model).all()
        assert (in_child(share.get) == model).all()
    assert (way.patched, way.over) == (8, 7)
    assert extents_held(share) == [] and share.version == 9


def test_a_block_that_changes_nothing_publishes_nothing(make):
    share = make(filled(1), max_size="64M")
    with share.locked() as view:
        view.value[7] = 1.0  # What it was.
    with share.locked() as view:
        assert view.value.sum() == COUNT
    with pytest.raises(ZeroDivisionError), share.locked() as view:
        view.value[7] = 5
        raise ZeroDivisionError
    assert share.version == 1 and is_filled(share.get(), 1)


def test_rollback_drops_the_draft_and_goes_on(make, way):
    share = make(filled(1), max_size="64M")
    with share.locked() as view:
        view.value[7] = 5
        view.rollback()
        view.value[8] = 6
    assert share.get()[7] == 1 and share.get()[8] == 6 and way.patched == 1
    with share.locked() as view:
        view.value[7] = 5
        view.rollback()
    assert share.version == 2


def test_what_is_kept_from_a_block_is_a_private_copy(make):
    share = make(filled(1), max_size="64M")
    with share.locked() as view:
        kept = view.value
        kept[0] = 2
    assert is_held(kept) and share.get()[0] == 2
    for number in range(6):
        _change(share, 1, number)
        share.set(filled(number))
    assert kept[0] == 2 and (kept[1:] == 1).all()
    kept[5] = 9
    assert is_filled(share.get(), 5)


def test_a_closed_view_keeps_nothing_of_a_large_value(make):
    share = make(filled(1), max_size="64M")
    with share.locked() as view:
        view.value[0] = 2
    with share.locked() as other:
        other.value.sum()
    with pytest.raises(ZeroDivisionError), share.locked() as third:
        third.value[0] = 1 / 0
    assert extents_held(share) == []
    for closed in (view, other, third):
        with pytest.raises(ViewClosedError):
            closed.value
        assert repr(closed) == "<View, closed>"


def test_parts_may_be_replaced_and_grow(make, way):
    share = make({"a": filled(0), "b": filled(1), "n": 0}, max_size="64M")
    with share.locked() as view:
        view["n"] = 5
        view["a"][3] = 4
    assert way.patched == 1
    with share.locked() as view:
        view["n"] = "long" * 1000  # The stream does not fit into its place.
    with share.locked() as view:
        view["b"] = filled(7)
    with share.locked() as view:
        view["b"] = view["a"]  # One buffer less.
    with share.locked() as view:
        view["a"] = view["a"][1:]
    value = share.get()
    assert value["n"] == "long" * 1000 and way.patched == 1
    assert len(value["a"]) == COUNT - 1 and value["a"][2] == 4 and len(value["b"]) == COUNT


def test_read_only_arrays_are_looked_at_as_a_whole(make, way):
    frozen = filled(1)
    frozen.flags.writeable = False
    share = make([frozen, 0], max_size="64M")
    with share.locked() as view:
        view.value[0].sum()
    assert share.version == 1
    with share.locked() as view:
        view.value[1] = 2
    assert share.get()[1] == 2 and is_filled(share.get()[0], 1) and way.patched == 0


def test_a_draft_that_is_changed_all_over_is_stored_whole_and_the_next_are_copies(make, way):
    share = make(filled(0), max_size="64M")
    kinds = []
    for number in range(1, 13):
        with share.locked() as view:
            kinds.append(is_held(view.value) and extents_held(share) != [])
            view.value[:] = number
        assert is_filled(share.get(), number)
    assert kinds == [True, *[False] * 8, True, False, False] and way.patched == 0


def test_many_scattered_pages_are_no_patch(make, way):
    """The notes of what was changed have so much room, and no more."""
    share = make(numpy.zeros(18 << 17, dtype="f8"), max_size="64M")
    with share.locked() as view:
        view.value[::1024] = 1  # Each second page.
    assert share.get().sum() == (18 << 17) / 1024
    assert way.patched == 0


def test_a_held_previous_version_is_not_written_over(make, way):
    share = make(filled(0), max_size="64M")
    kept = []
    for number in range(1, 7):
        kept.append(share.get(copy=False))
        _change(share, number, number)
    for number, value in enumerate(kept):
        assert value.sum() == sum(range(number + 1)), number
    assert way.patched == 6 and way.over == 0
    kept.clear()
    del value
    _change(share, 9, 9)
    _change(share, 9, 10)
    assert way.over >= 1 and share.get().sum() == 21 + 10


def test_no_room_beside_what_is_held_leaves_the_old_value(make):
    share, kept = make(filled(0), max_size=COUNT * 8 + 65536), []
    with pytest.raises(RegionFullError, match="copy=False") as caught:
        for number in range(1, 99):
            kept.append(share.get(copy=False))
            _change(share, 0, number)
    assert caught.value.held_bytes > 0 and share.get()[0] == len(kept) - 1
    assert [value[0] for value in kept] == list(range(len(kept)))
    kept.clear()
    _change(share, 0, 99)
    assert share.get()[0] == 99


def test_memory_comes_back_when_blocks_go_on(make):
    share, kept = make(filled(0), max_size="64M"), []
    for number in range(8):
        kept.append(share.get(copy=False))
        _change(share, 0, number + 1)
    kept.clear()
    share.set(filled(1))
    share.set(filled(2))
    assert share.info().resident_bytes <= 18 << 20


def test_several_shares_in_one_block(make, way):
    a, b = make(filled(0), max_size="64M"), make({"x": filled(1)}, max_size="64M")
    for number in range(1, 5):
        with locked(a, b) as (first, second):
            first.value[3] = number
            second["x"][4] = -number
    assert a.get()[3] == 4 and b.get()["x"][4] == -4
    assert way.patched == 8 and way.over >= 4
    with pytest.raises(UnpicklableError), locked(a, b) as (first, second):
        first.value[3] = 9
        second["x"] = (n for n in ())
    assert a.get()[3] == 4 and a.version == 5


def test_nested_blocks_and_updates_work_on_one_draft(make, way):
    share = make(filled(0), max_size="64M")
    with share.locked() as view:
        view.value[0] = 1
        with share.locked() as inner:
            inner.value[1] = 2
    share.lock()
    _change(share, 2, 3)
    share.unlock()
    share.update(lambda array: array.__setitem__(3, 4))
    share.update(lambda array: array.__setitem__(4, 5), optimistic=True)
    assert list(share.get()[:6]) == [1, 2, 3, 4, 5, 0]
    assert way.patched == 3


def test_small_and_large_values_take_turns(make):
    share = make(filled(0), max_size="64M")
    for number in range(1, 20):
        _change(share, 5, number)
        if number % 3 == 0:
            share.set(number)
            share.set(numpy.zeros(100))
            assert share.get().sum() == 0
            share.set(filled(0))
            _change(share, 5, number)
        assert share.get()[5] == number
    assert share.get().sum() == 19


def test_a_random_history_is_a_models(make):
    share = make({"a": filled(0), "b": filled(1), "n": 0}, max_size="64M")
    model = {"a": filled(0), "b": filled(1), "n": 0}
    rng, kept = random.Random(os.getpid()), []
    for step in range(60):
        with share.locked() as view:
            for _ in range(rng.randrange(4)):
                key, at, size = rng.choice("ab"), rng.randrange(COUNT), rng.choice((1, 3, 2000))
                view[key][at : at + size] = model[key][at : at + size] = step
            if rng.random() < 0.3:
                view["n"] = model["n"] = rng.choice((0, 300, 70_000, 1 << 40))
            if rng.random() < 0.05:
                view["a"] = model["a"] = filled(step)
        if rng.random() < 0.2:
            copies = {key: numpy.copy(value) for key, value in model.items()}
            kept.append((share.get(copy=False), copies))
        if len(kept) > 3:
            kept.pop(rng.randrange(4))
        if rng.random() < 0.1:
            share.set(model)
        for found, wanted in [(share.get(), model), (share.get(copy=False), model), *kept]:
            assert found["n"] == wanted["n"], step
            assert (found["a"] == wanted["a"]).all() and (found["b"] == wanted["b"]).all(), step


# --- Without what a kernel may lack --------------------------------------------------------------


def _two_blocks(share):
    for number in (1, 2, 3):
        _change(share, 5, number)
        _change(share, 100_000, -number)
    with share.locked() as view:
        view.value[5] = 3
    value = share.get()
    assert (value[5], value[100_000], value.sum()) == (3, -3, 0)
    return share.version


def test_without_pagemap_scan_the_words_of_the_pages_tell(monkeypatch, way):
    monkeypatch.setattr(fcntl, "ioctl", lambda *args: os.read(-1, 1))  # An OSError.
    share = Share(filled(0), max_size="64M")
    assert _two_blocks(share) == 7 and way.patched == 6
    monkeypatch.setattr(*inside.at("PAGEMAP_WORDS_MOST"), 100)
    assert _two_blocks(share) == 13 and way.patched == 12
    _change(share, slice(90 * 512, 110 * 512), 1)  # Pages on both sides of what is read at a time.
    assert share.get().sum() == 20 * 512 and way.patched == 13


def test_without_words_of_pages_all_is_compared(monkeypatch, way):
    monkeypatch.setattr(fcntl, "ioctl", lambda *args: os.read(-1, 1))
    monkeypatch.setattr(os, "pread", lambda *args: b"")
    assert _two_blocks(Share(filled(0), max_size="64M")) == 7 and way.patched == 0


@pytest.mark.parametrize("name", ["fcntl.ioctl", "io.FileIO"])
def test_a_signal_handlers_error_is_no_lack_of_the_kernels(monkeypatch, name):
    """A TimeoutError that a handler raises is an OSError too."""
    share = Share(filled(0), max_size="64M")

    def handler(*args):
        raise TimeoutError

    with pytest.raises(TimeoutError), share.locked() as view:
        view.value[5] = 1
        monkeypatch.setattr(name, handler)
    monkeypatch.undo()
    assert share.version == 1 and _two_blocks(share) == 7


def test_without_proc_drafts_are_copies(monkeypatch, way):
    share = Share(filled(0), max_size="64M")
    monkeypatch.setattr(*inside.at("PROC"), "/nowhere")
    assert _two_blocks(share) == 7 and way.patched == 0


def test_without_proc_in_the_middle_of_a_block_all_is_compared(monkeypatch, way):
    share = Share(filled(0), max_size="64M")
    with share.locked() as view:
        assert is_held(view.value)
        view.value[5] = 1
        monkeypatch.setattr(*inside.at("PROC"), "/nowhere")
    with share.locked() as view:
        view.value[5] = 1
    assert share.version == 2 and way.patched == 0


def test_without_such_locks_drafts_are_copies(monkeypatch, way):
    monkeypatch.setattr(*inside.at("GETLK"), None)
    assert _two_blocks(Share(filled(0), max_size="64M")) == 7 and way.patched == 0


def test_without_descriptors_to_spare_it_is_as_it_was(way):
    share = Share(filled(0), max_size="64M")
    with no_more_descriptors(0):
        assert _two_blocks(share) == 7 and way.patched == 0


def test_durable_values_are_stored_whole_and_files_by_their_pages(tmp_path, way):
    share = Share.open(tmp_path / "plain", filled(0), max_size="64M")
    assert _two_blocks(share) == 7 and way.patched == 6
    share.close()
    again = Share.open(tmp_path / "plain")
    assert again.get()[5] == 3
    durable = Share.open(tmp_path / "durable", filled(0), max_size="64M", durable=True)
    assert _two_blocks(durable) == 7 and way.patched == 6
    for one in (again, durable):
        one.unlink()
        one.close()


# --- What is noted of the version before ---------------------------------------------------------


@pytest.mark.parametrize("word", ["LAG", "LAG_START", "LAG_RUNS"])
def test_a_note_that_is_not_true_is_none(word, way):
    share = Share(filled(0), max_size="64M")
    _change(share, 0, 1)
    words = inside.words_of(inside.store_of(share))
    words[getattr(inside, word)] += 1
    _change(share, 1, 1)
    assert way.over == 0 and share.get().sum() == 2


def test_a_note_that_was_written_over_is_none(way):
    share = Share(filled(0), max_size="64M")
    _change(share, 0, 1)
    store = inside.store_of(share)
    end = inside.align(inside.load_slot(store).end)
    inside.map_of(store)[end : end + 8] = b"damaged!"
    _change(share, 1, 1)
    assert way.over == 0 and share.get().sum() == 2
    gc.collect()
