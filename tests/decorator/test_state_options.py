"""Options of `shared_state` on functions, and what cannot be right."""

import threading

import pytest
from support import Child, stateful
from support.stateful import Counter, Shared, tally

from mmapshare import (
    LockTimeout,
    RegionFullError,
    Share,
    UnpicklableError,
    shared_state,
)

counter, shared = Counter(), Shared()


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
    with pytest.raises(TypeError, match="path of a Share, not dict"):
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
