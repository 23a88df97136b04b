"""Values that can be stored and do not load: who is affected, what it says, what replaces them."""

import pickle
import sys
import types

import pytest
from support import in_child, inside
from support.inside import decode, encode
from support.values import ApiError

from mmapshare import (
    CorruptRegionError,
    Share,
    UnloadableError,
    locked,
    shared_state,
)


class Refuses:
    def __setstate__(self, state):
        raise RuntimeError("not here")

    def __getstate__(self):
        return {"a": 1}


class HashesTooEarly:
    def __init__(self):
        self.name = "x"
        self.others = {self}

    def __hash__(self):
        return hash(self.name)


class ByNew:
    def __new__(cls, n):
        if n < 0:
            raise OverflowError("below zero")
        return super().__new__(cls)

    def __getnewargs__(self):
        return (-1,)


class ByNewKeywords(ByNew):
    def __getnewargs_ex__(self):
        return (), {"n": -1}


class PickyList(list):
    def append(self, item):
        raise ValueError("no more")

    extend = append


class PickyDict(dict):
    def __setitem__(self, key, value):
        raise ValueError("no more")


def _appends():
    made = PickyList()
    list.append(made, 1)
    return made


def _appends_many():
    return PickyList([1, 2])


def _sets():
    return PickyDict(a=1)


def _sets_many():
    return PickyDict(a=1, b=2)


def _reduced():
    raise LookupError("by a function")


class ByFunction:
    def __reduce__(self):
        return _reduced, ()


class GoneModule:
    """Its module is not to be had where it is loaded."""

    def __reduce__(self):
        return sys.modules["soon_gone"].make, ()


def _of_a_module_that_goes():
    module = types.ModuleType("soon_gone")
    exec("def make(): pass", vars(module))
    module.make.__module__ = "soon_gone"
    sys.modules["soon_gone"] = module
    try:
        return encode(GoneModule())
    finally:
        del sys.modules["soon_gone"]


CULPRITS = {
    "ApiError": lambda: ApiError(1, "x"),
    "Refuses": Refuses,
    "HashesTooEarly": HashesTooEarly,
    "ByNew": lambda: ByNew(1),
    "ByNewKeywords": lambda: ByNewKeywords(1),
    "_reduced": ByFunction,
    "PickyList": _appends,
    "PickyDict": _sets,
    "PickyList ": _appends_many,
    "PickyDict ": _sets_many,
}
every_culprit = pytest.mark.parametrize("name", CULPRITS)


@every_culprit
def test_what_refuses_to_load_is_named(name):
    value = CULPRITS[name]()
    share = Share([{"n": 1}, value, {2}])
    with pytest.raises(UnloadableError) as caught:
        share.get()
    found = {f"test_unloadable.{name.strip()}"}
    if name in {"HashesTooEarly", "ApiError"}:
        found = {"builtins.set" if name == "HashesTooEarly" else "support.values.ApiError"}
    assert {caught.value.name} == found
    assert caught.value.__cause__ is not None
    assert str(caught.value.__cause__) in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.name, again.path) == (str(caught.value), *found, "value")


def test_a_module_that_is_not_here_is_named_and_is_no_damage():
    with pytest.raises(UnloadableError, match="soon_gone") as caught:
        decode(_of_a_module_that_goes())
    assert caught.value.name == "soon_gone.make"


def test_a_large_value_that_refuses_is_told_from_damage_by_its_error(monkeypatch):
    """Reading a large stream once more, slowly, would take too long."""
    monkeypatch.setattr(*inside.at("SCANNED_BYTES"), 10)
    with pytest.raises(UnloadableError) as caught:
        decode(encode([ApiError(1, "x")]))
    assert caught.value.name is None
    stream = bytearray(encode([1] * 100)[0])
    stream[12] = pickle.POP[0]
    with pytest.raises(CorruptRegionError):
        decode((stream[:20],))


def test_what_refused_once_only_is_not_named():
    """A signal handler's exception may have come in between."""
    err = inside.why_unloadable(encode([1, 2]), TimeoutError("a handler's"))
    assert (type(err), err.name) == (UnloadableError, None)
    assert "a handler's" in str(err)


def test_damage_is_told_from_a_class_that_refuses():
    stream = encode([ApiError(1, "x")])[0]
    found = set()
    for at in range(len(stream)):
        for bit in (1, 128):
            damaged = bytearray(stream)
            damaged[at] ^= bit
            with pytest.raises((UnloadableError, CorruptRegionError)) as caught:
                decode((bytes(damaged),))
            found.add(type(caught.value))
    assert found == {UnloadableError, CorruptRegionError}
    with pytest.raises(CorruptRegionError):
        decode((pickle.PROTO + b"\x05" + b"K\x01)R.",))  # It calls a number.
    with pytest.raises(CorruptRegionError):
        decode((b"\x80\x05K\x010.",))  # Nothing is left to be the value.


def test_no_memory_to_look_for_damage_with_is_none(monkeypatch):
    def genops(stream):
        raise MemoryError

    monkeypatch.setattr("pickletools.genops", genops)
    assert inside.is_sound(b"whatever")


def test_a_deep_recursion_while_loading_says_so():
    class Deep:
        def __reduce__(self):
            return _recurse, ()

    with pytest.raises(UnloadableError, match="nested too deeply") as caught:
        decode(encode(Deep()))
    assert isinstance(caught.value.__cause__, RecursionError)
    err = inside.why_unloadable(encode(Deep()), ValueError("at first"))
    assert (type(err), err.name) == (UnloadableError, "test_unloadable._recurse")


def _recurse():
    return _recurse()


def make_broken():
    """A share whose block has appended what does not load: all was refused, for good."""
    share = Share({"jobs": [1, 2], "errors": []})
    with share.locked() as view:
        view["errors"].append(ApiError(1, "x"))
    return share


def test_a_block_can_replace_what_does_not_load():
    broken = make_broken()
    with broken.locked() as view:
        view.value = {"jobs": []}
        assert view["jobs"] == []
    assert broken.get() == {"jobs": []}


def test_a_block_on_what_does_not_load_says_so_at_its_first_use():
    broken = make_broken()
    with broken.locked() as view:
        for use in (
            lambda: view["jobs"],
            lambda: view.value,
            lambda: view.jobs,
            lambda: setattr(view, "jobs", 1),
            lambda: delattr(view, "jobs"),
            lambda: len(view),
            lambda: view == {},
            lambda: view.__setitem__("jobs", 1),
            lambda: view.__delitem__("jobs"),
            lambda: list(view),
        ):
            with pytest.raises(UnloadableError, match="ApiError"):
                use()
        assert repr(view) == "<View of version 2: <unloadable: support.values.ApiError>>"
        assert view.version == 2
    assert broken.version == 2
    with pytest.raises(UnloadableError), broken.locked() as view:
        view["jobs"]
    assert broken.info().holder_pid is None


def test_a_rollback_brings_back_what_does_not_load():
    broken = make_broken()
    with broken.locked() as view:
        view.value = 1
        view.rollback()
        with pytest.raises(UnloadableError):
            view.value
    assert broken.version == 2
    with broken.locked() as view:
        view.rollback()
        view.value = 1
    assert broken.get() == 1


def test_what_does_not_load_is_replaced_together_with_others():
    broken = make_broken()
    other = Share(1)
    with locked(broken, other) as (view, other_view):
        view.value = other_view.value
    with locked(broken, other) as (_, other_view):
        other_view.value = 2
    assert (broken.get(), other.get()) == (1, 2)


def test_set_repr_info_card_and_wait_work_on_what_does_not_load():
    broken = make_broken()
    assert "version 2" in repr(broken)
    assert broken.info().version == 2
    assert "UnloadableError" in broken._repr_mimebundle_()["text/plain"]
    assert broken.wait(since=1, timeout=0)
    with pytest.raises(UnloadableError, match="ApiError"):
        broken.wait(lambda value: True, timeout=0)
    for read in (
        broken.get,
        broken.snapshot,
        lambda: broken.update(len),
        lambda: broken.update(len, optimistic=True),
    ):
        with pytest.raises(UnloadableError, match="ApiError"):
            read()
    assert broken.set({"jobs": []}, if_version=2) == 3


def test_changes_go_on_behind_what_does_not_load():
    broken = make_broken()
    changes = broken.changes(since=1, timeout=0)
    with pytest.raises(UnloadableError):
        next(changes)
    assert list(changes) == []
    broken.set(5)
    assert [snapshot.value for snapshot in changes] == [5]


def test_only_the_process_that_cannot_load_a_value_is_affected(monkeypatch):
    share = Share()

    def store():
        monkeypatch.setattr(ApiError, "__init__", Exception.__init__)
        share.set([ApiError("a")])
        return share.get()[0].args

    assert in_child(store) == ("a",)
    with pytest.raises(UnloadableError):
        share.get()


def test_a_function_with_such_a_state_says_so_and_can_reset_it():
    @shared_state(initial=[])
    def note(state, what):
        state.append(what)

    note(ApiError(1, "x"))
    with pytest.raises(UnloadableError, match="ApiError"):
        note("more")
    note.reset()
    note("more")
    assert note.share.get() == ["more"]
