"""Which class is which: what existed at a fork is the same by descent, what came later is not.

Each test is a program of its own, since its ``__main__`` is what it is about.
"""

import gc
import os
import sys
import weakref

import pytest
from support import Child, in_child, inside
from support.programs import run


@pytest.mark.untraced
def test_what_two_processes_define_alike_after_a_fork_is_two(tmp_path):
    """Address, name and methods agreed, so each one's value was loaded with the other's class."""
    run(
        """
        from mmapshare import SharedDict
        CELLS = [
            "class Task:\\n    rank = {n}\\nmade = Task()",
            "class Task:\\n    _rank = {{'n': {n}}}\\n"
            "    rank = property(lambda self: self._rank['n'])\\nmade = Task()",
            "def outer():\\n    cell = [{n}]\\n    class Task:\\n        @property\\n"
            "        def rank(self): return cell[0]\\n    return Task()\\nmade = outer()",
            "made = type('Task', (), {{'rank': {n}}})()",
            "import dataclasses\\n"
            "made = dataclasses.make_dataclass('Task', [('rank', int, {n})])()",
            "import collections\\n"
            "made = collections.namedtuple('Task', 'rank', defaults=[{n}])._make([{n}])",
            "class Meta(type):\\n    rank = {n}\\nclass Task(metaclass=Meta):\\n    pass\\n"
            "made = Task()\\nTask.rank = property(lambda self: type(type(self)).rank)",
            "FACTOR = {n}\\nclass Task:\\n    rank = property(lambda self: FACTOR)\\nmade = Task()",
            "class Task:\\n    def look(self, *, rank={{'n': {n}}}): return rank['n']\\n"
            "    rank = property(look)\\nmade = Task()",
            "class Base:\\n    rank = {n}\\nclass Task(Base):\\n    pass\\nmade = Task()",
            "made = type('F', (), {{}})()\\nmade.rank = (lambda: {n})()",
        ]
        for cell in CELLS:
            d = SharedDict()
            def work(n):
                exec(cell.format(n=n), globals())
                d[n] = made
                assert d[n].rank == n and type(d[n]) is type(made)
            in_child(work, 10)
            in_child(work, 20)
            work(30)
            found = {key: value.rank for key, value in d.items()}
            assert found == {10: 10, 20: 20, 30: 30}, (cell, found)
            assert len({type(value) for value in d.values()}) == 3
            in_child(lambda: [d[n].rank for n in d] == [10, 20, 30] or 1 / 0)
            stranger([d], "assert all(k == v.rank for k, v in shares[0].items())")
        """,
        tmp_path,
    )


def test_a_field_that_only_one_factory_gave_is_still_there(tmp_path):
    """Models made after a fork had lost a field: they were loaded with another's class."""
    run(
        """
        from mmapshare import SharedDict
        def model(**fields):
            space = {"__annotations__": {name: type(v) for name, v in fields.items()}, **fields}
            return type("Model", (), space)
        def work(key, fields):
            d[key] = model(**fields)()
        d = SharedDict()
        in_child(work, "a", {"x": 1, "y": 2})
        in_child(work, "b", {"x": 3, "y": 4})
        work("c", {"x": 5, "y": [6]})
        assert {key: (m.x, m.y) for key, m in d.items()} == {
            "a": (1, 2), "b": (3, 4), "c": (5, [6])}
        """,
        tmp_path,
    )


def test_what_existed_at_the_fork_is_the_same_whoever_stores_it_first(tmp_path):
    """Also when its data, or its private names, have changed since; and in another child."""
    run(
        """
        class Counted:
            made = 0
            def __init__(self):
                type(self).made += 1
                type(self)._last = [self]
        class Empty:
            pass
        def factory():
            class Local:
                seen = []
            return Local
        classes = [Counted, Empty, factory(), factory(), enum.Enum("Mood", "GOOD BAD"),
                   type("Bare", (Exception,), {})]
        def make(cls):
            return cls.GOOD if issubclass(cls, enum.Enum) else cls()
        shares = [Share() for _ in range(2)]
        for share in shares:
            in_child(lambda: share.set([make(cls) for cls in classes]))
        def check():
            for share in shares:
                for cls, value in zip(classes, share.get()):
                    assert type(value) is cls, (cls, type(value))
                    assert not isinstance(value, enum.Enum) or value is cls.GOOD
        in_child(check)
        check()
        in_child(lambda: in_child(check))
        """,
        tmp_path,
    )


def test_a_class_that_is_defined_again_is_a_new_one_everywhere(tmp_path):
    """A worker that was forked before went on reading the old class's data under new values."""
    run(
        """
        from support import Child
        share, old = Share(), Share()
        class Config:
            rate = 0.1
            def name(self):
                return "config"
        old.set(Config())
        def work(child):
            first = Config
            child.say(old.get().rate)
            for rate in (0.5, 0.5, 0.7):
                assert child.hear() == "look"
                value = share.get()
                assert type(value) is not first and value.rate == rate, value.rate
                assert type(old.get()) is first and old.get().rate == 0.1
                child.say(rate)
            assert child.hear() == "store"
            share.set([Config(), value])
            child.say("stored")
        worker = Child(work)
        assert worker.hear() == 0.1
        first = Config
        for again in (0.5, 0.5, 0.7):                  # Once without a change.
            class Config:
                rate = again
                def name(self):
                    return "config"
            share.set(Config())
            assert type(share.get()) is Config
            worker.say("look")
            assert worker.hear() == again
        worker.say("store")
        assert worker.hear() == "stored"
        theirs, newest = share.get()
        assert type(theirs) is first and type(newest) is Config
        assert type(old.get()) is first
        del first, theirs
        worker.wait()
        """,
        tmp_path,
    )


def test_under_spawn_the_very_same_class_whatever_the_seed(tmp_path):
    """A set's order, or an object's address, made an enum another one in each process."""
    run(
        """
        import dataclasses, functools, multiprocessing
        class Opaque:
            def __init__(self, *names):
                self.names = set(names)
        class Role(enum.Enum):
            ADMIN = frozenset({"read", "write", "grant"})
            NESTED = frozenset({frozenset({"a", "b", "c"}), ("d", frozenset({"e", "f", "g"}))})
            OBJECT = Opaque("x", "y", "z")
            TABLE = {"one": {"p", "q", "r"}, "two": [object()]}
            VIEW = {"k": 1, "l": 2, "m": 3}.keys()
            PART = enum.member(functools.partial(max, {"s", "t", "u"}))
            FUNCTION = enum.member(lambda self: {"v", "w", self})
        class Flag(enum.Flag):
            UP = enum.auto()
            DOWN = enum.auto()
        class Plain:
            names = {"a", "b", "c", "d"}
            marker = object()
            nested = {"k": frozenset({"x", "y", "z"}), "own": Opaque("m", "n")}
            look = len
        @dataclasses.dataclass
        class Data:
            tags: frozenset = frozenset({"red", "green", "blue"})
            other: object = dataclasses.field(default_factory=lambda: Opaque("q"))
        class Method:
            def look(self, marker=object(), names=frozenset({"a", "b", "c"})):
                return {"p", "q", "r"} & names
        class Counted:
            made = 0
            def __init__(self):
                type(self).made += 1
        Row = __import__("collections").namedtuple("Row", "a b", defaults=[frozenset("xyz")])
        CLASSES = [Plain, Data, Method, Counted]
        def work(share):
            value, members = share.get(), list(Role)
            assert len(members) == len(value["roles"]) == 7
            assert all(a is b for a, b in zip(value["roles"], members)), value["roles"]
            assert value["flag"] is Flag.UP and type(value["row"]) is Row
            for cls, one in zip(CLASSES, value["values"]):
                assert type(one) is cls, cls
            share.set([*members, *[cls() for cls in CLASSES]])
        if __name__ == "__main__":
            for _ in range(2):
                share = Share({"roles": list(Role), "flag": Flag.UP, "row": Row(1),
                               "values": [cls() for cls in CLASSES]})
                child = multiprocessing.get_context("spawn").Process(target=work, args=(share,))
                child.start()
                child.join()
                assert child.exitcode == 0
                back = share.get()
                assert all(a is b for a, b in zip(back, Role))
                assert [type(one) for one in back[len(Role):]] == CLASSES
        """,
        tmp_path,
    )


def test_under_spawn_a_class_that_was_defined_again_is_not_the_imported_one(tmp_path):
    """Its name and its methods' names agree with what the child has imported."""
    run(
        """
        import multiprocessing
        class Config:
            rate = 0.1
        class Worker:
            rate = 0.1
            def look(self):
                return self.rate
        class Base:
            rate = 0.1
        class Derived(Base):
            pass
        def work(share):
            assert [one.rate for one in share.get()] == [0.5, 0.5, 0.5]
            share.set([Config(), Worker(), Derived()])
        if __name__ == "__main__":
            first = [Config, Worker, Derived]
            class Config:
                rate = 0.5
            class Worker:
                rate = 0.5
                def look(self):
                    return self.rate
            class Base:
                rate = 0.5
            class Derived(Base):
                pass
            share = Share([Config(), Worker(), Derived()])
            child = multiprocessing.get_context("spawn").Process(target=work, args=(share,))
            child.start()
            child.join()
            assert child.exitcode == 0
            assert [one.rate for one in share.get()] == [0.1, 0.1, 0.1]
            assert [type(one) for one in share.get()] != [Config, Worker, Derived]
        """,
        tmp_path,
    )


@pytest.mark.classes_end
def test_a_mark_is_inherited_and_ends_with_its_object():
    made = [type("Early", (), {})]

    def look(child):
        mark = inside.mark_of(made[0])
        child.say((mark, inside.descendant(address, mark) is made[0]))

    address = id(made[0])
    child = Child(look)
    mark, is_found = child.hear()
    assert mark == inside.mark_of(made[0])
    assert is_found
    assert inside.descendant(address, bytes(16)) is None

    gone = weakref.ref(made.pop())
    child.wait()
    gc.collect()
    assert gone() is None
    assert inside.descendant(address, mark) is None
    in_child(os.getpid)  # At a fork the dead ones go, or another has the address.
    entry = inside.descent_marks.get(address)
    assert entry is None or entry[1] != mark


def test_what_stands_for_a_module_and_is_none_gets_no_mark(monkeypatch):
    monkeypatch.setitem(sys.modules, "__mp_main__", 5)
    in_child(os.getpid)
    assert not any(type(entry[0]()) is int for entry in list(inside.descent_marks.values()))
