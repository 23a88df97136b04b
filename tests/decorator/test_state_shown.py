"""How a decorated function looks: its name, its signature, as a method, as an attribute."""

import copy
import functools
import inspect

import cloudpickle
import pytest
from support.stateful import Counter, Shared, known_as_async, tally, tally_async

from mmapshare import (
    shared_state,
)

counter, shared = Counter(), Shared()


def test_a_method_without_a_parameter_for_the_state_is_an_error_of_its_class():
    with pytest.raises((TypeError, RuntimeError)) as caught:  # RuntimeError: Python 3.11.

        class Wrong:
            @shared_state
            def method(self):
                pass

    err = caught.value.__cause__ or caught.value
    assert "def method(self, state, ...)" in str(err)


def test_its_own_signature_shows_no_address():
    shown = str(inspect.signature(shared_state))
    assert "= NOTHING, /, **options" in shown
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
