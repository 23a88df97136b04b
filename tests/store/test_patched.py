"""Places of patched values: runs laid over one another, and over what was there before."""

import random

import pytest
from support import Wanted, inside
from support.inside import Patched
from support.large import COUNT, filled

from mmapshare import CorruptRegionError, SharedDict

numpy = Wanted("numpy")
BASE = (100, 110, 128, 1128, 1152, 1552)
"""A value of 10, 1000 and 400 bytes."""


def _drawn(rng, begin, end, most):
    """Some runs within an extent, in order, none of which overlap."""
    ends = sorted(rng.sample(range(begin, end), 2 * rng.randrange(1, most)))
    return list(zip(ends[::2], ends[1::2], strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_runs_that_are_laid_over_one_another_give_what_was_written_last(seed):
    """A model writes each run's bytes into place; the runs say where those lie."""
    rng = random.Random(seed)
    raw, model, runs = bytearray(rng.randbytes(100_000)), bytearray(1600), []
    model[:] = raw[:1600]
    place, at = BASE, 2000
    for _ in range(60):
        inner = _drawn(rng, 128, 1128, 4) + _drawn(rng, 1152, 1552, 3)
        ends = tuple(end - BASE[0] for run in inner for end in run)
        place = Patched.of(place, at, (rng.choice((0, 5)), ends))
        at += place.first[1] - place.first[0] if place.first[0] == at else 0
        for begin, end in inner:
            model[begin:end] = raw[at : at + end - begin]
            at += end - begin
        runs = place.runs
        assert runs == sorted(runs) and all(begin < end for begin, end, _ in runs)
        assert all(one[1] <= two[0] for one, two in zip(runs, runs[1:], strict=False))
        for begin, end in (*_drawn(rng, 128, 1128, 6), (128, 1128), (1152, 1552)):
            assert place.piece(raw, begin, end) == model[begin:end]
        frames = [bytearray(raw[128:1128]), bytearray(raw[1152:1552])]
        place.lay_over(frames, raw)
        assert frames == [model[128:1128], model[1152:1552]]
    assert tuple(place) == BASE and len(place) == 6


def test_what_lies_between_two_frames_is_in_no_run():
    within = inside.within_frames
    frames = [(10, 20), (30, 40), (40, 50), (60, 70)]
    for ranges, found in {
        ((10, 20),): [(10, 20)],
        ((12, 35),): [(12, 20), (30, 35)],
        ((20, 30), (32, 33)): [(32, 33)],
        ((5, 25), (27, 31), (35, 65)): [(10, 20), (30, 31), (35, 40), (40, 50), (60, 65)],
        ((15, 55), (57, 70)): [(15, 20), (30, 40), (40, 50), (60, 70)],
        ((0, 70),): frames,
    }.items():
        assert list(within(frames, ranges)) == found, ranges


def test_a_patched_place_is_no_other_one():
    one, same, other = (Patched.of(BASE, at, (0, (30, 40))) for at in (2000, 2000, 3000))
    assert one == same and not one != same and hash(one) == hash(same)
    assert one != other and one != BASE and BASE != one and not BASE == one and one != "one"
    assert one[-1] - one[0] == BASE[-1] - BASE[0]
    again = Patched.of(one, 4000, (0, ()))
    assert again != one and again.runs == one.runs and again.first == BASE[:2]


@pytest.mark.parametrize("before", [None, (10, 20)])
def test_a_patch_of_what_is_not_there_is_damage(before):
    with pytest.raises(CorruptRegionError, match="patch"):
        Patched.of(before, 2000, (0, (30, 40)))


def test_what_is_stored_of_a_patched_value_is_told_from_what_is_not():
    shared = SharedDict({"a": [filled(0), filled(1)], "b": 1}, max_size="64M")
    with shared.locked() as view:
        view["a"][1][9] = 5
    store = inside.store_of(shared)
    place = store.current().places["a"]
    frames = tuple(store.frames(place))
    assert type(place) is Patched and store.holds(place, frames)
    assert not store.holds(place, frames[:2]) and not store.holds(place, (b"?", *frames[1:]))
    assert not store.holds(place, (*frames[:2], frames[2][:-1]))
    for at in (0, 9 * 8, COUNT * 8 - 1):
        changed = bytearray(frames[2])
        changed[at] ^= 1
        assert not store.holds(place, (*frames[:2], changed))
    shared["a"] = [filled(0), filled(1)]
    assert shared["a"][1][9] == 1
