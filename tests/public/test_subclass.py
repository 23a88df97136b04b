"""Subclasses of shares: what they have of their own travels as pickle would carry it."""

import copy
import functools
import multiprocessing
import pickle
import subprocess
import sys
import threading
from dataclasses import dataclass, field

import attrs
import cloudpickle
import pytest
from support import in_child, inside, no_more_descriptors, workers

from mmapshare import Share, SharedDict


class Slotted(Share):
    __slots__ = ("__secret", "name", "unset")

    def __init__(self, name):
        super().__init__(0)
        self.name = name
        self.__secret = name * 2


class Both(Slotted):
    """Slots above, a dict below."""

    def __init__(self, name, limit):
        super().__init__(name)
        self.limit = limit


class WithState(SharedDict):
    def __init__(self, limit):
        super().__init__()
        self.limit, self.lock = limit, threading.Lock()

    def __getstate__(self):
        return {"limit": self.limit}

    def __setstate__(self, state):
        self.limit, self.lock = state["limit"] + 1, threading.Lock()


class MoreState(workers.Cache):
    def __getstate__(self):
        return super().__getstate__() | {"added": True}


class Reduced(SharedDict):
    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def __reduce_ex__(self, protocol):
        func, args, *rest = super().__reduce_ex__(protocol)
        return func, args, {"limit": self.limit, "reduced": True}, *rest[1:]


class New(Share):
    def __new__(cls, limit):
        self = super().__new__(cls)
        self.limit = limit
        return self

    def __init__(self, limit):
        super().__init__(1)

    def __getnewargs__(self):
        return (self.limit,)

    def __getstate__(self):
        return None


class NewEx(New):
    def __getnewargs_ex__(self):
        return (), {"limit": self.limit}


@attrs.define(eq=False, slots=True)
class Attrs(SharedDict):
    limit: int = 3
    words: list = attrs.Factory(list)

    def __attrs_pre_init__(self):
        super().__init__()


@dataclass(eq=False)
class Data(Share):
    limit: int
    words: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__(1)

    __repr__ = Share.__repr__


class Circular(SharedDict):
    def __init__(self):
        super().__init__()
        self.me = [self]


class Holder(Share):
    def __init__(self, inner):
        super().__init__(1)
        self.inner = inner


MAKERS = [
    (workers.Cache, (3,), {"limit": 3}),
    (Slotted, ("ab",), {"name": "ab", "_Slotted__secret": "abab"}),
    (Both, ("ab", 4), {"name": "ab", "_Slotted__secret": "abab", "limit": 4}),
    (WithState, (3,), {"limit": 4}),
    (MoreState, (3,), {"limit": 3, "added": True}),
    (Reduced, (3,), {"limit": 3, "reduced": True}),
    (New, (5,), {"limit": 5}),
    (NewEx, (5,), {"limit": 5}),
    (Attrs, (7, ["w"]), {"limit": 7, "words": ["w"]}),
    (Data, (7, ["w"]), {"limit": 7, "words": ["w"]}),
]


def _loaded_elsewhere(share, pickled, names):
    """What a process that does not have the share finds on it."""

    def load():
        inside.open_here.clear()
        loaded = pickle.loads(pickled)
        assert loaded is not share
        assert type(loaded) is type(share)
        assert loaded.version == share.version
        return {name: getattr(loaded, name) for name in names}

    return in_child(load)


@pytest.mark.parametrize(("cls", "args", "attributes"), MAKERS)
@pytest.mark.parametrize(
    "dumps", [pickle.dumps, cloudpickle.dumps, functools.partial(pickle.dumps, protocol=2)]
)
def test_what_a_subclass_has_of_its_own_travels_with_its_handle(dumps, cls, args, attributes):
    """In a spawned child the attributes were gone."""
    share = cls(*args)
    assert _loaded_elsewhere(share, dumps(share), attributes) == attributes
    outer = Share({"inner": share})
    raw = pickle.dumps(outer)

    def load():
        inside.open_here.clear()
        inner = pickle.loads(raw).get()["inner"]
        return {name: getattr(inner, name) for name in attributes}

    assert in_child(load) == attributes


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_subclasss_methods_work_in_children_of_every_kind(method):
    cache = workers.Cache(limit=2)
    context = multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        for key in "abc":
            assert pool.apply(workers.put, (cache, key, 1)) is cache
        pool.close()
        pool.join()
    assert list(cache) == ["b", "c"]


def test_a_class_of_main_travels_with_its_attributes_to_who_has_it_not():
    program = """
import cloudpickle, subprocess, sys
from mmapshare import SharedDict
class Cache(SharedDict):
    def __init__(self, limit):
        super().__init__()
        self.limit = limit
load = "import pickle, sys; cache = pickle.load(sys.stdin.buffer); print(cache.limit, len(cache))"
cache = Cache(3)
raw = cloudpickle.dumps(cache)
done = subprocess.run([sys.executable, "-c", load], input=raw, capture_output=True)
print(done.stdout.decode(), done.stderr.decode())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.stdout.split() == [b"3", b"0"], done.stderr.decode()


def test_a_subclass_without_anything_of_its_own_is_a_plain_handle():
    class Plain(Share):
        pass

    assert len(Plain(1).__reduce__()) == 2
    assert Share(1).__getstate__() is None
    assert len(SharedDict().__reduce__()) == 2


def test_a_share_that_names_itself_travels():
    share = Circular()

    def load(raw):
        inside.open_here.clear()
        loaded = pickle.loads(raw)
        return loaded.me[0] is loaded

    assert in_child(load, pickle.dumps(share))


def test_an_attribute_that_is_a_share_travels_too():
    holder = Holder(Share("inner"))

    def load(raw):
        inside.open_here.clear()
        return pickle.loads(raw).inner.get()

    assert in_child(load, pickle.dumps(holder)) == "inner"


def test_loading_a_handle_changes_nothing_of_the_share_that_is_there():
    """A process has one object for a region. It keeps its own attributes, whatever comes back."""
    cache = workers.Cache(3)
    before = pickle.dumps(cache)
    cache.limit = 5
    cache.added = True
    assert pickle.loads(before) is cache
    assert (cache.limit, cache.added) == (5, True)
    outer = Share(cache)
    cache.limit = 6
    assert outer.get() is cache
    assert cache.limit == 6
    assert copy.copy(cache) is cache
    assert copy.deepcopy(cache) is cache


def test_attributes_that_came_later_are_not_overwritten_either():
    class Plain(Share):
        pass

    workers.Plain = Plain
    Plain.__module__, Plain.__qualname__ = "support.workers", "Plain"
    share = Plain(1)
    first = pickle.dumps(share)
    share.limit = 3
    second = pickle.dumps(share)

    def load():
        inside.open_here.clear()
        loaded = pickle.loads(first)
        loaded.limit = 9
        assert pickle.loads(second) is loaded
        return loaded.limit

    assert in_child(load) == 9
    del workers.Plain


def test_a_thread_that_loads_what_another_is_loading_finds_the_attributes(monkeypatch):
    """1. A makes the share. 2. B gets it, and goes on before A has set its attributes."""
    cache = workers.Cache(3)
    raw = pickle.dumps(cache)
    found = []
    real = inside.reach_handle

    def reach(share, passed_fd=-1):
        real(share, passed_fd)
        if not found:
            found.append(None)
            thread = threading.Thread(target=lambda: found.append(pickle.loads(raw).limit))
            thread.start()
            thread.join()

    def load():
        inside.open_here.clear()
        monkeypatch.setattr(*inside.at("reach_handle"), reach)
        assert pickle.loads(raw).limit == 3
        return found[1]

    assert in_child(load) == 3


def test_an_absent_one_has_its_attributes_at_once():
    cache = workers.Cache(3)
    raw = pickle.dumps(cache)

    def load():
        inside.open_here.clear()
        with no_more_descriptors():
            absent = pickle.loads(raw)
            assert repr(absent) == "<Cache, unreachable>"
            assert absent.limit == 3
            again = pickle.dumps(absent)
        inside.open_here.clear()
        del absent
        return pickle.loads(again).limit

    assert in_child(load) == 3
