"""All that an object is, told alike in every process; what it decides: see test_descent."""

import enum
import functools
import os
import subprocess
import sys
import threading
import types

import pytest
from support import TESTS, inside
from support.inside import content_of, source_of

from mmapshare import Share


def _made(**members):
    return type("Made", (), members)


def _function(value, default=1, *, key=2):
    def inner():
        return value, default, key

    return inner


class Loop:
    def __init__(self):
        self.own = self


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: [x, (x, {x: [x]})],
        lambda x: {x, frozenset({x})},
        lambda x: {x: 1}.keys(),
        lambda x: {1: x}.values(),
        lambda x: {x: x}.items(),
        lambda x: types.MappingProxyType({1: x}),
        lambda x: _made(_private=x),
        lambda x: _made(data=[x]),
        lambda x: _made(look=_function(x)),
        lambda x: _made(look=_function([x])),
        lambda x: _made(look=property(_function({"k": x}))),
        lambda x: _made(look=staticmethod(_function([x]))),
        lambda x: _made(look=classmethod(_function([x]))),
        lambda x: _made(look=functools.partial(max, [x])),
        lambda x: _made(look=functools.lru_cache(_function([x]))),
        lambda x: _made(look=functools.partial(_function(1), key=[x])),
        lambda x: type("Derived", (_made(n=x),), {}),
        lambda x: _made(nested=_made(n=[x])),
        lambda x: enum.Enum("Mood", {"GOOD": frozenset({x})}),
        lambda x: enum.Enum("Mood", {"GOOD": [x]}).GOOD,
        lambda x: types.SimpleNamespace(a=[x]),
        lambda x: eval("lambda: look", {"look": [x]}),
        lambda x: eval("lambda: lambda: look", {"look": [x]}),
        lambda x: eval(f"lambda n={{{x!r}: 1}}: n"),
        lambda x: eval(f"lambda: {x!r}").__code__,
        lambda x: eval(f"lambda: (lambda: ({x!r}, 1))").__code__,
        lambda x: [x].append,
        lambda x: (str, int)[x == "a"],
    ],
)
def test_what_differs_within_is_another_content(make):
    assert content_of(make("a")) == content_of(make("a"))
    assert content_of(make("a")) != content_of(make("b"))
    assert content_of(make("a"))


@pytest.mark.parametrize(
    "thing",
    [
        len, os, os.path, str.join, type.__dict__["__dict__"], Loop(), object(), [].append,
        ValueError("x"), int | str, list[int], ..., None, NotImplemented, 1.5, b"x",
    ],
)  # fmt: skip
def test_whatever_it_is_has_a_content(thing):
    assert content_of(thing) == content_of(thing) != b""


def test_what_cannot_be_pickled_is_its_type():
    assert content_of(threading.Lock()) == content_of(threading.Lock())
    assert content_of(threading.Lock()) != content_of(sys._getframe())


def test_a_share_is_not_looked_into():
    """Pickling one is noted, and what is noted is kept alive by the next value that is stored."""
    assert content_of(Share([1])) == content_of(Share([2]))
    assert not inside.named_handle


def test_of_too_much_there_is_no_content(monkeypatch):
    monkeypatch.setattr(*inside.at("CONTENT_MOST"), 100)
    assert content_of([[]] * 50)
    assert content_of([[]] * 200) == b""
    deep = []
    for _ in range(100_000):
        deep = [deep]
    monkeypatch.setattr(*inside.at("CONTENT_MOST"), 1_000_000)
    assert content_of(deep) == b""


def test_what_python_adds_to_a_class_is_no_part_of_it():
    import copyreg

    cls, other = _made(x=1), _made(x=1)
    before = content_of(cls)
    assert copyreg._slotnames(cls) == vars(cls)["__slotnames__"] == []
    assert cls.__annotations__ == {}
    assert content_of(cls) == before == content_of(other)
    assert content_of(_made(x=1, __annotations__={"x": int})) != before


def test_globals_count_unless_only_what_is_its_own_is_asked_for():
    one, other = (eval("lambda: look + gone", {"look": n}) for n in (1, 2))
    assert content_of(one) != content_of(other)
    assert content_of(one, shallow=True) == content_of(other, shallow=True)
    assert content_of(_made(a=1)) != content_of(_made(a=2))
    assert content_of(_made(a=1), shallow=True) == content_of(_made(a=2), shallow=True)


def test_what_is_taken_by_value_is_not_importable():
    import email
    import email.message

    import cloudpickle

    message = email.message.Message
    assert inside.importable(message)
    for module in (email, email.message):
        cloudpickle.register_pickle_by_value(module)
        try:
            assert not inside.importable(message)
            assert inside.importable(os.PathLike)
        finally:
            cloudpickle.unregister_pickle_by_value(module)
    assert not inside.importable(Loop().__init__)
    assert inside.importable(Loop.__init__)


SOURCE = """
import sys
class Task:
    def look(self):
        pass
    look.extra = 1
class Bare:
    n = 1
def factory():
    class Task:
        def look(self):
            pass
    return Task
made = type("Task", (), {"look": Task.look, "other": lambda self: 1})
"""


def test_the_place_in_the_source_is_told_by_methods_of_the_class(tmp_path, monkeypatch):
    path = tmp_path / "planted.py"
    path.write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    import planted

    monkeypatch.setattr(*inside.at("shape_files"), {})
    found = source_of(planted.Task)
    stat = path.stat()
    assert found == (str(path), stat.st_mtime_ns, stat.st_size, (("look", 4),))
    assert source_of(planted.Bare) is None
    assert source_of(planted.factory()) != found
    assert source_of(int) is None

    path.write_text(SOURCE + "# edited")  # What was read is what it was.
    assert source_of(planted.Task) == found
    monkeypatch.setattr(*inside.at("shape_files"), {})
    assert source_of(planted.Task) != found
    path.unlink()
    monkeypatch.setattr(*inside.at("shape_files"), {})
    assert source_of(planted.Task) is None


PROGRAM = """
import enum, functools
from support.inside import content_of
class Opaque:
    def __init__(self): self.names = {"alpha", "beta", "gamma", "delta"}
class Role(enum.Enum):
    A = frozenset({frozenset({"alpha", "beta"}), ("gamma", frozenset({"delta", "epsilon"}))})
    B = Opaque()
    C = {"alpha": {"x", "y", "z"}}.items()
    D = enum.member(functools.partial(max, {"alpha", "beta", "gamma"}))
    def look(self, marker=object(), names={"alpha", "beta", "gamma"}):
        return marker, names, TABLE, {"alpha", "beta", "gamma", "delta"}
TABLE = dict.fromkeys({"alpha", "beta", "gamma"}, object())
print(content_of(Role).hex(), content_of([Role.B, Opaque]).hex(), list({"alpha", "beta", "gamma"}))
"""


def test_the_seed_of_hashes_and_addresses_are_no_part_of_it():
    contents, orders = set(), set()
    for seed in range(4):
        done = subprocess.run(
            [sys.executable, "-c", f"junk = [object() for _ in range({seed})]\n{PROGRAM}"],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": TESTS},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        first, second, order = done.stdout.split(" ", 2)
        contents.add((first, second))
        orders.add(order)
    assert len(orders) > 1
    assert len(contents) == 1


def test_the_dict_that_a_classs_annotations_look_into_is_no_part_of_them():
    """From Python 3.14 on it is the class's own, docs and all, so that no two were alike."""

    def made(scope):
        __classdict__ = scope

        def annotate():
            return __classdict__

        return annotate

    assert inside.content_of(made({"a": 1})) == inside.content_of(made({"b": 2}))
