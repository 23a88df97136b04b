"""The memory of a `SharedDict`: what fills it, what is given back, what a snapshot takes."""

import os
import pickle
import signal

import pytest
from support import Child, Wanted, in_child, inside

import mmapshare
from mmapshare import (
    CorruptRegionError,
    RegionFullError,
    Share,
    SharedDict,
    UnpicklableError,
)

numpy = Wanted("numpy")


def test_arrays_of_many_frames_keep_through_snapshots_and_deltas(make_dict, often):
    shared = make_dict()
    for n in range(20):
        shared[n % 3] = [numpy.full(1000 + n, n), "between", numpy.full(2000, -n)]
        shared["n"] = n
        shared[f"small {n % 2}"] = "x" * n
        with shared.locked() as view:
            view[n % 3].append(n)
            view["two"] = numpy.arange(600 + n)
    for key, n in (0, 18), (1, 19), (2, 17):
        first, word, second, last = shared[key]
        assert (first == n).all() and len(first) == 1000 + n and (second == -n).all()
        assert (word, last) == ("between", n)
    assert shared["two"].tolist() == list(range(619))
    snapshot = shared.snapshot()
    assert snapshot[0][0][0] == 18
    first = snapshot[0][0]
    first[:] = 5
    assert snapshot[0][0][0] == 18


def test_a_full_one_refuses_more_and_shrinks(make_dict):
    shared = make_dict(max_size="1M", a=b"x" * 900_000)
    for change in (
        lambda: shared.update(b=b"y" * 200_000),
        lambda: shared.update(b=b"y" * 100_000, c=b"z" * 100_000),
        lambda: shared.update(a=b"x" * 1_100_000),
    ):
        with pytest.raises(RegionFullError, match="max_size") as caught:
            change()
        assert caught.value.max_size_bytes == 1 << 20
    assert list(shared) == ["a"]
    shared["b"] = b"y" * 100_000
    for _ in range(50):  # Replacing and shrinking always goes.
        shared["a"] = os.urandom(900_000)
    del shared["a"]
    shared["c"] = b"z" * 900_000
    assert len(shared["c"]) == 900_000


def test_memory_is_given_back(make_dict):
    shared = make_dict(dict.fromkeys(range(20000), b"x" * 1000))
    assert shared.info().resident_bytes > 20e6
    with shared.locked() as view:
        for n in range(19_990):
            del view[n]
    assert shared.info().resident_bytes < 2e6
    assert len(shared) == 10
    shared.clear()
    assert in_child(lambda: len(shared)) == 0


def test_a_million_times_the_same_key_takes_no_memory(often):
    shared = SharedDict(dict.fromkeys(range(100), 0))
    for n in range(3000):
        shared["one"] = n
    assert shared.info().resident_bytes < 1 << 20
    assert shared["one"] == 2999
    assert len(shared) == 101


def test_a_key_with_a_large_buffer_is_refused(make_dict):
    """It would be stored apart from its directory, and nobody could find it."""

    class Blob(bytes):
        def __reduce_ex__(self, protocol):
            return Blob, (pickle.PickleBuffer(self),)

    shared = make_dict(a=1)
    with pytest.raises(UnpicklableError, match="array"):
        shared[Blob(5000)] = 2
    assert shared == {"a": 1}
    shared[Blob(5)] = 2  # As a small one it is a key like any.
    assert shared[Blob(5)] == 2


def test_keys_that_fill_an_area_are_refused(make_dict):
    """The ceiling is for the values; what the keys take besides has its own limit."""
    shared = make_dict(max_size="64K")
    key = b"k" * 5_000_000
    for _ in range(2):  # As the first version, and as one more.
        version, before = shared.version, shared.copy()
        for change in (
            lambda: shared.__setitem__(key, 1),
            lambda: shared.update({key: 1, "b": 2}),
            lambda: _set_together(shared, key),
        ):
            with pytest.raises(RegionFullError, match="keys included") as caught:
                change()
            assert caught.value.needed_bytes > 5_000_000
            assert shared.copy() == before == in_child(shared.copy)
        assert shared.version - version <= 1  # Making room may write the same anew.
        shared["a"] = 1
    assert shared["a"] == 1


def _set_together(shared, key):
    with mmapshare.locked(shared) as (view,):
        view[key] = 1


def test_where_what_is_dead_fills_an_area_a_block_of_several_shares_clears_it_first(
    make_dict, monkeypatch
):
    """Room is made for all of them before one is published."""
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), 1 << 30)
    shared, log = make_dict(max_size="1M"), Share([])
    size = 900_000
    for n in range(5, 12):
        shared["a"] = bytes([n]) * size
    version, used_bytes = shared.version, shared.info().used_bytes
    assert used_bytes > 6 * size
    with mmapshare.locked(shared, log) as (view, entries):
        view["a"] = b"a" * size
        entries.append("replaced")
    assert shared.version == version + 2  # One that says the same, and the block's.
    assert shared.info().used_bytes < 3 * size
    assert (shared["a"], log.get()) == (b"a" * size, ["replaced"])
    assert in_child(shared.copy) == {"a": b"a" * size}


def test_where_no_memory_is_left_for_a_snapshot_a_delta_does(make_dict, often, monkeypatch):
    """A snapshot is written aside and takes as much again; what is added may still find room."""
    shared = make_dict(dict.fromkeys(range(1000), b"x" * 100))
    resident_bytes = shared.info().resident_bytes

    def no_memory(fd, start, length):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_memory)
    with shared.locked() as view:
        for n in range(900):
            del view[n]
        view["new"] = 1
    assert list(shared) == [*range(900, 1000), "new"] == in_child(list, shared)
    assert shared.info().resident_bytes == resident_bytes
    with pytest.raises(RegionFullError, match="No space left"):
        shared["large"] = b"y" * 1_000_000
    monkeypatch.undo()
    shared["large"] = b"y" * 1_000_000
    assert len(in_child(shared.get, "large")) == 1_000_000


def test_memory_of_a_snapshot_whose_writer_was_killed_is_given_back(make_dict, monkeypatch):
    """It had been taken before the kill, and the next one there needs much less."""
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), -(1 << 30))  # Each change is a snapshot.
    shared = make_dict(a=1)

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def write(child):
        monkeypatch.setattr(*inside.at("log_put"), die)
        shared["big"] = bytes(20_000_000)

    assert Child(write).wait() == -signal.SIGKILL
    assert shared.info().resident_bytes > 20e6
    shared["a"] = 2
    assert shared.info().resident_bytes < 2e6
    assert shared == {"a": 2} == in_child(shared.copy)


def test_a_commit_that_is_made_again_changes_nothing_more(make_dict):
    """A block of several shares that is interrupted while it publishes goes on from there."""
    shared = make_dict(a=1, b=2)
    index = inside.index_of(shared)
    value = (pickle.dumps(3),)
    with shared.locked():
        for _ in range(2):
            index.commit((["a", "none"], [("b", value)], {}))
    assert shared == {"b": 3} == in_child(shared.copy)
    assert index.state.live == len(value[0])


def test_a_value_that_is_large_for_a_piece_is_added_all_the_same(make_dict, monkeypatch):
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), 1 << 30)
    shared = make_dict(a=1)
    shared["b"] = bytes(300_000)
    assert (shared["a"], len(shared["b"]), shared.version) == (1, 300_000, 2)


def test_who_commits_catches_up_first(make_dict):
    """Who was interrupted in the middle of using what this process knows is behind with it."""
    shared = make_dict(a=1)
    store = inside.store_of(shared)
    with shared.locked() as view:
        view["a"] = 2
        store.state = inside.fresh_state(store)
    assert (shared["a"], shared.version) == (2, 2)


def test_the_holders_read_of_a_damaged_header_ends(make_dict):
    """It tried to borrow the lock that it had, for ever."""
    shared = make_dict(a=1)
    with pytest.raises(CorruptRegionError, match="OLDEST_READABLE"), shared.locked():
        inside.header_of(shared)[inside.OLDEST_READABLE] = 1 << 40
        list(shared.items())
    inside.header_of(shared)[inside.OLDEST_READABLE] = 0
    assert shared["a"] == 1
