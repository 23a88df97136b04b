"""`shared_state` on functions and methods: every form, by every way to another process."""

import asyncio
import copy
import functools
import inspect
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
from support.stateful import Counter, Shared, countdown, known_as_async, tally, tally_async

from mmapshare import (
    LockTimeout,
    RegionFullError,
    Share,
    UnpicklableError,
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
ASYNC_FORMS = {
    "function": (tally_async, tally_async.share),
    "method": (counter.add_async, Counter.add_async.share),
    "shared class": (shared.add_async, shared.share),
}
FORKED = "fork"


@pytest.fixture(params=FORMS)
def form(request):
    function, share = FORMS[request.param]
    share.set({"calls": 0})
    return function, share


@pytest.fixture(params=ASYNC_FORMS)
def async_form(request):
    function, share = ASYNC_FORMS[request.param]
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


# --- Options and errors ----------------------------------------------------------------------


def test_bare_it_begins_with_an_empty_dict():
    @shared_state
    def look(state):
        return state.value

    assert look() == {}


def test_initial_is_stored_at_once_and_no_mutable_default():
    initial = {"xs": []}

    @shared_state(initial=initial)
    def add(state, x):
        state["xs"].append(x)
        return state["xs"]

    initial["xs"].append("later")
    assert add(1) == [1]
    add.reset()
    assert add.share.get() == {"xs": []}


@pytest.mark.parametrize("initial", [None, 0, "text", len])
def test_any_value_is_an_initial_and_a_callable_is_never_called(initial):
    @shared_state(initial=initial)
    def look(state):
        return state.value

    assert look() == initial


def test_max_size_and_timeout_are_the_regions():
    @shared_state(initial=b"", max_size="64K", timeout=0.01)
    def fill(state, n):
        state.value = bytes(n)

    with pytest.raises(RegionFullError):
        fill(100_000)

    def hold(child):
        with fill.share.locked():
            child.say()
            child.hear()

    child = Child(hold)
    child.hear()
    with pytest.raises(LockTimeout, match=str(child.pid)):
        fill(1)
    with pytest.raises(LockTimeout):
        fill.reset()
    child.say()
    child.wait()


def test_a_timeout_beside_share_is_the_functions_alone():
    share = Share(0)

    @shared_state(share=share, timeout=0)
    def add(state):
        state.value += 1

    def hold(child):
        with share.locked():
            child.say()
            child.hear()

    child = Child(hold)
    child.hear()
    with pytest.raises(LockTimeout):
        add()
    child.say()
    share.set(5)
    child.wait()
    add()
    assert share.get() == 6


def test_reset_is_one_transaction_and_refused_where_there_is_no_initial():
    tally(3)
    version = tally.share.version
    tally.reset()
    assert tally.share.get() == {"calls": 0}
    assert tally.share.version == version + 1
    tally.reset()
    assert tally.share.version == version + 1
    with pytest.raises(TypeError, match=r"one_side\.share itself"):
        stateful.one_side.reset()


def test_what_cannot_be_right_is_an_error_at_decoration():
    def no_state():
        pass

    def keyword_only(*, state):
        pass

    def generator(state):
        yield

    async def async_generator(state):
        yield

    for function in (no_state, keyword_only):
        with pytest.raises(TypeError, match=r"write  def \w+\(state"):
            shared_state(function)
    for function in (generator, async_generator):
        with pytest.raises(TypeError, match="keep the lock"):
            shared_state(function)
    with pytest.raises(UnpicklableError, match="lock"):
        shared_state(initial={"guard": threading.Lock()})(len)
    with pytest.raises(TypeError, match="initial= out"):
        shared_state(share=Share(0), initial=0)
    with pytest.raises(TypeError, match="max_size= out"):
        shared_state(share=Share(0), max_size="1M")
    with pytest.raises(TypeError, match="SharedDict, not dict"):
        shared_state(share={})
    with pytest.raises(TypeError, match="option 'size'"):
        shared_state(size=3)
    with pytest.raises(TypeError, match="by name"):
        shared_state({"calls": 0})
    for function in (tally, counter.add):
        with pytest.raises(TypeError, match="decorate it once"):
            shared_state(function)
    with pytest.raises(ValueError, match="timeout"):
        shared_state(timeout=-1)(tally.__wrapped__)
    with pytest.raises(ValueError, match="size"):
        shared_state(max_size="much")(tally.__wrapped__)


def test_a_method_without_a_parameter_for_the_state_is_an_error_of_its_class():
    with pytest.raises((TypeError, RuntimeError)) as caught:  # RuntimeError: Python 3.11.

        class Wrong:
            @shared_state
            def method(self):
                pass

    err = caught.value.__cause__ or caught.value
    assert "def method(self, state, ...)" in str(err)


# --- How it looks ----------------------------------------------------------------------------


def test_its_own_signature_shows_no_address():
    shown = str(inspect.signature(shared_state))
    assert "= <not given>, /, **options" in shown
    assert "0x" not in shown


def test_it_keeps_what_describes_a_function():
    assert (tally.__name__, tally.__qualname__, tally.__module__) == (
        "tally",
        "tally",
        "support.stateful",
    )
    assert tally.__doc__ == "Count calls."
    assert tally.__wrapped__.__name__ == "tally"
    assert list(inspect.signature(tally).parameters) == ["n"]
    for function in (counter.add, Counter.static_outside, Counter.static_inside):
        assert list(inspect.signature(function).parameters) == ["n"]
    for function in (Counter.class_inside, Counter.class_outside, counter.class_inside):
        assert list(inspect.signature(function).parameters) == ["n"]
    assert list(inspect.signature(Counter.add).parameters) == ["self", "n"]
    assert "tally(n)" in repr(tally)
    assert "Counter.add" in repr(counter.add)

    @shared_state
    def annotated(state, n: int, *more: str) -> list:
        return [n, *more]

    assert annotated.__annotations__ == {"n": int, "more": str, "return": list}
    assert str(inspect.signature(annotated)) == "(n: int, *more: str) -> list"

    @shared_state
    def variadic(*args):
        return args[1:]

    assert variadic(1, 2) == (1, 2)


def test_a_wrapper_that_takes_the_state_itself_shows_what_it_wraps():
    """Following ``__wrapped__`` took the inner function's first argument for the state."""

    def memo(func):
        @shared_state
        @functools.wraps(func)
        def cached(cache, /, *args):
            return cache.setdefault(args, func(*args))

        return cached

    def passing(func):
        @functools.wraps(func)
        def inner(*args, **kwargs):
            return func(*args, **kwargs)

        return inner

    double = memo(lambda n: 2 * n)
    assert double(4) == 8
    assert list(inspect.signature(double).parameters) == ["n"]
    assert memo(lambda: 7)() == 7
    put = shared_state(passing(lambda state, n: state.setdefault("n", n)))
    assert put(4) == 4
    assert list(inspect.signature(put).parameters) == ["n"]
    with pytest.raises(TypeError, match="no parameter for the state"):
        shared_state(passing(lambda: 7))


def test_a_decorator_above_it_in_a_class_passes_the_instance_on():
    """The state and ``self`` changed places."""

    def log(func):
        @functools.wraps(func)
        def wrapper(*args, **kwargs):
            return func(*args, **kwargs)

        return wrapper

    class Logged:
        @log
        @shared_state(initial=0)
        def add(self, state, by):
            assert isinstance(self, Logged)
            state.value += by
            return state.value

        @property
        @shared_state(initial=0)
        def ticket(self, state):
            state.value += 1
            return state.value

    class Derived(Logged):
        pass

    assert Logged().add(2) == 2
    assert Derived().add(2) == 4
    assert [Logged().ticket, Derived().ticket] == [1, 2]


def test_a_static_method_whose_first_argument_is_a_class_gets_the_state_first():
    class Registry:
        @staticmethod
        @shared_state(initial=[])
        def note(state, cls):
            state.append(cls.__name__)
            return state.value

    assert Registry.note(int) == ["int"]
    assert Registry().note(Registry) == ["int", "Registry"]


def test_a_method_that_takes_whatever_it_gets_shows_so():
    class Open:
        @shared_state(initial=0)
        def add(*args):
            _, state, by = args
            state.value += by
            return state.value

    assert str(inspect.signature(Open().add)) == "(*args)"
    assert Open().add(2) == 2


def test_a_partial_and_a_callable_object_can_be_decorated():
    class Callable:
        def __call__(self, state, n):
            state["n"] = n
            return n

    partial = shared_state(functools.partial(lambda state, n, by: n + by, by=2))
    for function, expected in (partial, 5), (shared_state(Callable()), 3):
        assert function(3) == expected
        assert "shared_state function" in repr(function)
        assert copy.deepcopy(function) is copy.copy(function) is function
        assert cloudpickle.loads(cloudpickle.dumps(function))(3) == expected


def test_async_functions_are_known_as_such():
    assert known_as_async(tally_async)
    assert not known_as_async(tally)


def test_a_bound_method_resets_what_all_instances_share():
    counter.add(5)
    Counter().add.reset()
    assert counter.add.share.get() == {"calls": 0}
    assert counter.add.__name__ == "add"
    with pytest.raises(AttributeError, match="nothing"):
        counter.add.nothing


def test_bound_methods_compare_as_python_s_do():
    assert counter.add == counter.add
    assert hash(counter.add) == hash(counter.add)
    assert counter.add != Counter().add
    assert counter.add != 1
    assert Counter.add(counter, 1)


def test_a_function_from_elsewhere_may_be_an_attribute_of_a_class():
    class Holder:
        kept = staticmethod(tally)
        bound = shared_state(initial=0)(lambda self, state: type(self))

    tally.reset()
    assert Holder.kept(2) == 2
    assert tally(1) == 3


# --- asyncio ---------------------------------------------------------------------------------


def test_twenty_tasks_and_four_processes_add_up_exactly(async_form):
    function, share = async_form

    def work(child):
        for _ in range(25):
            asyncio.run(function(1))

    async def main():
        async def twenty_calls():
            for _ in range(20):
                await function(1)

        await asyncio.gather(*[twenty_calls() for _ in range(20)])

    children = [Child(work) for _ in range(4)]
    asyncio.run(main())
    for child in children:
        child.result()
    assert share.get() == {"calls": 500}


def test_the_event_loop_runs_on_while_an_async_function_waits():
    tally_async.reset()

    def hold(child):
        with tally_async.share.locked() as view:
            child.say()
            child.hear()
            view["calls"] = 10

    async def main():
        child = Child(hold)
        child.hear()
        waiting = asyncio.create_task(tally_async(1))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        child.say()
        assert await waiting == 11
        child.wait()

    asyncio.run(main())


@pytest.mark.parametrize("method", ["spawn"])
def test_async_functions_travel_as_others_do(method):
    tally_async.reset()
    with multiprocessing.get_context(method).Pool(2) as pool:
        pool.starmap(stateful.call_async, [(tally_async, 1)] * 6)
        pool.close()
        pool.join()
    assert tally_async.share.get() == {"calls": 6}


def test_async_recursion_joins():
    @shared_state(initial=[])
    async def dig(state, depth):
        state.append(depth)
        if depth:
            await dig(depth - 1)
        return list(state)

    assert asyncio.run(dig(2)) == [2, 1, 0]
    assert dig.share.version == 2


# --- Kill and interrupt ----------------------------------------------------------------------


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
