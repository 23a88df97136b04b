"""`shared_state` on classes: each instance's attributes in a region of its own."""

import asyncio
import contextlib
import copy
import dataclasses
import functools
import gc
import inspect
import multiprocessing
import pickle
import subprocess
import sys
import threading
import weakref

import attrs
import cloudpickle
import pytest
from support import Wanted, in_child, stateful
from support.stateful import Point, Shared, Slotted

from mmapshare import LockTimeout, RegionFullError, Share, shared_state

joblib = Wanted("joblib")


def test_each_instance_has_a_region_of_its_own():
    first, second = Shared(1), Shared()
    assert in_child(first.add, 4) == 5
    assert (first.calls, second.calls) == (5, 0)
    assert first.share.get() == {"calls": 5}


def test_a_public_method_is_one_transaction_also_when_it_calls_others():
    shared = Shared()
    version = shared.share.version
    assert shared.add_twice(2) == 4
    assert shared.share.version == version + 1


def test_an_exception_drops_what_a_method_changed():
    shared = Shared(3)
    with pytest.raises(KeyError, match="on purpose"):
        shared.fail()
    assert shared.calls == 3


@pytest.mark.parametrize("make", [Shared, Point, Slotted])
def test_assigning_and_deleting_from_outside_raise_with_the_way_to_do_it(make):
    instance = make()
    for name in ("calls", "x", "n", "new"):
        with pytest.raises(AttributeError, match=r"method of the class.*share\.locked\(\)"):
            setattr(instance, name, 5)
        with pytest.raises(AttributeError, match="method of the class"):
            delattr(instance, name)
    with instance.share.locked() as state:
        state["n"] = 7
    assert instance.n == 7


def test_what_is_read_from_outside_is_a_copy():
    point = Point(1)
    point.move(2)
    point.trail.append("lost")
    assert point.trail == [1]
    assert vars(point) == {"x": 3, "trail": [1]}
    with pytest.raises(TypeError):
        vars(point)["x"] = 5
    with pytest.raises(AttributeError, match="nothing"):
        point.nothing


def test_a_method_that_returns_itself_returns_the_shared_instance():
    point = Point()
    assert point.move(1).move(2) is point
    assert point == Point(3, [0, 1])
    assert point != Point(3, [0])
    assert repr(point) == "Point(x=3, trail=[0, 1])"


def test_dataclasses_and_attrs_read_them_as_their_own():
    point, slotted = Point(1).move(1), Slotted(4)
    slotted.add(1)
    assert dataclasses.asdict(point) == {"x": 2, "trail": [1]}
    assert dataclasses.replace(point, x=9).x == 9
    assert attrs.asdict(slotted) == {"n": 5, "note": ""}
    assert attrs.evolve(slotted, n=1).n == 1
    with pytest.raises(TypeError, match="note"):
        Slotted(note=5)
    assert [str(p) for p in inspect.signature(Slotted).parameters.values()][0] == "n: int = 0"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_an_instance_travels_as_a_handle(method):
    instances = [Shared(), Slotted(), Point()]
    methods = [instances[0].add, instances[1].add, instances[2].move]
    with multiprocessing.get_context(method).Pool(2) as pool:
        for function in methods:
            pool.map(function, [1] * 5)
        back = pool.map(_give_back, instances)
        pool.close()
        pool.join()
    assert (instances[0].calls, instances[1].n, instances[2].x) == (5, 5, 5)
    assert [b.share for b in back] == [i.share for i in instances]


def _give_back(instance):
    return instance


def test_copies_are_handles_to_the_same_region():
    shared = Shared()
    for same in (copy.copy(shared), copy.deepcopy(shared), pickle.loads(pickle.dumps(shared))):
        same.add(1)
        assert type(same) is Shared
    assert shared.calls == 3
    assert Share({"it": shared}).get()["it"].add(1) == 4


def test_a_local_class_travels_by_value():
    @shared_state
    class Local:
        def __init__(self):
            self.n = 0

        def add(self, n):
            self.n += n

    local = Local()
    joblib.Parallel(n_jobs=2)(joblib.delayed(local.add)(1) for _ in range(6))
    cloudpickle.loads(cloudpickle.dumps(local)).add(1)
    assert local.n == 7


PROGRAM = """
import multiprocessing
from mmapshare import shared_state

@shared_state
class Board:
    def __init__(self):
        self.best = 0
    def offer(self, n):
        self.best = max(self.best, n)
        return self

if __name__ == "__main__":
    import joblib
    board = Board()
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert all(b.share is board.share for b in pool.map(board.offer, range(5)))
            pool.close()
            pool.join()
    joblib.Parallel(n_jobs=2)(joblib.delayed(board.offer)(n) for n in range(9))
    print(board.best)
"""


def test_a_scripts_class_reaches_its_children(tmp_path):
    pytest.importorskip("joblib")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.stdout == "8\n", done.stderr


def test_inside_of_a_method_it_is_an_instance_like_any():
    @shared_state
    class Node:
        default = 5

        def __init__(self):
            self.seen = []

        def look(self):
            self.default += 1  # A class attribute's value, then the instance's own.
            self.seen.append(isinstance(self, Node))
            self.seen.append(self.__class__ is Node)
            self.seen.append(super().__repr__() != "")
            del self.default
            return self.default

        def keep_self(self):
            self.me = self

    node = Node()
    assert node.look() == 5
    assert node.seen == [True, True, True]
    node.keep_self()
    assert node.me.share is node.share


def test_a_handle_used_within_its_own_method_joins():
    @shared_state
    class Both:
        def __init__(self):
            self.n = 0

        def add(self, other):
            self.n += 1
            if other is not None:
                other.add(None)
            return self.n

    both = Both()
    assert both.add(both) == 2
    assert both.n == 2


def test_async_methods_are_transactions_of_their_task():
    shared = Shared()

    async def main():
        await asyncio.gather(*[shared.add_async(1) for _ in range(20)])

    asyncio.run(main())
    assert shared.calls == 20


def test_options_are_those_of_each_instances_region():
    @shared_state(max_size="64K", timeout=0)
    class Small:
        def __init__(self):
            self.data = b""

        def fill(self, n):
            self.data = bytes(n)

    small = Small()
    with pytest.raises(RegionFullError):
        small.fill(100_000)
    with small.share.locked(), pytest.raises(LockTimeout):
        in_child(small.fill, 1)


def test_a_draft_that_outlives_its_method_is_the_instance_itself():
    """What was kept, a private object by then, took changes in silence, and they were lost."""

    def logged(func):
        @functools.wraps(func)
        def wrapper(*args, **kwargs):
            return func(*args, **kwargs)

        return wrapper

    @shared_state
    class Leaky:
        def __init__(self):
            self.n = 0

        def add(self, by=1):
            self.n += by
            return self.n

        add_two = functools.partialmethod(add, 2)

        @contextlib.contextmanager
        def session(self):
            yield
            self.n += 10

        @logged
        async def add_async(self, by):
            self.n += by

        def callback(self):
            return self.add

        def pair(self):
            return self, 1

        def in_thread(self):
            return threading.Thread(target=self._in_thread)

        def _in_thread(self):
            self.add(5)

    leaky = Leaky()
    with pytest.raises(AttributeError, match="method of the class"), leaky.session():
        pass
    with pytest.raises(AttributeError, match="method of the class"):
        asyncio.run(leaky.add_async(1))
    with pytest.raises(AttributeError, match="method of the class"):
        leaky.callback()(7)
    same, _ = leaky.pair()
    assert same.n == 0
    with pytest.raises(AttributeError, match="method of the class"):
        same.n = 9
    assert same.add(8) == 8
    assert cloudpickle.loads(cloudpickle.dumps(same)).share is leaky.share
    thread = leaky.in_thread()
    thread.start()
    thread.join()
    assert leaky.add_two() == 15
    assert leaky.n == 15


def test_within_a_method_the_class_may_be_called_by_its_name():
    @shared_state
    class Named:
        def __init__(self, x=1):
            self.x = x

        def add(self, by):
            self.x += by
            return self.x

        def by_name(self):
            return Named.add(self, 1) + self.__class__.add(self, 1)

        def __len__(self):
            return self.x

        def length(self):
            self.x += 1
            return Named.__len__(self)

        async def add_async(self, by):
            await asyncio.sleep(0)
            self.x += by
            return self.x

        async def by_name_async(self):
            return await Named.add_async(self, 1) + await Named.add_async(self, 1)

        def another(self):
            return type(self)(self.x)

    named = Named()
    assert named.by_name() == 2 + 3
    assert named.x == 3
    assert named.length() == len(named) == 4  # What the method has changed, not what is committed.
    other = named.another()
    assert type(other) is Named
    assert (other.x, other.share is named.share) == (4, False)
    version = named.share.version
    assert asyncio.run(named.by_name_async()) == 5 + 6
    assert named.share.version == version + 1


def test_a_method_of_the_class_travels_by_its_name():
    instances = [Shared(), Shared()]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(Shared.reset_to_three, instances) == [3, 3]
        pool.close()
        pool.join()
    assert [instance.calls for instance in instances] == [3, 3]
    for dumps in pickle.dumps, cloudpickle.dumps:
        raw = dumps(Shared.reset_to_three)
        assert pickle.loads(raw) is Shared.reset_to_three
        assert len(raw) < 200


@pytest.mark.classes_end
def test_local_classes_go_with_all_that_they_have():
    """Draft classes were kept for ever where a method named its own class."""

    def make():
        @shared_state
        class Local:
            def __init__(self):
                self.n = 0

            def add(self):
                Local.seen = 1
                self.n += 1

        Local().add()
        return weakref.ref(Local)

    gone = [make() for _ in range(3)]
    gc.collect()
    assert [found() for found in gone] == [None] * 3


def test_shared_instances_may_hold_others():
    """The inner one's region was gone at once, and after it nothing could load the outer one."""
    outer = stateful.Outer()
    outer.add()
    outer.add()
    outer.more()
    assert outer.inner.calls == 2
    assert [one.calls for one in outer.others] == [7]
    assert in_child(lambda: outer.inner.calls) == 2
    outer.clear()
    assert outer.inner is None
