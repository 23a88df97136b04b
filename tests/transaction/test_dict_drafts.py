"""Blocks on large values of a dict: what they touched is added, and laid over what was there."""

import pytest
from support import Wanted, in_child, inside
from support.large import COUNT, extents_held, filled, is_filled, is_held

from mmapshare import (
    ViewClosedError,
)

numpy = Wanted("numpy")
PAGE = 4096


class Way:
    """How many values were patched, and how many stored whole that were drafts."""

    def __init__(self, monkeypatch):
        self.patched = self.whole = 0
        patch, patch_of = inside.state_patch, inside.patch_of

        def patches(*args):
            self.patched += 1
            return patch(*args)

        def may_patch(*args):
            found = patch_of(*args)
            self.whole += found is None
            return found

        monkeypatch.setattr(*inside.at("state_patch"), patches)
        monkeypatch.setattr(*inside.at("patch_of"), may_patch)


@pytest.fixture
def way(monkeypatch):
    return Way(monkeypatch)


def _change(shared, index, number, key="a"):
    with shared.locked() as view:
        view[key][index] = number


def _used(shared):
    return shared.info().used_bytes


def _read_by_all(shared, key="a"):
    """A key's value in each way that there is to get at it, in this process and others."""
    yield shared[key]
    yield shared.get(key, copy=False)
    yield shared.snapshot()[key]
    yield shared.snapshot(copy=False)[key]
    yield in_child(lambda: shared[key])
    yield in_child(_anew, shared, key)
    yield shared.wait(lambda glance: True) and shared.transact(lambda view: view[key])
    with shared.locked() as view:
        yield view[key]
    yield shared.setdefault(key)


def _anew(shared, key):
    """As one reads who knows nothing of it yet."""
    store = inside.store_of(shared)
    store.state = inside.unread_state(store)
    return shared[key]


def _place(shared, key="a"):
    return inside.store_of(shared).current().places[key]


def _is_right(state):
    """Whether what is live and dead is what one finds who reads all anew."""
    live = sum(place[-1] - place[0] for place in state.places.values())
    return state.live == live


def test_a_block_writes_the_pages_that_it_touched(make_dict, way):
    shared = make_dict({"n": 1, "a": filled(0), "z": 2}, max_size="64M")
    model, used = filled(0), _used(shared)
    for number in range(1, 9):
        index = number * 1000
        _change(shared, index, number)
        model[index] = number
        for found in _read_by_all(shared):
            assert (found == model).all(), number
    assert way.patched == 8 and shared.version == 9
    assert _used(shared) - used < 8 * (PAGE + 500)
    assert list(shared) == ["n", "a", "z"] and shared["n"] == 1
    assert extents_held(shared) == [] and _is_right(inside.store_of(shared).current())


def test_a_block_that_changes_nothing_publishes_nothing(make_dict, way):
    shared = make_dict({"a": filled(1), "n": 0}, max_size="64M")
    for number in 3, 4:  # As it was stored whole, and patched.
        version = shared.version
        with shared.locked() as view:
            view["a"][7] = view["a"][8]
        with shared.locked() as view:
            assert len(view["a"]) == COUNT and view["n"] == 0
        with pytest.raises(ZeroDivisionError), shared.locked() as view:
            view["a"][7] = 5
            raise ZeroDivisionError
        assert shared.version == version
        _change(shared, 900, number)
    assert way.patched == 2 and shared["a"].sum() == COUNT + 3


def test_the_same_page_again_and_again_takes_one_run(make_dict, way):
    shared = make_dict({"a": filled(0)}, max_size="64M")
    for number in range(1, 50):
        _change(shared, 5, number)
    assert way.patched == 49 and len(_place(shared).runs) == 1
    assert shared["a"].sum() == 49


def test_pages_beside_others_that_were_changed_before_are_written_alone(make_dict, way):
    shared = make_dict({"a": filled(0)}, max_size="64M")
    used = _used(shared)
    for number in range(1, 20):  # As one fills it from the begin on.
        _change(shared, slice(number * 512, number * 512 + 512), number)
    assert _used(shared) - used < 20 * (2 * PAGE + 500)
    assert shared["a"].sum() == 512 * sum(range(20)) and way.patched == 19


def test_rollback_drops_the_draft_and_goes_on(make_dict, way):
    shared = make_dict({"a": filled(1)}, max_size="64M")
    with shared.locked() as view:
        kept = view["a"]
        kept[7] = 5
        view.rollback()
        view["a"][8] = 6
    assert (shared["a"][7], shared["a"][8], way.patched) == (1, 6, 1)
    with shared.locked() as view:
        view["a"][7] = 5
        view.rollback()
    assert shared.version == 2
    with shared.locked() as view:
        view["a"] = kept  # The draft of another time, by now a value like any.
    assert (shared["a"][7], shared["a"][8], way.patched) == (5, 1, 1)


def test_a_closed_view_keeps_nothing_of_a_large_value(make_dict):
    shared = make_dict({"a": filled(1)}, max_size="64M")
    with shared.locked() as view:
        view["a"][0] = 2
    with shared.locked() as other:
        other["a"].sum()
    with pytest.raises(ZeroDivisionError), shared.locked() as third:
        third["a"][0] = 1 / 0
    with shared.locked() as fourth, shared.locked():
        fourth["a"][0] = 3
        fourth.rollback()
        fourth["a"][0] = 4
    assert extents_held(shared) == [] and shared["a"][0] == 4
    for closed in (view, other, third, fourth):
        with pytest.raises(ViewClosedError):
            closed["a"]
        assert repr(closed) == "<View, closed>"


def test_what_is_kept_from_a_block_is_a_private_copy(make_dict):
    shared = make_dict({"a": filled(1)}, max_size="64M")
    _change(shared, 9, 8)
    with shared.locked() as view:
        kept = view["a"]
        kept[0] = 2
    assert is_held(kept) and extents_held(shared) != [] and shared["a"][0] == 2
    for number in range(6):
        _change(shared, 1, number)
        shared["a"] = filled(number)
    assert (kept[0], kept[1], kept[9]) == (2, 1, 8) and kept.sum() == COUNT + 1 + 7
    kept[5] = 9
    assert is_filled(shared["a"], 5)


def test_what_is_taken_out_holds_nothing(make_dict):
    shared = make_dict({"a": filled(1), "b": filled(2), "c": filled(3)}, max_size="64M")
    _change(shared, 5, 7)
    taken = shared.pop("a"), shared.popitem()[1], shared.setdefault("b", 5)
    assert extents_held(shared) == [] and list(shared) == ["b"]
    assert [value[0] for value in taken] == [1, 3, 2] and taken[0][5] == 7
    assert shared.setdefault("d", 5) == 5 and shared.pop("d") == 5
    with shared.locked() as view:
        view["b"][0] = 9
        assert view.value.pop("b")[0] == 9
        with pytest.raises(KeyError):
            view.value.pop("b")


def test_several_keys_in_one_block(make_dict, way):
    shared = make_dict({"a": filled(0), "n": 0, "b": [filled(1), filled(2)]}, max_size="64M")
    for number in range(1, 4):
        with shared.locked() as view:
            view["a"][number] = number
            view["b"][1][number] = -number
            view["n"] += 1
            view[number] = "x" * number
    assert way.patched == 6 and in_child(_anew, shared, "n") == 3
    assert list(shared) == ["a", "n", "b", 1, 2, 3]
    for found in _read_by_all(shared, "b"):
        assert is_filled(found[0], 1) and list(found[1][:5]) == [2, -1, -2, -3, 2]
    assert list(shared["a"][:5]) == [0, 1, 2, 3, 0]


def test_a_run_over_the_end_of_a_frame_and_the_begin_of_the_next(make_dict, way):
    shared = make_dict({"a": [filled(1)[:-3], filled(2)]}, max_size="64M")
    with shared.locked() as view:
        view["a"][0][-1] = view["a"][1][0] = 7
    assert way.patched == 1
    for first, second in _read_by_all(shared):
        assert (first[-1], first[-2], second[0], second[1]) == (7, 1, 7, 2)


def test_parts_may_be_replaced_and_grow(make_dict, way):
    shared = make_dict({"k": {"a": filled(0), "b": filled(1), "n": 0}}, max_size="64M")
    with shared.locked() as view:
        view["k"]["n"] = 5
        view["k"]["a"][3] = 4
    with shared.locked() as view:
        view["k"]["n"] = "long" * 1000  # The stream does not fit into its place.
    assert way.patched == 2
    with shared.locked() as view:
        view["k"]["a"][5] = 6  # The stream stays what it is.
    assert way.patched == 3
    value = shared["k"]
    assert value["n"] == "long" * 1000 and (value["a"][3], value["a"][5]) == (4, 6)
    with shared.locked() as view:
        view["k"]["n"] = "long" * 100_000  # It takes more than what may be left uncounted.
    assert (way.patched, way.whole) == (3, 1)
    with shared.locked() as view:
        view["k"]["b"] = filled(7)
    with shared.locked() as view:
        view["k"]["b"] = view["k"]["a"]  # One buffer less.
    with shared.locked() as view:
        view["k"]["a"] = view["k"]["a"][1:]
    value = shared["k"]
    assert len(value["a"]) == COUNT - 1 and value["a"][2] == 4 and len(value["b"]) == COUNT
    assert value["n"] == "long" * 100_000 and way.patched == 3


def test_another_type_and_shape_of_the_same_bytes(make_dict, way):
    shared = make_dict({"a": filled(0)}, max_size="64M")
    with shared.locked() as view:
        view["a"] = view["a"].view("i8").reshape(2, -1)
        view["a"][1, 0] = 5
    found = shared["a"]
    assert (found.dtype, found.shape, found[1, 0], way.patched) == ("i8", (2, COUNT // 2), 5, 1)


def test_read_only_arrays_are_looked_at_as_a_whole(make_dict, way):
    frozen = filled(1)
    frozen.flags.writeable = False
    shared = make_dict({"a": [frozen, 0]}, max_size="64M")
    with shared.locked() as view:
        view["a"][0].sum()
    assert shared.version == 1
    with shared.locked() as view:
        view["a"][1] = 2
    assert shared["a"][1] == 2 and is_filled(shared["a"][0], 1) and way.patched == 0


def test_a_patched_key_is_replaced_deleted_and_set_again(make_dict, way):
    shared = make_dict({"a": filled(0), "b": 1}, max_size="64M")

    def is_right():
        state = inside.store_of(shared).current()
        return _is_right(state) and in_child(_anew, shared, "b") == 1

    _change(shared, 5, 1)
    shared["a"] = filled(2)
    assert is_filled(shared["a"], 2) and is_right()
    _change(shared, 5, 1)
    shared["a"] = 3
    assert shared["a"] == 3 and is_right()
    shared["a"] = filled(4)
    _change(shared, 5, 1)
    del shared["a"]
    assert list(shared) == ["b"] and is_right()
    shared["a"] = filled(5)
    _change(shared, 5, 1)
    with shared.locked() as view:
        value = view["a"]
        value[6] = 2
        del view["a"]
        view["a"] = value  # What it is laid over is gone by then.
    assert list(shared) == ["b", "a"] and list(shared["a"][4:8]) == [5, 1, 2, 5]
    assert way.patched == 4 and is_right()
    assert in_child(_anew, shared, "a").sum() == shared["a"].sum()


def test_what_was_held_stays_as_it_was(make_dict, way):
    shared = make_dict({"a": filled(0), "n": 0}, max_size="64M")
    kept = []
    for number in range(1, 30):
        held, snapshot = shared.get("a", copy=False), shared.snapshot(copy=bool(number % 2))
        kept.append((number - 1, held, snapshot))
        with shared.locked() as view:
            view["a"][number] = view["n"] = number
        if len(kept) > 5:
            del kept[number % 5]
        for until, one, before in kept:
            assert one.sum() == sum(range(until + 1)) and before["n"] == until
            assert before["a"].sum() == one.sum()
    assert way.patched > 25 and is_held(held)


def test_runs_are_laid_over_until_it_costs_as_much_as_to_store_it_whole(make_dict, way):
    shared, model = make_dict({"a": filled(0), "n": 1}, max_size="64M"), filled(0)
    kinds = []
    for number in range(1, 60):
        before = way.patched
        _change(shared, number * 8000 % COUNT, number)
        model[number * 8000 % COUNT] = number
        kinds.append(way.patched > before)
        assert (shared["a"] == model).all() and (in_child(_anew, shared, "a") == model).all()
    first = kinds.index(False)
    assert first == kinds.index(False, first + 1) - first - 1, "it begins anew"
    assert first == 22, "each one more page is paid for each time: 2 + 4 + 6 + ... > 1026 / 2"


def test_a_draft_that_is_changed_all_over_is_stored_whole_and_the_next_are_copies(make_dict, way):
    shared = make_dict({"a": filled(0), "b": filled(0)}, max_size="64M")
    kinds = []
    for number in range(1, 13):
        with shared.locked() as view:
            kinds.append(extents_held(shared) != [] or is_held(view["a"]) and extents_held(shared))
            view["a"][:] = number
        assert is_filled(shared["a"], number)
    assert [bool(kind) for kind in kinds] == [True, *[False] * 8, True, False, False]
    assert way.patched == 0
    _change(shared, 5, 1, "b")
    assert way.patched == 1, "of another key it is another matter"


def test_of_the_oldest_keys_it_is_forgotten_what_was_changed(make_dict, monkeypatch, way):
    monkeypatch.setattr(*inside.at("DRAFTS_KEPT"), 1)
    shared = make_dict({"a": filled(0), "b": filled(0)}, max_size="64M")
    for number in range(1, 4):
        _change(shared, slice(None), number, "a")
        _change(shared, number, number, "b")
        assert is_filled(shared["a"], number)
    assert way.patched == 3 and list(shared["b"][:5]) == [0, 1, 2, 3, 0]
