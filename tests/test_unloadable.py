"""Values that can be stored and do not load: who is affected, what it says, what replaces them."""

import copyreg
import pickle
import sys
import types

import numpy
import pytest
from support import in_child, inside
from support.inside import decode, encode

from mmapshare import (
    CorruptRegionError,
    Share,
    SharedDict,
    UnloadableError,
    UnpicklableError,
    locked,
    shared_state,
)


class ApiError(Exception):
    """The field's own: it pickles with its ``args``, which its ``__init__`` does not take."""

    def __init__(self, code, text):
        super().__init__(f"{code} {text}")


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
    if name == "HashesTooEarly":
        found = {"builtins.set"}
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


# --- Share ---------------------------------------------------------------------------------


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
        assert repr(view) == "<View of version 2: <unloadable: test_unloadable.ApiError>>"
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


# --- SharedDict ----------------------------------------------------------------------------


@pytest.fixture(params=[0, numpy.zeros(10_000)], ids=["alone", "beside an array"])
def make_mixed(request):
    """Two values that load, and between them one that does not."""

    def make():
        shared = SharedDict(a=1)
        shared["e"] = [ApiError(1, "x"), request.param]
        shared["z"] = 3
        return shared

    return make


def test_a_key_whose_value_does_not_load_is_named(make_mixed):
    mixed = make_mixed()
    for read in (
        lambda: mixed["e"],
        lambda: mixed.get("e"),
        lambda: mixed.snapshot()["e"],
        lambda: mixed.copy(),
        lambda: mixed.setdefault("e"),
        lambda: mixed.pop("e"),
        lambda: mixed.transact(lambda view: view["e"]),
        lambda: in_child(lambda: mixed["e"]),
    ):
        with pytest.raises(UnloadableError, match=r"^value\['e'\] cannot .* .*ApiError") as caught:
            read()
        assert (caught.value.key, caught.value.path) == ("e", "value['e']")
        assert caught.value.name == "test_unloadable.ApiError"
    assert mixed.version == 3


def test_other_keys_are_not_affected(make_mixed):
    mixed = make_mixed()
    assert mixed["a"] == 1 and mixed.get("z") == 3
    assert list(mixed) == list(reversed(list(reversed(mixed)))) == ["a", "e", "z"]
    assert len(mixed) == 3 and "e" in mixed
    assert mixed.popitem() == ("z", 3)
    mixed.update(b=2, a=0)
    assert mixed.pop("a") == 0 and mixed.snapshot()["b"] == 2
    with mixed.locked() as view:
        assert "e" in view and list(view) == ["e", "b"]
        view["b"] += 1
    mixed.transact(lambda view: view.update(b=view["b"] + 1))
    assert mixed["b"] == 4 and mixed.wait(lambda d: d["b"] == 4, timeout=0)


def test_what_does_not_load_is_shown_as_such(make_mixed):
    mixed = make_mixed()
    shown = "{'a': 1, 'e': <unloadable: test_unloadable.ApiError>, 'z': 3}"
    assert repr(mixed) == shown
    with mixed.locked() as view:
        assert repr(view) == f"<View of version 3: {shown}>"
    mixed["e"] = ApiError(1, "x")
    assert "'e': <unloadable: test_unloadable.ApiError>" in mixed._repr_mimebundle_()["text/plain"]
    assert mixed.info().version == 4


@pytest.mark.parametrize(
    "take_out",
    [
        lambda d: d.pop("e", None),
        lambda d: d.__delitem__("e"),
        lambda d: d.clear(),
        lambda d: d.__setitem__("e", 2),
        lambda d: d.update(e=2),
    ],
)
@pytest.mark.parametrize("within", ["alone", "block", "transaction"])
def test_what_does_not_load_is_taken_out_or_replaced(make_mixed, take_out, within):
    mixed = make_mixed()
    if within == "alone":
        take_out(mixed)
    elif within == "block":
        with mixed.locked() as view:
            take_out(view)
    else:
        mixed.transact(take_out)
    assert mixed.get("e") in {None, 2}
    assert mixed.version == 4


def test_pop_of_what_is_not_there_is_as_a_dicts(make_mixed):
    mixed = make_mixed()
    assert mixed.pop("nothing", 5) == 5
    with pytest.raises(KeyError, match="nothing"):
        mixed.pop("nothing")


def test_the_last_item_that_does_not_load_stays_and_is_named(make_mixed):
    mixed = make_mixed()
    del mixed["z"]
    with pytest.raises(UnloadableError) as caught:
        mixed.popitem()
    del mixed[caught.value.key]
    assert mixed.popitem() == ("a", 1)


def test_iteration_goes_on_behind_what_does_not_load(make_mixed):
    mixed = make_mixed()
    for items in (mixed.items(), mixed.values(), reversed(mixed.items()), reversed(mixed.values())):
        found, iterator = [], iter(items)
        while True:
            try:
                found.append(next(iterator))
            except UnloadableError:
                continue
            except StopIteration:
                break
        assert found in ([("a", 1), ("z", 3)], [1, 3], [("z", 3), ("a", 1)], [3, 1])


def test_a_key_that_does_not_load_is_refused_before_anybody_meets_it():
    shared = SharedDict(a=1)
    with pytest.raises(UnpicklableError, match="cannot be loaded again"):
        shared[(ApiError(1, "x"),)] = 1
    assert dict(shared) == {"a": 1}


# --- Nested too deeply ---------------------------------------------------------------------


class Node:
    def __init__(self, next=None):
        self.next = next


def nested(depth):
    made = []
    for _ in range(depth):
        made = [made]
    return made


def chain(depth):
    made = Node()
    for _ in range(depth):
        made = Node(made)
    return made


def _unlink(made):
    """What is nested too deeply cannot always be freed as a whole, either."""
    while made:
        made = made.pop() if isinstance(made, list) else made.__dict__.pop("next", None)


@pytest.mark.parametrize(
    "beside",
    [[], [lambda: 1], [numpy.zeros(1000)]],
    ids=["pickle", "cloudpickle", "buffers"],
)
@pytest.mark.parametrize("make_deep", [nested, chain])
def test_what_is_nested_too_deeply_is_said_in_a_line(make_deep, beside):
    """It was 3 KB that blamed an innocent part, after seconds under the lock."""
    made = make_deep(200_000)
    share, shared = Share([1]), SharedDict(k=1)

    def in_block():
        with share.locked() as view:
            view.append([*beside, made])

    for store, path in (
        (lambda: share.set([*beside, made]), "value"),
        (in_block, "value"),
        (lambda: shared.__setitem__("k", [*beside, made]), "value['k']"),
    ):
        with pytest.raises(UnpicklableError, match="nested too deeply") as caught:
            store()
        assert caught.value.path == path
        assert str(caught.value).startswith(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert (share.get(), shared["k"]) == ([1], 1)
    _unlink(made)


def test_no_part_is_tried_where_it_is_nested_too_deeply(monkeypatch):
    made = nested(200_000)
    monkeypatch.setattr(*inside.at("blame_in_codec"), None)
    with pytest.raises(UnpicklableError, match="nested too deeply"):
        encode(made)
    _unlink(made)


def test_the_search_for_a_part_makes_no_copies_of_arrays():
    """Each part was pickled once more into memory, arrays and all."""
    import threading
    import tracemalloc

    array = numpy.zeros(4 << 20)
    value = {"x": array, "y": [array, array[::-1].copy()], "lock": threading.Lock()}
    tracemalloc.start()
    try:
        with pytest.raises(UnpicklableError) as caught:
            encode(value)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.path == "value['lock']"
    assert peak < 8 << 20


def test_what_others_registered_with_copyreg_counts(monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, Node, lambda node: (Node, (7,)))
    assert decode(encode([Node()]))[0].next == 7
