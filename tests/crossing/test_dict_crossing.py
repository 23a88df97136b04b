"""`SharedDict` in several processes and threads, and beside forks and signals."""

import logging
import multiprocessing
import os
import pickle
import signal
import threading

import pytest
from support import Child, Wanted, in_child, inside, opened_again, stranger, workers

import mmapshare
from mmapshare import (
    Share,
    SharedDict,
)

joblib = Wanted("joblib")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_it_reaches_children_by_every_start_method(method, make_dict):
    shared = make_dict(n=0)
    with multiprocessing.get_context(method).Pool(2) as pool:
        pool.starmap(workers.add_to_key, [(shared, "n")] * 10)
        pool.starmap(workers.add_to_key, [(shared, k) for k in range(4)] * 3)
        pool.close()
        pool.join()
    assert shared == {"n": 10, 0: 3, 1: 3, 2: 3, 3: 3}


def test_joblib_and_a_share_carry_it(make_dict):
    shared = make_dict(n=0)
    joblib.Parallel(n_jobs=2)(joblib.delayed(workers.add_to_key)(shared, "n") for _ in range(6))
    outer = Share({"d": shared})
    assert outer.get()["d"] is shared
    assert pickle.loads(pickle.dumps(shared)) is shared
    assert shared["n"] == 6


def test_a_stranger_reads_and_writes_it(make_dict, often):
    shared = make_dict({str(n): n for n in range(100)})
    stranger([shared], "d = shares[0]; assert d['7'] == 7; d['7'] = 8; del d['8']; d['new'] = 1")
    assert (shared["7"], "8" in shared, shared["new"], len(shared)) == (8, False, 1, 100)


def test_a_process_that_slept_through_many_snapshots_finds_its_way(make_dict, often):
    shared = make_dict(a=0)

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


def test_processes_and_threads_add_up_exactly(make_dict, often):
    shared = make_dict({"all": 0})

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


def test_readers_in_threads_beside_a_writing_thread_see_one_version(make_dict, often):
    shared = make_dict(dict.fromkeys(range(30), 0))
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


def test_a_forked_child_inherits_the_index_and_goes_on(make_dict):
    shared = make_dict({n: n for n in range(1000)})
    before = inside.index_of(shared).state

    def work():
        assert inside.index_of(shared).state is before
        shared["child"] = 1
        return shared[999]

    assert in_child(work) == 999
    assert shared["child"] == 1
    assert inside.index_of(shared).state is before


@pytest.mark.forks_beside_threads
def test_a_fork_beside_threads_that_read_and_write_hangs_nobody(make_dict, often):
    shared = make_dict(n=0)
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


def test_an_index_that_was_interrupted_while_it_changed_is_made_anew(make_dict):
    shared = make_dict(a=1, b=2)

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


def test_the_next_holder_logs_who_died_holding_the_lock(make_dict, caplog):
    shared = make_dict(a=1)

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


@pytest.mark.skipif(not inside.ORDERED_STORES, reason="a read has the lock here")
def test_a_signal_handler_may_read_and_write_in_the_middle_of_a_read(make_dict, often):
    """It took the index further than what it interrupted had seen, which then went back."""
    shared = make_dict({n: n for n in range(50)})
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


def test_a_key_that_writes_while_it_is_compared_takes_the_index_no_further(
    make_dict, often, ordered
):
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
    shared = make_dict({Writing("a"): 1, Writing("b"): 2})
    for write in (lambda: shared.update(dict.fromkeys(range(20), b"x" * 200)), shared.clear):
        state, version = inside.index_of(shared).state, shared.version
        writes.append(write)
        assert Writing("b") in shared
        assert not writes
        assert inside.index_of(shared).state is state
        assert shared.version == version + 1
        assert len(shared) == in_child(len, shared)
    assert len(shared) == 0


def test_a_change_in_the_middle_of_ones_own_read_is_caught_up_with_afterwards(ordered):
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
