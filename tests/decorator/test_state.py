"""`shared_state` on functions and methods: every form, by every way to another process."""

import logging
import multiprocessing
import pickle
import signal
import subprocess
import sys
import threading

import cloudpickle
import pytest
from support import Child, Wanted, in_child, stateful
from support.stateful import Counter, Shared, countdown, tally, tally_async

from mmapshare import (
    Share,
    ViewClosedError,
    shared_state,
)

joblib = Wanted("joblib")
counter, shared = Counter(), Shared()
# How to call each form, and where its region is.
FORMS = {
    "function": (tally, tally.share),
    "method": (counter.add, Counter.add.share),
    "static outside": (Counter.static_outside, Counter.static_outside.share),
    "static inside": (Counter.static_inside, Counter.static_inside.share),
    "class inside": (Counter.class_inside, Counter.class_inside.share),
    "class outside": (Counter.class_outside, Counter.class_outside.share),
    "shared class": (shared.add, shared.share),
}
FORKED = "fork"


@pytest.fixture(params=FORMS)
def form(request):
    function, share = FORMS[request.param]
    share.set({"calls": 0})
    return function, share


def test_a_call_is_one_transaction_that_callers_do_not_see(form):
    function, share = form
    version = share.version
    assert function(3) == 3
    assert function(n=4) == 7
    assert share.get() == {"calls": 7}
    assert share.version == version + 2


def test_threads_add_up_exactly(form):
    function, share = form
    threads = [threading.Thread(target=stateful.call, args=(function, 1, 50)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert share.get() == {"calls": 200}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_that_were_handed_it_work_on_the_senders_region(method):
    """All forms at once, since a spawned child takes its time."""
    if sys.version_info >= (3, 13) and method != FORKED:
        # There a classmethod makes a plain bound method of it, which travels by its name alone.
        forms = {name: form for name, form in FORMS.items() if name != "class outside"}
    else:
        forms = FORMS
    for _, share in forms.values():
        share.set({"calls": 0})
    with multiprocessing.get_context(method).Pool(2) as pool:
        for function, _ in forms.values():
            pool.map(function, [1] * 6)
            pool.starmap(stateful.call, [(function, 1)] * 4)
        pool.close()
        pool.join()
    assert {name: share.get()["calls"] for name, (_, share) in forms.items()} == dict.fromkeys(
        forms, 10
    )


def test_an_exception_commits_nothing_and_is_raised_unchanged():
    error = KeyError("as it is")

    @shared_state(initial=[1])
    def fail(state):
        state.append(2)
        raise error

    with pytest.raises(KeyError) as caught:
        fail()
    assert caught.value is error
    assert fail.share.get() == [1]


def test_a_wrong_call_is_the_functions_own_typeerror_and_changes_nothing():
    version = tally.share.version
    for args, kwargs in [((), {}), ((1, 2), {}), ((1,), {"state": {}}), ((1,), {"k": 2})]:
        with pytest.raises(TypeError, match=r"tally\(\)"):
            tally(*args, **kwargs)
    assert tally.share.version == version


def test_recursion_joins_the_running_transaction():
    countdown.reset()
    version = countdown.share.version
    assert countdown(5) == 5
    assert countdown.share.version == version + 1


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_recursion_by_name_stays_on_the_region_that_was_handed_over(method):
    """Else the function that arrives and the one that its module knows would count apart."""
    countdown.reset()
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map(countdown, [3, 2]) == [3, 5]
        pool.close()
        pool.join()
    assert countdown.share.get() == {"calls": 5}


def test_a_spawned_child_that_was_handed_nothing_has_a_region_of_its_own():
    tally.reset()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(stateful.call_by_name, (5,)) == {"calls": 5}
        # By now its own region is in use: what is handed over works on the sender's all the same.
        pool.apply(tally, (2,))
        assert pool.apply(stateful.call_by_name, (5,)) == {"calls": 10}
        pool.close()
        pool.join()
    assert tally.share.get() == {"calls": 2}


def test_a_forked_child_that_was_handed_nothing_shares_all_the_same():
    tally.reset()
    assert in_child(stateful.call_by_name, 5) == {"calls": 5}
    assert tally.share.get() == {"calls": 5}


def test_functions_on_one_share_join_one_another():
    stateful.both.set({"a": 0, "b": 0})
    version = stateful.both.version
    stateful.one_side(2)
    assert stateful.both.get() == {"a": 2, "b": 2}
    assert stateful.both.version == version + 1


def test_a_block_on_its_share_is_joined_too():
    tally.reset()
    with pytest.raises(ZeroDivisionError), tally.share.locked():
        tally(1)
        raise ZeroDivisionError
    assert tally.share.get() == {"calls": 0}


def test_the_state_is_dead_when_the_call_is_over():
    @shared_state
    def leak(state):
        return state

    with pytest.raises(ViewClosedError):
        leak()["x"] = 1


def test_a_closure_of_main_travels_by_value_with_its_region():
    def make(by):
        @shared_state(initial={"n": 0})
        def add(state):
            state["n"] += by
            return add.share.version  # It refers to itself.

        return add

    add = make(5)
    with pytest.raises(pickle.PicklingError, match="cloudpickle"):
        pickle.dumps(add)
    copy = cloudpickle.loads(cloudpickle.dumps(add))
    assert copy is not add
    assert copy() == 1
    assert add.share.get() == {"n": 5}
    assert copy.share is add.share
    copy.reset()
    assert add.share.get() == {"n": 0}
    assert Share(add).get().share is add.share


def test_joblib_takes_it_by_value():
    @shared_state(initial=0)
    def add(state, n):
        state.value += n

    joblib.Parallel(n_jobs=2)(joblib.delayed(add)(n) for n in range(10))
    assert add.share.get() == 45


def test_pickled_by_name_it_comes_back_as_the_very_object():
    for dumps in (pickle.dumps, cloudpickle.dumps):
        assert pickle.loads(dumps(tally)) is tally
        assert pickle.loads(dumps(Counter.static_inside)) is Counter.static_inside
        assert pickle.loads(dumps(counter.add)).share is Counter.add.share
        assert pickle.loads(dumps(tally_async)) is tally_async


def test_where_the_name_is_another_things_the_handle_says_so(monkeypatch):
    raw = pickle.dumps(tally)
    monkeypatch.setattr(stateful, "tally", len)
    with pytest.raises(pickle.UnpicklingError, match=r"stateful\.tally is not a shared_state func"):
        pickle.loads(raw)


PROGRAM = """
import multiprocessing
from mmapshare import shared_state

@shared_state(initial=0)
def tally(state, n):
    state.value += n
    return state.value

class Box:
    @shared_state(initial=0)
    def put(self, state, n):
        state.value += n

if __name__ == "__main__":
    import joblib
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            pool.map(tally, [1] * 4)
            pool.map(Box().put, [1] * 4)
            pool.close()
            pool.join()
    joblib.Parallel(n_jobs=2)(joblib.delayed(tally)(1) for _ in range(4))
    joblib.Parallel(n_jobs=2)(joblib.delayed(Box().put)(1) for _ in range(4))
    print(tally.share.get(), Box.put.share.get())
"""


def test_functions_of_a_script_reach_its_children(tmp_path):
    pytest.importorskip("joblib")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.stdout == "16 16\n", done.stderr


def test_a_child_killed_within_the_call_lets_the_next_one_in(caplog):
    @shared_state(initial=0)
    def add(state, child=None):
        state.value += 1
        if child:
            child.say()
            signal.pause()
        return state.value

    child = Child(lambda child: add(child))
    child.hear()
    child.kill()
    with caplog.at_level(logging.WARNING, logger="mmapshare"):
        assert add() == 1
    assert str(child.pid) in caplog.text
