"""The order of keys: the first and the last are had without a list of all."""

import random
import threading
from contextlib import nullcontext
from itertools import islice

import pytest
from support import SEED, Child, in_child, inside
from support.inside import Places

from mmapshare import SharedDict, ViewClosedError

MANY = 1000


@pytest.fixture
def no_lists(monkeypatch):
    """Nobody lists all keys, and what is remembered from the front is in proportion."""
    listed = []
    monkeypatch.setattr(*inside.at("begun_keys"), lambda begun: listed.append("all") or [])
    real = inside.Front.__init__

    def remember(front, keys):
        listed.extend(keys)
        real(front, keys)

    monkeypatch.setattr(*inside.at("front_init"), remember)
    yield listed
    assert "all" not in listed


def test_places_are_in_a_dicts_order_whatever_is_taken_out_and_put_in():
    chance = random.Random(SEED)
    print("seed", SEED)
    for size in (0, 3, 300, 600):
        places, plain, iterations = Places((n, n) for n in range(size)), {}, []
        plain.update(places)
        for turn in range(1500):
            act = chance.randrange(8)
            if act == 0 and plain:
                key = next(iter(plain))
            elif act == 1 and plain:
                key = next(reversed(plain))
            else:
                key = chance.randrange(2 * size + 5)
            if act in {0, 1, 2, 3}:
                assert places.take_out(key) == plain.pop(key, None)
            elif act in {4, 5}:
                places[key] = plain[key] = turn
            else:
                backward = act == 6
                iterator = places.iterate(backward, nullcontext)
                keys = list(plain)[::-1] if backward else list(plain)
                head = chance.randrange(4)
                assert list(islice(iterator, head)) == keys[:head]
                iterations.append((iterator, keys[head:]))
            assert list(places) == list(plain)
            assert next(places.from_front(), None) == next(iter(plain), None)
            if len(iterations) > 5:
                iterator, keys = iterations.pop(chance.randrange(6))
                assert list(iterator) == keys
            if turn % 100 == 0:
                assert list(places.from_front()) == list(plain)


def first(mapping):
    # In an assert statement pytest would keep the iterator.
    return next(iter(mapping))


def last(mapping):
    return next(reversed(mapping))


@pytest.mark.needs("is_memory")
def test_a_queue_of_many_keys_lists_none_of_them_for_its_ends(medium, no_lists):
    """`popitem`, the first and the last key made a list of all keys: 8 ms of a million."""
    shared = medium.dict(dict.fromkeys(range(MANY), 0))
    del no_lists[:]
    for n in range(300):
        assert first(shared) == n
        assert last(shared) == MANY - 1 - n
        assert shared.popitem() == (MANY - 1 - n, 0)
        with shared.locked() as view:
            assert first(view) == n
            assert last(view) == MANY - 2 - n
            assert view
            assert len(view) == MANY - 1 - 2 * n
            assert view.pop(first(view)) == 0
    assert len(no_lists) < 2000


def test_a_block_that_takes_many_lists_none_of_them_for_its_ends(medium, no_lists):
    shared = medium.dict(dict.fromkeys(range(MANY), 0))
    del no_lists[:]
    with shared.locked() as view:
        for n in range(400):
            key = first(view)
            assert key == n
            del view[key]
            assert view.popitem() == (MANY - 1 - n, 0)
            view[MANY + n] = 1
            assert view.popitem() == (MANY + n, 1)
    assert len(shared) == MANY - 800
    with shared.locked() as view:
        del view[598]
        assert list(reversed(view)) == list(view)[::-1] == [599, *range(597, 399, -1)]
    assert len(no_lists) < 3000


@pytest.mark.needs("crosses_fork")
@pytest.mark.slow
@pytest.mark.untraced
def test_other_processes_that_take_from_a_queue_are_caught_up_with(medium):
    shared = medium.dict(dict.fromkeys(range(MANY), 0))
    assert next(iter(shared)) == 0

    def take(n):
        with shared.locked() as view:
            for _ in range(n):
                view.pop(next(iter(view)))
                view.popitem()

    for n in range(1, 60):
        in_child(take, n % 7)
        with shared.locked() as view:
            taken = next(iter(view))
            del view[taken]
            view[taken] = 1
        assert next(reversed(shared)) == taken
        keys = list(shared)
        assert next(iter(shared)) == keys[0]
        assert keys == in_child(lambda: list(shared))


def test_an_iteration_gives_the_keys_as_they_were_when_it_began(medium):
    shared = medium.dict(dict.fromkeys(range(MANY), 0))
    forward, backward, begun = iter(shared), reversed(shared), iter(shared)
    assert next(begun) == 0
    shared["new"] = 1
    for key in range(0, MANY, 2):
        del shared[key]
    shared[0] = "again"
    assert list(forward) == list(range(MANY))
    assert list(begun) == list(range(1, MANY))
    assert list(backward) == list(range(MANY))[::-1]
    assert list(shared) == [*range(1, MANY, 2), "new", 0]


def test_an_iteration_in_a_block_gives_the_keys_as_they_were_when_it_began(medium):
    shared = medium.dict(dict.fromkeys(range(MANY), 0))
    with shared.locked() as view:
        view["new"] = 1
        kept, late = iter(view), iter(view)
        assert next(late) == 0
        for key in view:
            del view[key]
            view[f"after {key}"] = 2
        assert len(view) == MANY + 1
        assert list(kept) == [*range(MANY), "new"]
        cleared = iter(view)
        view.clear()
        assert list(cleared)[:2] == ["after 0", "after 1"]
        assert list(view) == []
        assert list(reversed(view)) == []
        with pytest.raises(KeyError, match="empty"):
            view.popitem()
        view["last"] = 3
        assert list(view) == ["last"]
    assert list(late) == [*range(1, MANY), "new"]
    assert list(shared) == ["last"]


def test_an_iteration_that_outlives_its_block_is_not_changed_by_what_comes_after(medium):
    shared = medium.dict(dict.fromkeys(range(MANY), 0))
    with shared.locked() as view:
        left = iter(view)
        backward = reversed(view)
        assert next(backward) == MANY - 1
    for n in range(10):
        del shared[n]
    assert list(left) == list(range(MANY))


def test_iterations_in_threads_beside_changes_are_of_one_version(medium):
    shared = medium.dict(dict.fromkeys(range(MANY), 0))
    over, found = threading.Event(), []

    def look():
        while not over.is_set():
            keys = list(shared)
            found.append(keys == list(range(keys[0], keys[0] + MANY)))

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(300):
        with shared.locked() as view:
            view.pop(next(iter(view)))
            view[MANY + n] = 0
    over.set()
    for reader in readers:
        reader.join()
    assert all(found)


# --- wait(predicate) ------------------------------------------------------------------------------


def test_a_predicate_that_looks_at_one_key_copies_nothing_else(medium, no_lists, monkeypatch):
    """It got a copy of everything: 60 ms a look at a million keys."""
    shared = medium.dict(dict.fromkeys(range(MANY), [0]))
    monkeypatch.setattr(SharedDict, "snapshot", lambda shared: pytest.fail("it was copied"))

    def predicate(seen):
        assert seen.version == shared.version
        assert seen[3] == [0]
        assert seen.get("none") is None
        assert 4 in seen
        assert "none" not in seen
        assert seen
        assert first(seen) == 0
        assert last(seen) == MANY - 1
        assert repr(seen) == f"<DictSnapshot of version {seen.version}: {MANY} keys>"
        with pytest.raises(TypeError, match="dict"):
            seen.__reduce__()
        return len(seen) == MANY

    assert shared.wait(predicate, timeout=0)


def test_a_predicate_that_looks_at_all_of_it_sees_one_version(medium, monkeypatch):
    shared = medium.dict(dict.fromkeys(range(MANY), 1))
    values = iter(range(2, 10))

    def predicate(seen):
        found = list(islice(seen.values(), 10))
        shared.update(dict.fromkeys(range(MANY), next(values)))  # As another process does.
        found += seen.values()
        assert len(set(found)) == 1
        assert list(seen) == list(reversed(seen))[::-1] == list(range(MANY))
        assert 3 in seen
        assert len(seen) == MANY
        return found[0]

    assert shared.wait(predicate, timeout=0)
    assert next(values) == 6  # Three times it came in between; then there was a copy.


def test_a_predicate_that_catches_all_is_asked_again(medium):
    shared = medium.dict(a=0)
    asked = []

    def predicate(seen):
        asked.append(None)
        shared["a"] = len(asked)
        try:
            return seen["a"] == len(asked)
        except BaseException:
            return True

    assert not shared.wait(predicate, timeout=0)
    assert len(asked) == 4


def test_what_a_predicate_keeps_is_a_copy(medium):
    shared = medium.dict(dict.fromkeys(range(MANY), 0))
    kept = []
    assert shared.wait(lambda seen: not kept.append(seen), timeout=0)
    shared.clear()
    assert dict(kept[0]) == dict.fromkeys(range(MANY), 0)
    assert kept[0][3] == 0
    assert 3 in kept[0]
    assert list(reversed(kept[0])) == list(kept[0])[::-1]
    assert len(kept[0]) == MANY


def test_what_a_predicate_keeps_and_what_was_overtaken_says_so(medium):
    shared = medium.dict(a=0)
    kept = []

    def predicate(seen):
        kept.append(seen)
        shared["a"] += 1
        return True

    assert shared.wait(predicate, timeout=0)
    assert len(kept) == 4
    with pytest.raises(ViewClosedError, match="predicate alone"):
        dict(kept[0])
    assert kept[-1]["a"] == 3


def test_a_conflict_of_another_dicts_is_not_taken_for_ones_own(medium):
    one = medium.dict(a=0)

    def predicate(seen):
        raise inside.Conflict

    with pytest.raises(inside.Conflict):
        one.wait(predicate, timeout=0)


@pytest.mark.needs("crosses_fork")
def test_waiting_for_one_key_beside_a_writer_ends_when_it_comes(medium):
    shared = medium.dict(dict.fromkeys(range(100), 0), flag=0)

    def write(child):
        child.hear()
        for n in range(200):
            shared[n % 100] = n
        shared["flag"] = 1

    writer = Child(write)
    writer.say()
    assert shared.wait(lambda seen: seen["flag"], timeout=30)
    assert not shared.wait(lambda seen: seen["flag"] == 2, timeout=0)
    writer.result()
    assert medium.share(1).wait(lambda n: n == 1, timeout=0)
