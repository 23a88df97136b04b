"""How often a value is looked at again, and what comes between two looks."""

import numpy
import pytest
from support import in_child, inside
from support.inside import decode, encode
from support.values import VALUES, Job, Twice, look, look_at_key

from mmapshare import Share, SharedDict


@pytest.fixture
def second_looks(monkeypatch):
    """How often a value is loaded once more to compare it with."""
    looks = []
    monkeypatch.setattr(
        *inside.at("decode_in_sameness"), lambda *args: looks.append(1) or decode(*args)
    )
    return looks


def test_changes_of_plain_data_are_not_looked_at_twice(second_looks):
    share, shared = Share({"n": 0, "xs": [b"x", (1.5, None)]}), SharedDict(n=0, xs=["x"])
    for _ in range(3):
        with share.locked() as view, shared.locked() as dict_view:
            view["n"] += 1
            dict_view["n"] += 1
            dict_view["xs"].append("y")
    assert not second_looks
    assert (share.version, shared.version) == (4, 4)


def test_changes_of_an_array_alone_are_not_looked_at_twice(second_looks):
    share, shared = Share(numpy.zeros(9000)), SharedDict(k=numpy.zeros(9000))
    for _ in range(3):
        with share.locked() as view, shared.locked() as dict_view:
            view.value[7] += 1
            dict_view["k"][7] += 1
    assert not second_looks
    assert share.get()[7] == shared["k"][7] == 3


@pytest.mark.parametrize("beside", [0, numpy.zeros(10_000)], ids=["alone", "beside an array"])
def test_changes_in_a_row_are_believed_after_a_few(second_looks, beside):
    """Each second look costs as much as the block's own load and dump."""
    share, shared = Share([Job(0), beside]), SharedDict(k=[Job(0), beside])
    for _ in range(600):
        with share.locked() as view:
            view[0].id += 1
        with shared.locked() as view:
            view["k"][0].id += 1
    assert share.get()[0].id == shared["k"][0].id == 600
    assert 8 <= len(second_looks) < 80  # With buffers each look loads twice.


def test_what_others_wrote_is_looked_at_again(second_looks):
    """Trust is in what this process's blocks have made, and not in the share."""
    share, shared = Share([Job(0)]), SharedDict(k=[Job(0)])
    for _ in range(50):
        with share.locked() as view, shared.locked() as dict_view:
            view[0].id += 1
            dict_view["k"][0].id += 1
    share.set(VALUES["an attribute's name that is a key"]())
    in_child(shared.__setitem__, "k", VALUES["an attribute's name that is a key"]())
    versions = share.version, shared.version
    look(share)
    look_at_key(shared)
    assert (share.version, shared.version) == versions


def test_a_look_at_what_ones_own_block_has_made_publishes_nothing():
    share, shared = Share([Job(0)]), SharedDict(k=[Job(0)])
    with share.locked() as view, shared.locked() as dict_view:
        view[0].more = {"id": Job("id")}
        dict_view["k"][0].more = {"id": Job("id")}
    look(share)
    look_at_key(shared)
    assert (share.version, shared.version) == (2, 2)


def test_trust_is_kept_for_a_bounded_number_of_keys():
    trusts = inside.Trusts()
    for key in range(3000):
        trusts[key].looked(True, b"a", b"b")
    assert list(trusts) == list(range(2000, 3000))


def test_a_set_that_costs_too_much_to_put_in_order_counts_as_changed(monkeypatch):
    """Members that each hold all the others pickle to the square of what they take."""
    value = [{Job(n) for n in range(5)}, 0]
    assert inside.same_but_for_sets(value, decode(encode(value)))
    monkeypatch.setattr(*inside.at("ORDERED_BYTES_MOST"), 100)
    assert not inside.same_but_for_sets(value, decode(encode(value)))


@pytest.mark.parametrize("beside", [numpy.zeros(10_000), 0])
def test_an_optimistic_look_that_is_overtaken_runs_again(beside):
    """The array's bytes were those of the newer version by chance: the change in it counts."""
    share = Share([{f"w{n}" for n in range(50)}, beside + 0, 0])
    seen = []

    def add(value):
        seen.append(value[2])
        if len(seen) == 1:
            in_child(share.update, lambda value: [value[0], value[1], value[2] + 1])
        value[2] += 1
        value[1] = value[1] + 1

    share.update(add, optimistic=True)
    assert seen == [0, 1]
    assert share.get()[2] == 2


def test_two_who_change_an_array_alike_without_the_lock_both_count():
    share = Share(numpy.zeros(9000))
    seen = []

    def add(value):
        seen.append(value[0])
        if len(seen) == 1:
            with share.locked() as view:
                view.value[0] += 1
        value[0] += 1

    share.update(add, optimistic=True)
    assert seen == [0, 1]
    assert share.get()[0] == 2


def test_transactions_do_not_run_again_because_somebody_looked():
    shared = SharedDict(k=VALUES["a set beside an array"](), n=0)
    calls = []

    def step(view):
        calls.append(view["k"])
        in_child(look_at_key, shared)
        view["n"] += 1

    for _ in range(3):
        shared.transact(step)
    assert (len(calls), shared.version, shared["n"]) == (3, 4, 3)


def test_a_value_that_another_overtakes_while_it_is_compared_is_a_conflict(ordered, monkeypatch):
    """It was unpickled from what a writer was writing there."""
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), -(1 << 30))  # Each change is a snapshot.
    shared = SharedDict(k=[Twice(), numpy.zeros(10_000)], n=0)
    seen, frames_of = [], inside.index_of(shared).frames

    def overtaken(extents):
        frames = frames_of(extents)
        if len(seen) == 1:
            seen.append("overtaken")
            in_child(shared.__setitem__, "k", [1, 2])
            in_child(shared.update, {n: bytes(50_000) for n in range(4)})
        return frames

    def look_only(view):
        seen.append(view["k"])

    monkeypatch.setattr(*inside.at("index_frames"), lambda index, extents: overtaken(extents))
    shared.transact(look_only)
    assert len(seen) == 3 and seen[2] == [1, 2]


def test_a_value_whose_place_is_overwritten_while_it_is_compared_is_compared_again(
    ordered, monkeypatch
):
    shared = SharedDict(k=[Twice(), numpy.zeros(10_000)])
    reads, calls = [], []
    frames_of, stands = inside.index_frames, inside.index_stands

    def stands_but_once(log, position):
        if len(reads) == 2:  # The first was for the function, the second to compare with.
            reads.append("overwritten")
            return False
        return stands(log, position)

    monkeypatch.setattr(*inside.at("index_frames"), lambda *of: reads.append(of) or frames_of(*of))
    monkeypatch.setattr(*inside.at("index_stands"), stands_but_once)
    shared.transact(lambda view: calls.append(view["k"]))
    assert (len(calls), len(reads), shared.version) == (1, 4, 1)
