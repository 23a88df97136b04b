"""Handles to what cannot be reached: loading them raises nothing, the first use says why."""

import asyncio
import concurrent.futures
import copy
import errno
import multiprocessing
import os
import pickle
import threading

import pytest
from support import (
    in_child,
    inside,
    no_more_descriptors,
    open_fds,
    workers,
)
from support.children import of_the_dead

import mmapshare
from mmapshare import ClosedError, HandleError, Share, SharedDict

NOT_HERE = "cannot be opened here"


def _dead_share():
    return Share(1)


def _dead_file():
    return Share(1, kind="file")


def _dead_dict():
    return SharedDict(a=1)


def test_a_result_whose_worker_has_ended_does_not_hang_its_pool():
    """A worker made a share and returned it, and had ended when the pool's own thread loaded it:
    that raised there, and the pool hung for ever."""
    raw = of_the_dead(_dead_share)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        absent = pool.apply_async(workers.give_what_loads_as, (raw,)).get(timeout=10)
        with pytest.raises(HandleError, match=NOT_HERE):
            absent.get()
        assert pool.apply_async(os.getpid).get(timeout=10) != os.getpid()
        pool.close()
        pool.join()


def test_a_result_whose_worker_has_ended_does_not_break_its_executor():
    raw = of_the_dead(_dead_dict)
    with concurrent.futures.ProcessPoolExecutor(1) as executor:
        absent = executor.submit(workers.give_what_loads_as, raw).result(timeout=10)
        assert repr(absent) == "<SharedDict, unreachable>"
        assert executor.submit(int, "3").result(timeout=10) == 3


USES = {
    Share: {
        "get": lambda share: share.get(),
        "set": lambda share: share.set(2),
        "set if": lambda share: share.set(2, if_version=1),
        "locked": lambda share: share.locked().__enter__(),
        "async locked": lambda share: asyncio.run(share.locked().__aenter__()),
        "locked together": lambda share: mmapshare.locked(share).__enter__(),
        "lock": lambda share: share.lock(),
        "unlock": lambda share: share.unlock(),
        "update": lambda share: share.update(int.__add__, 1),
        "update optimistic": lambda share: share.update(int.__add__, 1, optimistic=True),
        "wait": lambda share: share.wait(timeout=0),
        "wait for": lambda share: share.wait(bool, timeout=0),
        "wait_async": lambda share: asyncio.run(share.wait_async(timeout=0)),
        "changes": lambda share: list(share.changes(timeout=0)),
        "watch": lambda share: share.watch(timeout=0),
        "info": lambda share: share.info(),
        "version": lambda share: share.version,
        "snapshot": lambda share: share.snapshot(),
    },
    SharedDict: {
        "get": lambda shared: shared.get("a"),
        "item": lambda shared: shared["a"],
        "set item": lambda shared: shared.update(a=1),
        "in": lambda shared: "a" in shared,
        "len": lambda shared: len(shared),
        "bool": lambda shared: bool(shared),
        "iter": lambda shared: iter(shared),
        "reversed": lambda shared: reversed(shared),
        "keys": lambda shared: shared.keys(),
        "values": lambda shared: shared.values(),
        "items": lambda shared: shared.items(),
        "copy": lambda shared: shared.copy(),
        "==": lambda shared: shared == {},
        "|": lambda shared: shared | {},
        "pop": lambda shared: shared.pop("a"),
        "popitem": lambda shared: shared.popitem(),
        "setdefault": lambda shared: shared.setdefault("a"),
        "clear": lambda shared: shared.clear(),
        "transact": lambda shared: shared.transact(dict.get, "a"),
        "locked": lambda shared: shared.locked().__enter__(),
        "wait for": lambda shared: shared.wait(bool, timeout=0),
        "snapshot": lambda shared: shared.snapshot(),
        "info": lambda shared: shared.info(),
        "version": lambda shared: shared.version,
    },
}


@pytest.mark.parametrize("make", [_dead_share, _dead_file, _dead_dict])
def test_an_absent_share_says_at_each_use_that_it_cannot_be_reached(make):
    """It was the loading that raised, of everything in which the handle stood."""
    before = open_fds()
    absent, other = pickle.loads(of_the_dead(lambda: (make(), 5)))
    assert other == 5
    for name, use in USES[type(absent)].items():
        with pytest.raises(HandleError, match=r"gone"):
            use(absent)
            raise AssertionError(name)
    assert not absent.closed
    assert repr(absent) == f"<{type(absent).__name__}, unreachable>"
    assert "gone" in absent._repr_mimebundle_()["text/plain"]
    assert absent not in inside.open_shares()
    absent.close()
    absent.close()
    assert absent.closed
    assert repr(absent) == f"<{type(absent).__name__}, closed>"
    with pytest.raises(ClosedError):
        len(absent) if isinstance(absent, SharedDict) else absent.get()
    assert open_fds() == before


def test_functions_and_instances_say_it_too():
    counter, add, count, share = pickle.loads(
        in_child(lambda: pickle.dumps([*_made_anew(), workers.count.share]))
    )
    for use in (
        counter.add,
        lambda: counter.n,
        lambda: len(counter),
        lambda: counter.share.get(),
        add,
        count,
        count.reset,
        share.get,
    ):
        with pytest.raises(HandleError, match="gone"):
            use()
    assert repr(counter) == "<Counter on <Share, unreachable>>"
    assert "unreachable" in repr(count)
    assert "unreachable" in count._repr_mimebundle_()["text/plain"]
    counter.share.close()
    assert repr(counter) == "<Counter on <Share, closed>>"
    assert repr(workers.Counter(3)) == "Counter(3)"


def _made_anew():
    """A shared class's instance, its method and a function whose regions this process made."""
    inside.share_of.set(workers.count, Share(0))
    return workers.Counter(3), workers.Counter(3).add, workers.count


def test_an_absent_share_is_one_object_and_is_pickled_as_what_it_came_from():
    raw = of_the_dead(_dead_share)
    absent = pickle.loads(raw)
    assert pickle.loads(raw) is absent
    assert pickle.loads(pickle.dumps(absent)) is absent
    assert copy.copy(absent) is absent
    assert copy.deepcopy([absent])[0] is absent
    assert in_child(lambda: repr(pickle.loads(raw))) == "<Share, unreachable>"
    absent.close()
    again = pickle.loads(raw)
    assert again is not absent
    assert not again.closed
    again.close()


def test_what_could_not_be_reached_here_is_reached_where_its_handle_goes_next(kind):
    share = Share(1, kind=kind)
    raw = pickle.dumps(share)

    def pass_on():
        inside.open_here.clear()
        with no_more_descriptors():
            return pickle.dumps({"passed on": pickle.loads(raw)})

    again = in_child(pass_on)
    assert pickle.loads(again)["passed on"] is share

    def look():
        inside.open_here.clear()
        return pickle.loads(again)["passed on"].get()

    assert in_child(look) == 1
    share.close()


def test_a_share_that_came_without_descriptors_to_spare_is_opened_at_its_first_use():
    share, shared = Share(1), SharedDict(a=1)
    raw = pickle.dumps((share, shared))

    def load():
        inside.open_here.clear()
        with no_more_descriptors():
            absent, other = pickle.loads(raw)
            with pytest.raises(OSError) as caught:
                absent.set(5)
            assert caught.value.errno == errno.EMFILE
            assert repr(other) == "<SharedDict, unreachable>"
            caught = None
        assert repr(other) == "{'a': 1}"
        with other.locked() as view:
            view["a"] += 1
        absent.set(2)
        assert absent in inside.open_shares()
        assert pickle.loads(pickle.dumps(absent)) is absent
        return absent.get(), other["a"]

    assert in_child(load) == (2, 2)
    assert (share.get(), shared["a"]) == (2, 2)


def test_a_lack_of_descriptors_in_the_middle_of_the_search_is_told_as_that(monkeypatch):
    raw = of_the_dead(_dead_share)

    def listdir(folder):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    absent = pickle.loads(raw)
    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(OSError, match="Too many open files"):
        absent.get()


def test_threads_that_reach_a_share_at_once_have_one_region_of_it(monkeypatch):
    shared = SharedDict(a=0)
    raw = pickle.dumps(shared)
    real, together = inside.open_handle, threading.Barrier(2)

    def slow_open(*args):
        region = real(*args)
        together.wait()
        return region

    def load():
        inside.open_here.clear()
        before = len(open_fds())
        with no_more_descriptors():
            absent = pickle.loads(raw)
        monkeypatch.setattr(*inside.at("open_handle"), slow_open)
        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            add = [threads.submit(workers.add_to_key, absent, "a") for _ in range(2)]
            assert [one.result() for one in add] == [None, None]
        return len(open_fds()) - before

    assert in_child(load) == _descriptors()
    assert shared["a"] == 2


def _descriptors():
    """How many a share takes."""
    before = len(open_fds())
    share = Share(1)
    taken = len(open_fds()) - before
    share.close()
    return taken


def test_a_share_that_another_thread_closes_while_it_is_reached_stays_closed(monkeypatch):
    share = Share(1)
    raw = pickle.dumps(share)
    real = inside.open_handle

    def load():
        inside.open_here.clear()
        before = len(open_fds())
        with no_more_descriptors():
            absent = pickle.loads(raw)

        def open_and_close(*args):
            region = real(*args)
            absent.close()
            return region

        monkeypatch.setattr(*inside.at("open_handle"), open_and_close)
        with pytest.raises(ClosedError):
            absent.get()
        assert absent.closed
        assert len(open_fds()) == before

    in_child(load)


def test_a_signal_handlers_error_while_a_handle_is_loaded_is_not_kept_quiet(monkeypatch):
    raw = of_the_dead(_dead_share)

    def interrupted(*args):
        raise TimeoutError  # As an alarm's handler does: it has no errno.

    monkeypatch.setattr(*inside.at("open_handle"), interrupted)
    with pytest.raises(TimeoutError):
        pickle.loads(raw)
