"""Keys on a server: which are equal, in which order, and how a process keeps up with them."""

import random
import threading
from decimal import Decimal
from fractions import Fraction

import numpy
import pytest
from support import SEED, Child, in_child, inside

from mmapshare import RegionFullError, Share, SharedDict, UnpicklableError

EQUAL = [1, 1.0, True, Decimal(1), Fraction(1), 1 + 0j]
KEYS = [
    *EQUAL,
    *("a", "", "\ud800", "ä" * 500, b"a", b"", None, -1, 0, -0.0, False, 2**80, 1e300, 0.5),
    *(float("inf"), (), (1, "a"), (1.0, "a"), ((1,), b"x"), (Decimal(1), "a"), frozenset({1})),
    *(range(3), 1j, int, Ellipsis, Decimal("0.5")),
]


def _fresh(url):
    """As another process opens it, which knows none of ours."""
    known = dict(inside.open_here)
    inside.open_here.clear()
    fresh = SharedDict.open(url)
    inside.open_here.update(known | dict(inside.open_here))
    return fresh


@pytest.mark.parametrize("first", EQUAL, ids=repr)
def test_equal_keys_are_one_key_whoever_sets_them(url, first):
    """As in a dict, the key that was there first stays, and so does its place."""
    SharedDict.open(url, {"before": 0, first: "first", "after": 0}).close()
    for key in EQUAL:
        assert in_child(lambda: _fresh(url)[key]) in {"first", *map(repr, EQUAL)}
        in_child(lambda: _fresh(url).__setitem__(key, repr(key)))
        found = _fresh(url)
        assert found[first] == repr(key)
        assert [*map(type, found)] == [str, type(first), str]
        assert list(found) == ["before", first, "after"]
        found.close()
    last = _fresh(url)
    del last[EQUAL[-1]]
    assert list(last) == ["before", "after"]


@pytest.mark.parametrize("plain", [1, True, 1.0])
def test_who_has_fallen_behind_sets_no_second_key_that_equals_one(url, plain):
    """Two fields stood for 1, one for a Decimal that was gone: it outlived the deletion."""
    shared = SharedDict.open(url, {Decimal(1): "old"})
    behind = _fresh(url)
    assert len(behind) == 1
    del shared[1]
    shared[1] = "new"
    behind[plain] = "newest"
    assert list(shared.items()) == list(behind.items()) == [(1, "newest")]
    assert [*map(type, shared)] == [*map(type, behind)] == [int]
    del behind[1]
    assert not shared and not behind and not _fresh(url)


@pytest.mark.parametrize("first", EQUAL, ids=repr)
@pytest.mark.parametrize("then", EQUAL, ids=repr)
def test_a_key_that_is_new_is_the_one_that_was_given(url, first, then):
    """It came as one that had equalled it, and was gone, if a process had not seen that."""
    shared = SharedDict.open(url, {first: 1})
    behind = _fresh(url)
    assert len(behind) == 1
    del shared[first]
    behind[then] = 2
    for found in (shared, behind, _fresh(url)):
        assert list(found.items()) == [(1, 2)]
        assert [*map(type, found)] == [type(then)]


def test_any_sequence_of_acts_is_as_on_a_dict(url):
    print("seed", SEED)
    chance = random.Random(SEED)
    shared, model = SharedDict.open(url), {}
    dicts = [shared]
    for step in range(300):
        if step % 100 == 50:  # A second one, in another process, which falls behind at times.
            child = Child(_apply, url)
            dicts.append(child)
        key, what = chance.choice(KEYS), chance.choice(["set", "set", "set", "pop", "block", "end"])
        other = chance.choice(KEYS)
        act = (what, key, other, step)
        _do(model, act)
        who = chance.choice(dicts)
        if who is shared:
            _do(shared, act)
        else:
            who.say(act)
            assert who.hear() == "done"
        if step % 7 == 0:
            assert list(shared.items()) == list(model.items())
            assert [*map(type, shared)] == [*map(type, model)]
            assert {key: shared[key] for key in model} == model
            assert len(shared) == len(model)
    for child in dicts[1:]:
        child.say(None)
        assert child.result() == list(model.items())


def _apply(child, url):
    shared = _fresh(url)
    while (act := child.hear()) is not None:
        _do(shared, act)
        child.say("done")
    return list(shared.items())


def _do(target, act):
    what, key, other, step = act
    if what == "set":
        target[key] = [step]
    elif what == "pop":
        target.pop(key, None)
    elif what == "end":
        if len(target):
            target.popitem()
    elif isinstance(target, SharedDict):
        with target.locked() as view:
            _change(view, key, other, step)
    else:
        _change(target, key, other, step)


def _change(mapping, key, other, step):
    mapping.pop(key, None)
    mapping[other] = (step,)
    mapping[key] = step
    if step % 5 == 0:
        mapping.pop(other, None)


def test_a_key_that_nobody_could_find_again_is_refused(url):
    shared = SharedDict.open(url, {"a": 1})
    for key in (float("nan"), object(), ("x", object())):
        with pytest.raises(UnpicklableError, match="another one after pickling"):
            shared[key] = 1
        with pytest.raises(UnpicklableError), shared.locked() as view:
            view[key] = 1
    with pytest.raises(TypeError):
        shared[[]] = 1
    with pytest.raises(TypeError):
        shared[[]]
    assert shared == {"a": 1}


def test_who_has_fallen_far_behind_reads_all_keys_anew(url):
    shared = SharedDict.open(url, dict.fromkeys(range(100), 0))
    assert len(shared) == 100

    def much():
        other = _fresh(url)
        other.update(dict.fromkeys(range(50, 6000), 1))
        other.pop(5, None)

    in_child(much)
    assert len(shared) == 5999
    assert (shared[3], shared[60], shared[5999]) == (0, 1, 1)
    with pytest.raises(KeyError):
        shared[5]
    in_child(much)
    with shared.locked() as view:
        assert len(view) == 5999
        view.clear()
    assert len(shared) == 0


def test_deleted_keys_are_forgotten_in_the_end(url, server):
    """Who was away for all of them reads everything anew, and is told nothing wrong."""
    shared = SharedDict.open(url, {"stays": 0})
    away = Child(_look_twice, url)
    assert away.hear() == ["stays"]
    for round_ in range(4):
        shared.update({f"{round_} {n}": n for n in range(4000)})
        with shared.locked() as view:
            view.value = {"stays": round_ + 1}
    assert list(shared) == ["stays"]
    changed = int(server.command("ZCARD", "mmapshare:{jobs}:changed")[1:])
    assert 5000 < changed <= 11_001
    away.say()
    assert away.result() == {"stays": 4}


def _look_twice(child, url):
    shared = _fresh(url)
    child.say(list(shared))
    child.hear()
    return dict(shared)


def test_threads_read_while_others_change(url):
    shared = SharedDict.open(url, {n: [n, 0] for n in range(20)})
    stop = threading.Event()
    wrong = []

    def look():
        while not stop.is_set():
            with_all = shared.snapshot()
            total = sum(value[1] for value in with_all.values())
            if total % 2 or len(shared) != 20 or shared[3][0] != 3:
                wrong.append(total)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()

    def change():
        for n in range(40):
            with shared.locked() as view:
                view[n % 20][1] += 1
                view[(n + 7) % 20][1] += 1

    try:
        in_child(change)
        change()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert sum(value[1] for value in shared.values()) == 160


def test_classes_of_the_program_travel_with_their_values(url):
    class Point:
        def __init__(self, x):
            self.x = x

    shared = SharedDict.open(url, {"p": Point(1), "q": [Point(2), Point(3)]})
    with shared.locked() as view:
        view["p"].x += 1
        view["r"] = Point(9)

    def elsewhere():
        other = _fresh(url)
        with other.locked() as view:
            view["p"].x += 1
        return other["p"].x, other["q"][1].x, other["r"].x

    assert in_child(elsewhere) == (3, 3, 9)
    assert shared["p"].x == 3
    assert [point.x for point in shared.snapshot()["q"]] == [2, 3]


def test_a_full_dict_is_as_it_was(url):
    shared = SharedDict.open(url, {"a": "x" * 500}, max_size=1000)
    for change in (
        lambda: shared.__setitem__("b", "y" * 600),
        lambda: shared.update(b="y" * 600),
        lambda: shared.transact(lambda view: view.update(b="y" * 600)),
    ):
        with pytest.raises(RegionFullError, match=r"ceiling is 1,000 bytes") as caught:
            change()
        assert caught.value.max_size_bytes == 1000
    assert shared == {"a": "x" * 500}
    shared["a"] = "x" * 300
    shared["b"] = "y" * 600
    assert shared.info().used_bytes < 1000
    with pytest.raises(RegionFullError):
        SharedDict.open(url + "2", {"a": "x" * 2000}, max_size=1000)
    with pytest.raises(RegionFullError):
        Share.open(url + "3", "x" * 2000, max_size=1000)


def test_large_values_come_only_where_they_are_wanted(url, server):
    shared = SharedDict.open(url, {"large": "x" * 3_000_000, "small": 1})

    def sent():
        told = server.command("INFO", "stats")
        return int(told.partition(b"total_net_output_bytes:")[2].split()[0])

    before = sent()
    assert in_child(lambda: (_fresh(url)["small"], len(_fresh(url)), list(_fresh(url)))) == (
        1, 2, ["large", "small"],
    )  # fmt: skip
    shared["small"] = 2
    assert sent() - before < 100_000
    assert len(shared["large"]) == 3_000_000
    assert sent() - before > 3_000_000


def test_what_asks_for_no_copy_is_copied_as_a_server_gives_nothing_else(url):
    array = numpy.arange(1 << 20)
    share, shared = Share.open(url, array), SharedDict.open(url + "-keys", {"a": array})
    snapshot = shared.snapshot(copy=False)
    for found in (
        share.get(copy=False),
        share.snapshot(copy=False).value,
        shared.get("a", copy=False),
        snapshot["a"],
    ):
        assert (found == array).all()
    assert share.info().held_bytes == 0
