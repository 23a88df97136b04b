"""Decorated functions and classes, importable by name, so that spawned children find them."""

import asyncio
import dataclasses
import inspect
import sys

import attrs

from mmapshare import Share, shared_state

known_as_async = (
    # What asyncio asked for itself, until it left that to inspect.
    asyncio.iscoroutinefunction if sys.version_info < (3, 12) else inspect.iscoroutinefunction
)


@shared_state(initial={"calls": 0})
def tally(state, n):
    """Count calls."""
    state["calls"] += n
    return state["calls"]


@shared_state(initial={"calls": 0})
async def tally_async(state, n):
    before = state["calls"]
    await asyncio.sleep(0)
    state["calls"] = before + n
    return state["calls"]


@shared_state(initial={"calls": 0})
def countdown(state, n):
    """Recursion by the module's name."""
    state["calls"] += 1
    if n > 1:
        countdown(n - 1)
    return state["calls"]


def run_async(n):
    return asyncio.run(tally_async(n))


class Counter:
    """Methods, each with one region for all instances."""

    @shared_state(initial={"calls": 0})
    def add(self, state, n):
        assert isinstance(self, Counter)
        state["calls"] += n
        return state["calls"]

    @staticmethod
    @shared_state(initial={"calls": 0})
    def static_outside(state, n):
        state["calls"] += n
        return state["calls"]

    @shared_state(initial={"calls": 0})
    @staticmethod
    def static_inside(state, n):
        state["calls"] += n
        return state["calls"]

    @classmethod
    @shared_state(initial={"calls": 0})
    def class_outside(cls, state, n):
        assert issubclass(cls, Counter)
        state["calls"] += n
        return state["calls"]

    @shared_state(initial={"calls": 0})
    @classmethod
    def class_inside(cls, state, n):
        assert issubclass(cls, Counter)
        state["calls"] += n
        return state["calls"]

    @shared_state(initial={"calls": 0})
    async def add_async(self, state, n):
        assert isinstance(self, Counter)
        state["calls"] += n
        return state["calls"]


@shared_state
class Shared:
    """Attributes of each instance in a region of its own."""

    def __init__(self, calls=0):
        self.calls = calls

    def add(self, n):
        self.calls += n
        return self.calls

    def reset_to_three(self):
        self.calls = 3
        return self.calls

    def add_twice(self, n):
        self.add(n)
        return self.add(n)

    def fail(self):
        self.calls = 99
        raise KeyError("on purpose")

    async def add_async(self, n):
        before = self.calls
        await asyncio.sleep(0)
        self.calls = before + n
        return self.calls


@shared_state
@dataclasses.dataclass
class Point:
    x: int = 0
    trail: list = dataclasses.field(default_factory=list)

    def move(self, by):
        self.trail.append(self.x)
        self.x += by
        return self


@shared_state
@attrs.define
class Slotted:
    n: int = 0
    note: str = attrs.field(default="", validator=attrs.validators.instance_of(str))

    def add(self, n):
        self.n += n
        return self.n


@shared_state
class Dispatcher:
    def __init__(self):
        self.handlers = {"a": self.on_a}
        self.seen = 0

    def on_a(self):
        self.seen += 1

    def run(self):
        self.handlers["a"]()


@shared_state
class Outer:
    def __init__(self):
        self.inner = Shared()
        self.others = []

    def add(self):
        self.inner.add(1)

    def more(self):
        self.others.append(Shared(7))

    def clear(self):
        self.inner = None
        self.others.clear()


both = Share({"a": 0, "b": 0})


@shared_state(share=both)
def one_side(state, n):
    state["a"] += n
    other_side(n)


@shared_state(share=both)
def other_side(state, n):
    state["b"] += n


def call(function, n, times=1):
    """Calls what it was handed."""
    for _ in range(times):
        function(n)


def call_async(function, n):
    asyncio.run(function(n))


def call_by_name(n):
    """Calls what this process knows by that name."""
    tally(n)
    return tally.share.get()
