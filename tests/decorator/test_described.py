"""Annotations and signatures of what is decorated are those of the plain functions and classes."""

import copy
import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator

import cloudpickle
import pytest

from mmapshare import shared_state

SOURCE = """
@shared
def early(state, later: Later, *more: int) -> "list[Later]":
    return [later, *more]

@shared
async def early_async(state, later: Later) -> Later:
    return later

class Holder:
    @shared
    def method(self, state, later: Later) -> Later:
        return later

    @classmethod
    @shared
    def of_class(cls, state, later: Later) -> Later:
        return later

@shared
class Thing:
    later: Later
    number: int = 0

    def __init__(self, later: Later) -> None:
        self.number = 1

    def act(self, other: Later) -> "Later":
        return other

    async def act_async(self, other: Later) -> Later:
        return other
"""
NAMES = [
    "early",
    "early_async",
    "Holder.method",
    "Holder.of_class",
    "Holder().method",
    "Thing",
    "Thing.act",
    "Thing.act_async",
]
STYLES = {
    "strings": SOURCE.replace(": Later", ": 'Later'").replace("> Later", "> 'Later'"),
    "future": "from __future__ import annotations\n" + SOURCE,
}
if sys.version_info >= (3, 14):
    STYLES["late"] = SOURCE
# Two modules of one source, the one decorated, the other plain.
Pair = tuple[types.ModuleType, types.ModuleType]


@pytest.fixture(params=STYLES)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    made = []
    for name, decorate in (("as_shared", shared_state), ("as_plain", lambda plain: plain)):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        vars(module)["shared"] = decorate
        exec(STYLES[request.param], vars(module))
        made.append(module)
    yield made[0], made[1]
    for module in made:
        vars(module).clear()


def _define_later(pair: Pair) -> None:
    class Later:
        pass

    for module in pair:
        vars(module)["Later"] = Later


def _found(pair: Pair, name: str) -> list[typing.Any]:
    return [eval(name, vars(module)) for module in pair]


def _same(told: typing.Callable[[typing.Any], typing.Any], *asked: typing.Any) -> None:
    assert told(asked[0]) == told(asked[1])


@pytest.mark.parametrize("name", NAMES)
def test_annotations_are_the_plain_ones(pair, name):
    _define_later(pair)
    shared, plain = (eval(name.replace("Thing()", "Thing"), vars(module)) for module in pair)
    _same(inspect.get_annotations, shared, plain)
    _same(functools.partial(inspect.get_annotations, eval_str=True), shared, plain)
    _same(typing.get_type_hints, shared, plain)
    _same(lambda it: it.__annotations__, shared, plain)
    assert typing.get_type_hints(shared)


def test_a_bound_one_keeps_its_annotations_when_its_class_is_asked_for_any(pair):
    """By who looks at all classes, as debuggers and documentation do."""
    shared, plain = _found(pair, "Holder().method")
    assert type(shared).__annotations__ == inspect.get_annotations(type(shared)) == {}
    assert shared.__annotations__ == plain.__annotations__ != {}


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_the_plain_ones_but_for_the_state(pair, name):
    _define_later(pair)
    shared, plain = (inspect.signature(found) for found in _found(pair, name))
    left = [p for p in plain.parameters.values() if p.name != "state"]
    assert shared == plain.replace(parameters=left)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotationlib is new in Python 3.14")
@pytest.mark.parametrize("name", NAMES)
def test_what_annotations_name_may_be_defined_later(pair, name):
    """Decorating asked for the annotations at once, which was a NameError; then they were ours."""
    import annotationlib

    def told(format: annotationlib.Format) -> typing.Callable[[typing.Any], typing.Any]:
        def names_and_values(found: typing.Any) -> dict[str, typing.Any]:
            given = annotationlib.get_annotations(found, format=format)
            return {name: getattr(of, "__forward_arg__", of) for name, of in given.items()}

        return names_and_values

    for format in (annotationlib.Format.FORWARDREF, annotationlib.Format.STRING):
        _same(told(format), *_found(pair, name))
    _define_later(pair)
    for format in annotationlib.Format:
        if format != annotationlib.Format.VALUE_WITH_FAKE_GLOBALS:
            _same(told(format), *_found(pair, name))


def test_a_signature_that_cannot_be_told_at_once_is_told_later(pair):
    shared, _ = _found(pair, "early")
    shown = re.sub("[\"']", "", str(inspect.signature(shared)))
    assert (
        re.sub(r"ForwardRef\((\w+),.*?>\)", r"\1", shown)
        == "(later: Later, *more: int) -> list[Later]"
    )
    assert shared(3, 4) == [3, 4]


def test_annotations_may_be_changed_and_taken_away():
    @shared_state
    def noted(state, n: int) -> int:
        return n

    noted.__annotations__ = {"n": float}
    assert inspect.get_annotations(noted) == {"n": float}
    del noted.__annotations__
    assert inspect.get_annotations(noted) == {}


def test_what_has_no_annotations_shows_none():
    bare = shared_state(functools.partial(lambda state, n: n))
    assert inspect.get_annotations(bare) == {}

    @shared_state
    class Bare:
        def act(self):
            return 1

    assert inspect.get_annotations(Bare) == typing.get_type_hints(Bare) == {}
    assert inspect.get_annotations(Bare.act) == {}
    assert inspect.get_annotations(type(bare)) == {}


def test_a_class_of_which_python_tells_no_signature_shows_none():
    class Init:
        @property
        def __signature__(self):
            raise ValueError("no signature found")

        def __call__(self):
            """Never called."""

    class Untold:
        __init__ = Init()

    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(Untold)
    assert not hasattr(shared_state(Untold), "__signature__")


def test_a_partial_method_travels_by_value():
    """Python 3.14's own way to pickle one fails as it is loaded."""

    class Greeter:
        def greet(self, word, name):
            return f"{word} {name}"

        hello = functools.partialmethod(greet, "hello")
        bye = functools.partialmethod(greet, name="all")

    again = cloudpickle.loads(cloudpickle.dumps(Greeter))
    assert (again().hello("you"), again().bye("bye")) == ("hello you", "bye all")
    assert copy.copy(again()).hello("you") == "hello you"


def test_a_shared_class_with_a_property_travels_by_value():
    """A property's getter was asked for a name in its class, which it has not."""

    @shared_state
    class Thing:
        def __init__(self):
            self._number = 1

        @property
        def number(self):
            return self._number

        @number.setter
        def number(self, number):
            self._number = number

        def twice(self):
            return 2 * self._number

    again = cloudpickle.loads(cloudpickle.dumps(Thing))()
    again.number = 3
    assert (again.number, again.twice()) == (3, 6)
