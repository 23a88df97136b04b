"""`SharedDict`: what it does in one process and in several."""

import collections.abc
import gc
import json
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading

import pytest
from support import Child, Wanted, in_child, inside, opened_again, stranger, workers

import mmapshare
from mmapshare import (
    ClosedError,
    EmptyShareError,
    LockTimeout,
    RegionFullError,
    Share,
    SharedDict,
    TransactionError,
    UnpicklableError,
    ViewClosedError,
    shared_state,
)

numpy = Wanted("numpy")
joblib = Wanted("joblib")


@pytest.fixture
def make(kind):
    made = []

    def make(*args, **kwargs):
        made.append(SharedDict(*args, kind=kind, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def often(monkeypatch):
    """New snapshots all the time."""
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), 200)
    monkeypatch.setattr(*inside.at("SPARE_KEYS"), 3)


# --- As a dict --------------------------------------------------------------------------------


def test_it_is_made_as_a_dict_is(make):
    assert make() == {}
    assert make({"a": 1}, b=2) == {"a": 1, "b": 2}
    assert make([("a", 1)]) == {"a": 1}
    assert SharedDict.fromkeys([1, 2]) == {1: None, 2: None}
    for wrong in (5, ["a"]):
        with pytest.raises((TypeError, ValueError)):
            make(wrong)
    with pytest.raises(TypeError):
        make({}, {})


def test_order_is_a_dicts_in_every_process(make, often):
    shared, plain = make(), {}
    for do in [
        lambda d: d.update(a=1, b=2, c=3),
        lambda d: d.pop("a"),
        lambda d: d.__setitem__("b", 5),
        lambda d: d.__setitem__("a", 6),
        lambda d: d.setdefault("z", 0),
        lambda d: d.__delitem__("b"),
        lambda d: d.update(b=7, c=8),
        lambda d: d.popitem(),
    ]:
        do(shared)
        do(plain)
        assert list(shared.items()) == list(plain.items())
        assert list(reversed(shared)) == list(reversed(plain))
        assert in_child(lambda: list(shared.items())) == list(plain.items())
    stranger([shared], f"assert list(shares[0].items()) == {list(plain.items())!r}")


def test_equal_keys_of_different_types_are_one_as_in_a_dict(make):
    shared = make({1: "int"})
    shared[1.0] = "float"
    shared[True] = "bool"
    assert list(shared.items()) == [(1, "bool")]
    assert type(next(iter(shared))) is int
    assert in_child(lambda: shared[1.0]) == "bool"
    with shared.locked() as view:
        del view[True]
        view[1.0] = "new"
    assert type(next(iter(shared))) is float


def test_any_hashable_that_pickles_is_a_key(make):
    keys = ["s", 1, 2.5, None, (1, ("a",)), frozenset({1}), b"b", len, int, "ü", "", 10**30]
    shared = make(dict.fromkeys(keys, 1))
    assert list(shared) == keys
    assert in_child(lambda: list(shared) == keys)
    with pytest.raises(TypeError, match="unhashable"):
        shared[[]] = 1
    with pytest.raises(UnpicklableError, match="lock"):
        shared[threading.Lock()] = 1
    assert list(shared) == keys


def test_arithmetic_of_dicts_gives_plain_dicts(make):
    shared = make(a=1)
    for result in (shared | {"b": 2}, {"b": 2} | shared, shared.copy()):
        assert type(result) is dict
    assert shared | {"a": 2} == {"a": 2}
    assert {"a": 2} | shared == {"a": 1}
    same = shared
    shared |= {"c": 3}
    assert shared is same
    assert shared == {"a": 1, "c": 3}
    assert shared != {"a": 1}
    assert shared != 5
    with pytest.raises(TypeError):
        shared | 5
    with pytest.raises(TypeError, match="unhashable"):
        hash(shared)


def test_views_and_snapshots_are_of_one_version(make):
    shared = make(a=1, b=[2])
    keys, values, items, snapshot = (
        shared.keys(),
        shared.values(),
        shared.items(),
        shared.snapshot(),
    )
    shared["a"] = 5
    shared["c"] = 6
    assert keys == {"a", "b"}
    assert list(values) == [1, [2]]
    assert list(items) == [("a", 1), ("b", [2])]
    assert dict(snapshot) == {"a": 1, "b": [2]}
    snapshot["b"].append(3)
    assert snapshot["b"] == [2]
    assert isinstance(snapshot, collections.abc.Mapping)
    assert "c" not in snapshot
    assert len(snapshot) == 2
    assert snapshot.version + 2 == shared.version
    with pytest.raises(TypeError):
        snapshot["a"] = 1


def test_what_is_read_is_a_private_copy(make):
    shared = make(jobs=[])
    shared["jobs"].append(1)
    shared.setdefault("jobs", None).append(2)
    assert shared["jobs"] == []


def test_a_missing_key_is_a_keyerror_that_changes_nothing(make):
    shared = make(a=1)
    for wrong in (
        lambda: shared["b"],
        lambda: shared.pop("b"),
        lambda: shared.__delitem__("b"),
        lambda: make().popitem(),
    ):
        with pytest.raises(KeyError):
            wrong()
    assert shared.pop("b", 5) == 5
    assert shared.get("b") is None
    assert shared.get("b", 3) == 3
    assert shared.version == 1
    assert not inside.claim_of(shared)


# --- Blocks -----------------------------------------------------------------------------------


def test_a_block_commits_all_its_keys_and_changes_within_values_together(make):
    shared = make(jobs=[], tree={"a": {"b": 0}}, n=1)
    version = shared.version
    with shared.locked() as view:
        view["jobs"].append(1)
        view["tree"]["a"]["b"] = 1
        view["n"] += 1
        view["new"] = {1}
        view["new"].add(2)
        assert in_child(shared.copy) == {"jobs": [], "tree": {"a": {"b": 0}}, "n": 1}
        assert shared["n"] == 1
    assert shared == {"jobs": [1], "tree": {"a": {"b": 1}}, "n": 2, "new": {1, 2}}
    assert shared.version == version + 1


def test_the_view_is_a_mutable_mapping(make):
    with make(a=1, b=2).locked() as view:
        assert isinstance(view, collections.abc.MutableMapping)
        assert isinstance(view.value, collections.abc.MutableMapping)
        assert (len(view), list(view), "a" in view, view.get("z", 9)) == (2, ["a", "b"], True, 9)
        del view["a"]
        view["c"] = 3
        view["a"] = 4
        assert list(view.items()) == [("b", 2), ("c", 3), ("a", 4)]
        assert list(reversed(view.value)) == ["a", "c", "b"]
        assert view.popitem() == ("a", 4)
        assert view.popitem() == ("c", 3)
        assert view.popitem() == ("b", 2)
        with pytest.raises(KeyError):
            view.popitem()
        assert not view
        view |= {"x": 1}
        assert view == {"x": 1}
        assert view | {"y": 2} == {"x": 1, "y": 2}
        assert {"y": 2} | view == {"y": 2, "x": 1}
        assert repr(view) == "<View of version 1: {'x': 1}>"
        assert view.copy() == {"x": 1}
        with pytest.raises(TypeError, match="arithmetic"):
            view + {}
        view.clear()
        with pytest.raises(KeyError):
            view["b"]
        with pytest.raises(KeyError):
            del view["b"]
    assert repr(view) == "<View, closed>"


def test_assigning_the_views_value_replaces_everything(make):
    shared = make(a=1, b=2, c=3)
    with shared.locked() as view:
        view.value = {"b": 5, "d": 6}
        assert view == {"b": 5, "d": 6}
        with pytest.raises(TypeError, match="mapping, not int"):
            view.value = 5
        view.value = view.value
    assert shared == {"b": 5, "d": 6}


def test_only_what_was_changed_is_written(make):
    shared = make({"array": numpy.zeros(100_000), "big": "x" * 100_000, "n": 0})
    before = shared.info().used_bytes
    with shared.locked() as view:
        assert view["array"].sum() == 0
        assert len(view["big"]) == 100_000
        view["n"] = 1
    assert shared.info().used_bytes - before < 200
    version = shared.version
    with shared.locked() as view:
        assert list(view.values())[2] == 1
        view["n"] = 1
        view["big"] = "x" * 100_000
        view["array"] = numpy.zeros(100_000)
    assert shared.version == version


def test_a_set_that_lists_its_members_in_another_order_is_unchanged(make):
    """A set that is built again from what was stored may do so."""
    shared = make({n: {f"{n} {m}" for m in range(40)} for n in range(20)})
    version = shared.version
    with shared.locked() as view:
        for key in view:
            assert len(view[key]) == 40
    assert shared.version == version


def test_a_read_that_another_thread_overtakes_is_not_older_than_its_begin(make):
    """Between the look at the index and the look at the version another thread caught up."""
    shared = make(a=1)
    assert shared["a"] == 1
    in_child(shared.update, {"a": 2})
    caught_up = []

    def trace(frame, event, arg):
        if frame.f_code.co_name != "__getitem__":
            return None
        if event == "line" and "raw" in frame.f_locals and not caught_up:
            caught_up.append(True)
            thread = threading.Thread(target=len, args=(shared,))
            thread.start()
            thread.join()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = shared["a"]
    finally:
        sys.settrace(before)
    assert caught_up
    assert found == 2


def test_an_exception_or_a_rollback_drops_all(make):
    shared = make(a=[1])
    with pytest.raises(ZeroDivisionError), shared.locked() as view:
        view["a"].append(2)
        view["b"] = 1
        raise ZeroDivisionError
    with shared.locked() as view:
        view["a"].append(2)
        del view["a"]
        view.rollback()
        assert view == {"a": [1]}
        view["c"] = 3
    assert shared == {"a": [1], "c": 3}


def test_what_cannot_be_pickled_is_named_with_its_key_and_nothing_is_changed(make):
    shared = make(a=1)
    with pytest.raises(UnpicklableError, match=r"value\['model'\]\['guard'\]") as caught:
        with shared.locked() as view:
            view["a"] = 2
            view["model"] = {"guard": threading.Lock()}
    assert caught.value.path == "value['model']['guard']"
    assert shared == {"a": 1}


def test_nested_blocks_join_and_a_failed_inner_one_fails_the_outer(make):
    shared = make(a=1)
    with shared.locked() as outer, shared.locked() as inner:
        assert inner is outer
        inner["a"] = 2
    assert shared["a"] == 2
    with pytest.raises(TransactionError, match="inner block"), shared.locked() as outer:
        outer["a"] = 3
        with pytest.raises(KeyError), shared.locked():
            raise KeyError
    assert shared["a"] == 2


def test_changes_inside_ones_own_block_are_refused_and_the_block_goes_on(make):
    shared = make(a=1)
    with shared.locked() as view:
        for change in (
            lambda: shared.update(a=2),
            lambda: shared.__setitem__("a", 2),
            shared.clear,
            shared.popitem,
        ):
            with pytest.raises(TransactionError, match="view"):
                change()
        view["a"] = 5
    assert shared["a"] == 5


def test_between_lock_and_unlock_changes_commit_at_once(make):
    shared = make(a=1)
    shared.lock()
    shared["a"] = 2
    assert in_child(lambda: shared["a"]) == 2
    with pytest.raises(LockTimeout):
        in_child(lambda: shared.lock(timeout=0))
    with shared.locked() as view:
        view["a"] += 1
    shared.unlock()
    assert shared["a"] == 3


def test_locks_time_out_and_views_close(make):
    shared = make(a=1, timeout=0)

    def hold(child):
        with shared.locked():
            child.say()
            child.hear()

    child = Child(hold)
    child.hear()
    for change in (lambda: shared.update(a=1), lambda: shared.locked().__enter__()):
        with pytest.raises(LockTimeout, match=str(child.pid)):
            change()
    assert shared["a"] == 1
    child.say()
    child.wait()
    with shared.locked() as view:
        pass
    for use in (lambda: view["a"], lambda: view.value, lambda: len(view), view.__repr__):
        if use != view.__repr__:
            with pytest.raises(ViewClosedError):
                use()


def test_an_empty_one_is_a_dict_like_any(make):
    shared = make()
    assert (len(shared), list(shared), shared.version) == (0, [], 0)
    with pytest.raises(KeyError):
        shared["a"]
    with shared.locked() as view:
        assert len(view) == 0
    assert shared.version == 0
    assert not issubclass(KeyError, EmptyShareError)


# --- Values and sizes -------------------------------------------------------------------------


def test_values_are_whatever_a_share_takes(make):
    class Local:
        n = 3

    by = 5
    shared = make(f=lambda x: x + by, cls=Local, obj=Local(), array=numpy.arange(5000), none=None)
    assert shared["f"](1) == 6
    assert shared["obj"].n == 3
    assert shared["array"].sum() == 5000 * 4999 // 2
    assert shared["none"] is None
    array = shared["array"]
    array[0] = 99
    assert shared["array"][0] == 0
    assert in_child(lambda: shared["f"](2)) == 7


def test_arrays_of_many_frames_keep_through_snapshots_and_deltas(make, often):
    shared = make()
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


def test_a_full_one_refuses_more_and_shrinks(make):
    shared = make(max_size="1M", a=b"x" * 900_000)
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


def test_memory_is_given_back(make):
    shared = make(dict.fromkeys(range(20000), b"x" * 1000))
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


# --- Processes --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_it_reaches_children_by_every_start_method(method, make):
    shared = make(n=0)
    with multiprocessing.get_context(method).Pool(2) as pool:
        pool.starmap(workers.add_to_key, [(shared, "n")] * 10)
        pool.starmap(workers.add_to_key, [(shared, k) for k in range(4)] * 3)
        pool.close()
        pool.join()
    assert shared == {"n": 10, 0: 3, 1: 3, 2: 3, 3: 3}


def test_joblib_and_a_share_carry_it(make):
    shared = make(n=0)
    joblib.Parallel(n_jobs=2)(joblib.delayed(workers.add_to_key)(shared, "n") for _ in range(6))
    outer = Share({"d": shared})
    assert outer.get()["d"] is shared
    assert pickle.loads(pickle.dumps(shared)) is shared
    assert shared["n"] == 6


def test_a_stranger_reads_and_writes_it(make, often):
    shared = make({str(n): n for n in range(100)})
    stranger([shared], "d = shares[0]; assert d['7'] == 7; d['7'] = 8; del d['8']; d['new'] = 1")
    assert (shared["7"], "8" in shared, shared["new"], len(shared)) == (8, False, 1, 100)


def test_a_process_that_slept_through_many_snapshots_finds_its_way(make, often):
    shared = make(a=0)

    def sleep(child):
        before = shared.snapshot()
        child.say()
        child.hear()
        return shared["a"], before["a"], shared.copy(), inside.index_of(shared).state.version

    child = Child(sleep)
    child.hear()
    for n in range(300):
        shared["a"] = n
    child.say()
    assert child.result() == (299, 0, {"a": 299}, shared.version)


def test_processes_and_threads_add_up_exactly(make, often):
    shared = make({"all": 0})

    def add(me, times):
        for _ in range(times):
            with shared.locked() as view:
                view["all"] += 1
                view[me] = view.get(me, 0) + 1

    def run_threads(child):
        threads = [threading.Thread(target=add, args=(f"{child}{n}", 25)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    children = [Child(lambda child, n=n: run_threads(n)) for n in range(3)]
    run_threads("parent")
    for child in children:
        child.result()
    assert shared["all"] == 200
    assert all(shared[key] == 25 for key in shared if key != "all")
    assert len(shared) == 9


def test_readers_in_threads_beside_a_writing_thread_see_one_version(make, often):
    shared = make(dict.fromkeys(range(30), 0))
    wrong, stop = [], threading.Event()

    def read():
        last = 0
        while not stop.is_set():
            values = set(shared.values())
            if len(values) != 1 or len(shared) != 30 or list(shared) != list(range(30)):
                wrong.append(values)
            one = shared[7]
            if one < last:
                wrong.append((one, last))
            last = one

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(1, 300):
        shared.update(dict.fromkeys(range(30), n))
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_readers_across_a_thousand_snapshots_see_no_wrong_value(often):
    shared = SharedDict({n: (n, 0) for n in range(10)})

    def read(child):
        wrong = reads = last = 0
        runs = set()
        child.say()
        while True:
            key = reads % 10
            found, n = shared[key]
            if found != key or n < last - 10:
                wrong += 1
            if reads % 7 == 0:
                ns = {n for _, n in shared.values()}
                if max(ns) - min(ns) > 1 or len(ns) > 2:
                    wrong += 1
            runs.add(inside.index_of(shared).state.position[1])
            last = max(last, n)
            reads += 1
            if last >= 3000:
                return wrong, reads, len(runs)

    children = [Child(read) for _ in range(2)]
    for child in children:
        child.hear()
    snapshots = set()
    for n in range(1, 3001):
        shared.update({key: (key, n) for key in range(10)})
        snapshots.add(inside.index_of(shared).state.position[1])
    assert len(snapshots) > 1000
    for child in children:
        wrong, reads, runs = child.result()
        assert wrong == 0
        assert runs > 1


def test_a_forked_child_inherits_the_index_and_goes_on(make):
    shared = make({n: n for n in range(1000)})
    before = inside.index_of(shared).state

    def work():
        assert inside.index_of(shared).state is before
        shared["child"] = 1
        return shared[999]

    assert in_child(work) == 999
    assert shared["child"] == 1
    assert inside.index_of(shared).state is before


def test_a_fork_beside_threads_that_read_and_write_hangs_nobody(make, often):
    shared = make(n=0)
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            shared["n"] += 1
            shared.snapshot()

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for n in range(30):
            assert in_child(
                lambda n=n: (shared.update({n: n}), shared[n], len(shared) > n)[1:]
            ) == (
                n,
                True,
            )
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(range(30)) < set(shared)


def test_an_index_that_was_interrupted_while_it_changed_is_made_anew(make):
    shared = make(a=1, b=2)

    class Interrupting(str):
        armed = False

        def __eq__(self, other):
            if Interrupting.armed:
                Interrupting.armed = False
                raise KeyboardInterrupt
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    inside.index_of(shared).state.changing = True
    assert shared["a"] == 1
    assert list(shared) == ["a", "b"]
    assert inside.index_of(shared).state.changing is False
    in_child(shared.update, {"a": 5, "c": 6})
    inside.index_of(shared).state.changing = True
    in_child(shared.update, {"a": 7})
    shared["d"] = 1
    assert shared == {"a": 7, "b": 2, "c": 6, "d": 1}


def test_close_and_repr(make):
    shared = make(a=1)
    assert repr(shared) == "{'a': 1}"
    assert json.dumps(shared.copy()) == '{"a": 1}'
    with shared.locked(), pytest.raises(TransactionError):
        shared.close()
    shared.close()
    shared.close()
    assert shared.closed
    for use in (lambda: shared["a"], lambda: shared.update(a=1), lambda: len(shared)):
        with pytest.raises(ClosedError):
            use()
    assert "closed" in repr(shared)


def test_a_dropped_one_closes_by_itself():
    shared = SharedDict(a=1)
    fd = inside.segment_of(shared).fd
    os.fstat(fd)
    del shared
    gc.collect()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_info_and_version(make):
    shared = make(a=1)
    shared["b"] = 2
    info = shared.info()
    assert (info.version, info.commits, info.holder_pid) == (2, 2, None)
    assert 0 < info.used_bytes < info.resident_bytes


def test_shared_state_works_on_one(make):
    shared = make(calls=0)

    @shared_state(share=shared)
    def tally(state, n):
        state["calls"] += n
        return state["calls"]

    assert tally(2) == 2
    assert in_child(tally, 3) == 5
    assert shared["calls"] == 5
    assert tally.share is shared
    with pytest.raises(TypeError, match=r"tally\.share"):
        tally.reset()


def test_the_next_holder_logs_who_died_holding_the_lock(make, caplog):
    shared = make(a=1)

    def hold(child):
        with shared.locked() as view:
            view["a"] = 2
            child.say()
            signal.pause()

    child = Child(hold)
    child.hear()
    child.kill()
    with caplog.at_level(logging.WARNING, logger="mmapshare"):
        shared["b"] = 2
    assert str(child.pid) in caplog.text
    assert shared == {"a": 1, "b": 2}


def test_a_share_inside_lives_as_long_as_its_key(make):
    shared = make()
    shared["inner"] = Share(5)
    assert in_child(lambda: shared["inner"].get()) == 5
    shared["other"] = 1
    assert shared["inner"].get() == 5
    with shared.locked() as view:
        view["inner"].set(6)
    assert shared["inner"].get() == 6
    del shared["inner"]
    assert not inside.kept_of(shared)


def test_wrong_options_say_what_is_right():
    for options, error in (
        ({"kind": "disk"}, ValueError),
        ({"max_size": -1}, ValueError),
        ({"timeout": "soon"}, TypeError),
    ):
        with pytest.raises(error):
            SharedDict(**options)
    assert mmapshare.SharedDict({"timeout": 3})["timeout"] == 3


# --- What fresh eyes found ---------------------------------------------------------------------


def test_a_draft_of_elsewhere_is_a_mapping_like_any_and_a_dead_one_is_dead(make):
    """Its positions were taken for this dict's, and a region was lost for good."""
    first, second = make(a=1), make(b=2)
    with first.locked() as one, second.locked() as other:
        one["new"] = [1]
        other.value = one.value
        assert list(other) == ["a", "new"]
    assert second == {"a": 1, "new": [1]} == first
    with first.locked() as view:
        saved, items = view.value, view.items()
    with first.locked() as view:
        with pytest.raises(ViewClosedError):
            view.value = saved
        view.value = dict(view)
    for use in (
        lambda: saved.update(lost=1),
        lambda: list(items),
        lambda: saved["a"],
        lambda: len(saved),
    ):
        with pytest.raises(ViewClosedError):
            use()
    with first.locked() as view:
        before = view.value
        view.rollback()
        before["kept"] = 1
        assert view["kept"] == 1
        assert pickle.loads(pickle.dumps(before)) == {"a": 1, "new": [1], "kept": 1}


def test_a_replaced_value_has_its_own_order(make):
    shared = make(a=1, b=2)
    with shared.locked() as view:
        view.value = {"b": 1, "new": 2, "a": 3}
    assert list(shared) == ["b", "new", "a"]
    version = shared.version
    with shared.locked() as view:
        view.value = {"b": 1, "new": 2, "a": 3}
    assert shared.version == version


def test_a_value_that_is_deleted_and_set_again_counts_once(make):
    """Its old size was taken off twice, and far more than the ceiling went in."""
    shared = make(max_size="1M", k=b"x" * 600_000)
    with pytest.raises(RegionFullError), shared.locked() as view:
        del view["k"]
        view["k"] = b"y" * 1_500_000
    shared["small"] = 1
    assert shared.keys() == {"k", "small"}


def test_a_signal_handler_may_read_and_write_in_the_middle_of_a_read(make, often):
    """It took the index further than what it interrupted had seen, which then went back."""
    shared = make({n: n for n in range(50)})
    stop = []

    def write(child):
        child.say()
        n = 0
        while os.getppid() != 1:
            n += 1
            shared[n % 50] = n
            if n % 7 == 0:
                shared.pop(n % 50)

    def handler(*_):
        stop.append(len(shared.copy()))
        if len(stop) % 5 == 0:
            shared["mine"] = len(stop)
        # Only now: one that comes in the middle of this would find this one's block.
        signal.setitimer(signal.ITIMER_REAL, 0.002)

    child = Child(write)
    child.hear()
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    try:
        while len(stop) < 100:
            assert list(shared.copy()) is not None
            try:
                len(shared)
                shared.get(3)
                dict(shared.items())
            except mmapshare.DeadlockError:
                pass
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        child.kill()
    assert list(shared) == in_child(_fresh_keys, shared)


def _fresh_keys(shared):
    """The order of the keys for who reads everything anew."""
    return list(opened_again(shared))


def test_keys_that_nobody_could_find_again_are_refused(make):
    """One that loads as something unhashable kept every other process from reading anything."""

    class Unhashable:
        def __reduce__(self):
            return list, ()

    class Changing:
        def __reduce__(self):
            return object, ()

    class Refusing:
        def __reduce__(self):
            return int, ("x",)

    shared = make(a=1)
    for key in (Unhashable(), Changing(), Refusing(), object(), float("nan")):
        for change in (
            lambda k=key: shared.update({k: 1}),
            lambda k=key: shared.update({k: 1, 2: 2}),
        ):
            with pytest.raises(UnpicklableError, match="key"):
                change()
    assert in_child(shared.copy) == {"a": 1}


def test_another_shared_dict_is_taken_at_one_version(make):
    first, second = make(a=1), make(b=2)
    assert first | second == {"a": 1, "b": 2}
    assert second | first == {"b": 2, "a": 1}
    first |= second
    second.update(first)
    assert first == second
    with first.locked() as view:
        view.update(make(c=3))
        view |= make(d=4)
        assert view.pop("c") == 3
        view.value = second
    assert first == second
    assert make(first) == second
    assert list(reversed(first.keys())) == ["a", "b"]
    assert list(reversed(first.items())) == [("a", 1), ("b", 2)]
    assert list(reversed(first.values())) == [1, 2]


def test_taking_many_items_from_the_end_is_not_quadratic(make):
    shared, plain = make({n: n for n in range(3000)}), {n: n for n in range(3000)}
    with shared.locked() as view:
        for n in range(3000):
            if n % 5 == 0:
                view[f"new {n}"] = plain[f"new {n}"] = n
                assert len(view) == len(plain)
            if n % 7 == 0:
                assert view.pop(n, None) == plain.pop(n, None)
            assert view.popitem() == plain.popitem()
    assert shared == plain


def test_a_key_with_a_large_buffer_is_refused(make):
    """It would be stored apart from its directory, and nobody could find it."""

    class Blob(bytes):
        def __reduce_ex__(self, protocol):
            return Blob, (pickle.PickleBuffer(self),)

    shared = make(a=1)
    with pytest.raises(UnpicklableError, match="array"):
        shared[Blob(5000)] = 2
    assert shared == {"a": 1}
    shared[Blob(5)] = 2  # As a small one it is a key like any.
    assert shared[Blob(5)] == 2


def test_keys_that_fill_an_area_are_refused(make):
    """The ceiling is for the values; what the keys take besides has its own limit."""
    shared = make(max_size="64K")
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
    make, monkeypatch
):
    """Room is made for all of them before one is published."""
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), 1 << 30)
    shared, log = make(max_size="1M"), Share([])
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


def test_where_no_memory_is_left_for_a_snapshot_a_delta_does(make, often, monkeypatch):
    """A snapshot is written aside and takes as much again; what is added may still find room."""
    shared = make(dict.fromkeys(range(1000), b"x" * 100))
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


def test_memory_of_a_snapshot_whose_writer_was_killed_is_given_back(make, monkeypatch):
    """It had been taken before the kill, and the next one there needs much less."""
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), -(1 << 30))  # Each change is a snapshot.
    shared = make(a=1)

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


def test_a_commit_that_is_made_again_changes_nothing_more(make):
    """A block of several shares that is interrupted while it publishes goes on from there."""
    shared = make(a=1, b=2)
    index = inside.index_of(shared)
    value = (pickle.dumps(3),)
    with shared.locked():
        for _ in range(2):
            index.commit(index.current(), (["a", "none"], [("b", value)], []))
    assert shared == {"b": 3} == in_child(shared.copy)
    assert index.state.live == len(value[0])


def test_a_key_that_writes_while_it_is_compared_takes_the_index_no_further(make, often):
    """The dict is searched at that moment: who searches goes on in what it began with."""

    class Writing:
        def __init__(self, name):
            self.name = name

        def __hash__(self):
            return 1

        def __eq__(self, other):
            if writes:
                writes.pop()()
            return isinstance(other, Writing) and self.name == other.name

    writes = []
    shared = make({Writing("a"): 1, Writing("b"): 2})
    for write in (lambda: shared.update(dict.fromkeys(range(20), b"x" * 200)), shared.clear):
        state, version = inside.index_of(shared).state, shared.version
        writes.append(write)
        assert Writing("b") in shared
        assert not writes
        assert inside.index_of(shared).state is state
        assert shared.version == version + 1
        assert len(shared) == in_child(len, shared)
    assert len(shared) == 0


def test_a_snapshot_says_what_it_is_and_stays_in_its_process(make):
    snapshot = make(a=1, b=2).snapshot()
    assert repr(snapshot) == "<DictSnapshot of version 1: 2 keys>"
    with pytest.raises(TypeError, match=r"dict\(snapshot\)"):
        pickle.dumps(snapshot)
    assert pickle.loads(pickle.dumps(dict(snapshot))) == {"a": 1, "b": 2}


def test_items_taken_from_the_end_are_those_that_were_set_last(make):
    """A stored value that was looked at or replaced keeps its place; the last one goes first."""
    shared = make(a=[1], b=[2])
    with shared.locked() as view:
        view["c"] = [3]
        view["a"].append(1)
        view["b"] = [4]
        taken = [view.popitem() for _ in range(3)]
        with pytest.raises(KeyError):
            view.popitem()
    assert taken == [("c", [3]), ("b", [4]), ("a", [1, 1])]
    assert shared == {}


def test_the_views_value_takes_more_with_an_operator(make):
    shared = make(a=1, b=2)
    with shared.locked() as view:
        view.value |= {"b": 3, "c": 4}
    assert list(shared.items()) == [("a", 1), ("b", 3), ("c", 4)]


def test_a_change_in_the_middle_of_ones_own_read_is_caught_up_with_afterwards():
    """As a finaliser or a signal handler does it; what is being read does not change."""
    shared = SharedDict(a=1)
    index = inside.index_of(shared)

    def look(state):
        before = state.places["a"]
        shared["a"] = 2
        return state.places["a"] == before

    assert index.read(look)
    assert shared["a"] == 2
    assert in_child(shared.get, "a") == 2
