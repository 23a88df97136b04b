"""A block that changed nothing publishes nothing, whatever its value is."""

import array
import collections
import dataclasses
import datetime
import enum
import fractions
import functools
import pathlib
import pickle
import re
import subprocess
import sys
import types
import uuid

import cloudpickle
import numpy
import pytest
from support import in_child, inside
from support.inside import decode, encode

from mmapshare import Share, SharedDict, locked


class Job:
    def __init__(self, id, next=None):
        self.id = id
        self.next = next


class Slotted:
    __slots__ = ("id",)

    def __init__(self, id):
        self.id = id


@dataclasses.dataclass(frozen=True)
class Frozen:
    id: str


class Tags(set):
    pass


class FrozenTags(frozenset):
    pass


class Labels(dict):
    pass


class Items(list):
    pass


class Colour(enum.Enum):
    RED = "red"


class Twice:
    """Pickles in one way when it is made and in another when it is loaded."""

    def __init__(self, loaded=False):
        self.loaded = loaded

    def __reduce__(self):
        return (Twice, (True,)) if self.loaded else (_made, (1, 2, 3))


def _made(*_):
    return Twice(True)


Point = collections.namedtuple("Point", "id y")


def graph():
    nodes = [Job(n) for n in range(12)]
    for node, other in zip(nodes, nodes[1:] + nodes[:1], strict=True):
        node.next = other
    return {"nodes": set(nodes), "root": nodes[0], "frozen": frozenset(nodes[3:7])}


def own_set():
    job = Job(1)
    job.next = {job, Job(2), Job(3)}
    return {"of": job.next}


def labels():
    made = Labels(id=1)
    made.id = {"id"}
    return made


def tags():
    made = Tags(f"t{n}" for n in range(30))
    made.id = 7
    return {"id": made, "of jobs": Tags(map(Job, range(9))), "frozen": FrozenTags(map(Job, "ab"))}


VALUES = {
    "an attribute's name that is a key": lambda: {"id": 7, "jobs": [Job(1)]},
    "a class's name that is a value": lambda: {
        "kind": "Job",
        "jobs": [Job(1)],
        "m": Job.__module__,
    },
    "an enum's value that is a key": lambda: {"red": 1, "colour": Colour.RED},
    "a path's part that is a key": lambda: {"tmp": 1, "path": pathlib.PurePath("/tmp/id")},
    "slots": lambda: {"id": 1, "x": Slotted("id")},
    "a dataclass": lambda: {"id": "id", "x": Frozen("id")},
    "a namedtuple": lambda: {"id": Point("id", "y")},
    "a strided array": lambda: {"x": numpy.arange(20)[::2]},
    "a large strided array": lambda: {"x": numpy.arange(40_000)[::2]},
    "a transposed array": lambda: numpy.arange(20_000).reshape(100, 200)[::2].T,
    "a masked array": lambda: {"x": numpy.ma.masked_array([1, 2, 3], [0, 1, 0])},
    "a large masked array": lambda: numpy.ma.masked_array(
        numpy.arange(9000), numpy.arange(9000) % 2
    ),
    "records": lambda: numpy.zeros(3, [("id", "i4"), ("x", "f8")])[::2],
    "an array of objects": lambda: numpy.array([{"id"}, Job(1), "id"], dtype=object),
    "a memoryview": lambda: {"m": memoryview(b"abc"), "w": memoryview(bytearray(9000))},
    "a memoryview with gaps": lambda: memoryview(bytes(range(200)))[::2],
    "a set beside an array": lambda: {"t": {f"w{n}" for n in range(50)}, "x": numpy.zeros(10_000)},
    "an attribute beside an array": lambda: {"id": 7, "j": Job(1), "x": numpy.zeros(10_000)},
    "a strided array beside a set": lambda: [
        {f"w{n}" for n in range(50)},
        numpy.zeros(30_000)[::3],
    ],
    "sets in sets": lambda: {frozenset({f"{n}{m}" for m in range(5)}) for n in range(9)},
    "sets of tuples": lambda: {(f"a{n}", n, None) for n in range(40)},
    "a set of objects": lambda: {Job(n) for n in range(20)},
    "a set of objects beside an array": lambda: [set(map(Job, range(9))), numpy.zeros(10_000)],
    "sets of objects that are elsewhere too": graph,
    "a set of objects that have it": own_set,
    "subclasses of set": tags,
    "a subclass of dict": labels,
    "a subclass of list": lambda: Items([{"id"}, Job("id")]),
    "a dict's keys": lambda: collections.OrderedDict.fromkeys([Frozen("id"), "id"]),
    "a Counter": lambda: collections.Counter("abracadabra"),
    "a defaultdict of sets": lambda: collections.defaultdict(set, id={f"w{n}" for n in range(9)}),
    "a deque": lambda: collections.deque([Job("id"), "id"], maxlen=3),
    "a namespace": lambda: types.SimpleNamespace(id="id", x={"id"}),
    "an array.array": lambda: array.array("d", [1.0, 2.0]),
    "a lambda": lambda: {"id": 1, "f": lambda id: id + 1},
    "a partial": lambda: functools.partial(Job, id="id"),
    "an exception": lambda: ValueError("id", {"id": Job(1)}),
    "a pattern": lambda: {"id": re.compile("id")},
    "dates": lambda: [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), datetime.UTC],
    "a uuid": lambda: {"int": uuid.UUID(int=7)},
    "a fraction": lambda: {"1/3": fractions.Fraction(1, 3)},
    "what pickles in two ways": lambda: [Twice(), Twice()],
}
every_value = pytest.mark.parametrize("make_value", VALUES.values(), ids=VALUES)


def look(share):
    with share.locked() as view:
        repr(view)
    with locked(share):
        pass


def look_at_key(shared):
    with shared.locked() as view:
        repr(view["k"])
    with locked(shared) as (view,):
        view["k"]


@every_value
def test_a_look_publishes_nothing(make_value):
    """Values whose second pickle differs from the first were committed by who looked at them."""
    share = Share(make_value())
    for _ in range(3):
        look(share)
    in_child(look, share)
    assert share.version == 1


@every_value
def test_a_look_at_a_key_publishes_nothing(make_value):
    shared = SharedDict(k=make_value(), n=1)
    for _ in range(3):
        look_at_key(shared)
    in_child(look_at_key, shared)
    assert shared.version == 1
    with shared.locked() as view:
        view["k"]
        view["n"] += 1
    begin = inside.index_of(shared).state.places["k"]
    with shared.locked() as view:
        view["k"]
        view["n"] += 1
    assert inside.index_of(shared).state.places["k"] == begin
    assert shared["n"] == 3


@every_value
def test_an_optimistic_look_publishes_nothing_and_runs_once(make_value):
    share, shared = Share(make_value()), SharedDict(k=make_value(), n=1)
    calls = []
    share.update(calls.append, optimistic=True)
    shared.transact(lambda view: calls.append(view["k"]))
    assert (len(calls), share.version, shared.version) == (2, 1, 1)


def change(value):
    """Some change in place, if the value allows one; else another value."""
    for way in (
        lambda: value.add("one more"),
        lambda: value.append("one more"),
        lambda: value.update({"one more": len(value)}),
        lambda: value.__setitem__(0, value[0] + 1),
        lambda: setattr(value, "one_more", 1),
    ):
        try:
            way()
        except (AttributeError, TypeError, ValueError, IndexError):
            continue
        return value
    return [value, "one more"]


@every_value
def test_every_change_is_published(make_value):
    """What was not touched may pickle to other bytes, but what was changed counts."""
    share = Share({"v": make_value(), "n": 0})
    shared = SharedDict(k={"v": make_value(), "n": 0})
    for n in range(1, 4):
        with share.locked() as view, shared.locked() as dict_view:
            view["n"] += 1
            dict_view["k"]["n"] += 1
        assert (share.version, shared.version) == (n + 1, n + 1)
    assert share.get()["n"] == shared["k"]["n"] == 3
    version = share.version
    with share.locked() as view, shared.locked() as dict_view:
        view["v"] = change(view["v"])
        dict_view["k"]["v"] = change(dict_view["k"]["v"])
    assert (share.version, shared.version) == (version + 1, version + 1)
    look(share)
    look_at_key(shared)
    assert (share.version, shared.version) == (version + 1, version + 1)


@pytest.fixture
def second_looks(monkeypatch):
    """How often a value is loaded once more to compare it with."""
    looks = []
    monkeypatch.setattr(
        *inside.at("decode_in_sameness"), lambda *args: looks.append(1) or decode(*args)
    )
    return looks


def test_changes_of_plain_data_are_not_looked_at_twice(second_looks):
    share, shared = Share({"n": 0, "xs": [b"x", (1.5, None)]}), SharedDict(n=0, xs=["x"])
    for _ in range(3):
        with share.locked() as view, shared.locked() as dict_view:
            view["n"] += 1
            dict_view["n"] += 1
            dict_view["xs"].append("y")
    assert not second_looks
    assert (share.version, shared.version) == (4, 4)


def test_changes_of_an_array_alone_are_not_looked_at_twice(second_looks):
    share, shared = Share(numpy.zeros(9000)), SharedDict(k=numpy.zeros(9000))
    for _ in range(3):
        with share.locked() as view, shared.locked() as dict_view:
            view.value[7] += 1
            dict_view["k"][7] += 1
    assert not second_looks
    assert share.get()[7] == shared["k"][7] == 3


@pytest.mark.parametrize("beside", [0, numpy.zeros(10_000)], ids=["alone", "beside an array"])
def test_changes_in_a_row_are_believed_after_a_few(second_looks, beside):
    """Each second look costs as much as the block's own load and dump."""
    share, shared = Share([Job(0), beside]), SharedDict(k=[Job(0), beside])
    for _ in range(600):
        with share.locked() as view:
            view[0].id += 1
        with shared.locked() as view:
            view["k"][0].id += 1
    assert share.get()[0].id == shared["k"][0].id == 600
    assert 8 <= len(second_looks) < 80  # With buffers each look loads twice.


def test_what_others_wrote_is_looked_at_again(second_looks):
    """Trust is in what this process's blocks have made, and not in the share."""
    share, shared = Share([Job(0)]), SharedDict(k=[Job(0)])
    for _ in range(50):
        with share.locked() as view, shared.locked() as dict_view:
            view[0].id += 1
            dict_view["k"][0].id += 1
    share.set(VALUES["an attribute's name that is a key"]())
    in_child(shared.__setitem__, "k", VALUES["an attribute's name that is a key"]())
    versions = share.version, shared.version
    look(share)
    look_at_key(shared)
    assert (share.version, shared.version) == versions


def test_a_look_at_what_ones_own_block_has_made_publishes_nothing():
    share, shared = Share([Job(0)]), SharedDict(k=[Job(0)])
    with share.locked() as view, shared.locked() as dict_view:
        view[0].more = {"id": Job("id")}
        dict_view["k"][0].more = {"id": Job("id")}
    look(share)
    look_at_key(shared)
    assert (share.version, shared.version) == (2, 2)


def test_trust_is_kept_for_a_bounded_number_of_keys():
    trusts = inside.Trusts()
    for key in range(3000):
        trusts[key].looked(True, b"a", b"b")
    assert list(trusts) == list(range(2000, 3000))


def test_a_set_that_costs_too_much_to_put_in_order_counts_as_changed(monkeypatch):
    """Members that each hold all the others pickle to the square of what they take."""
    value = [{Job(n) for n in range(5)}, 0]
    assert inside.same_but_for_sets(value, decode(encode(value)))
    monkeypatch.setattr(*inside.at("ORDERED_BYTES_MOST"), 100)
    assert not inside.same_but_for_sets(value, decode(encode(value)))


@pytest.mark.parametrize("beside", [numpy.zeros(10_000), 0])
def test_an_optimistic_look_that_is_overtaken_runs_again(beside):
    """The array's bytes were those of the newer version by chance: the change in it counts."""
    share = Share([{f"w{n}" for n in range(50)}, beside + 0, 0])
    seen = []

    def add(value):
        seen.append(value[2])
        if len(seen) == 1:
            in_child(share.update, lambda value: [value[0], value[1], value[2] + 1])
        value[2] += 1
        value[1] = value[1] + 1

    share.update(add, optimistic=True)
    assert seen == [0, 1]
    assert share.get()[2] == 2


def test_two_who_change_an_array_alike_without_the_lock_both_count():
    share = Share(numpy.zeros(9000))
    seen = []

    def add(value):
        seen.append(value[0])
        if len(seen) == 1:
            with share.locked() as view:
                view.value[0] += 1
        value[0] += 1

    share.update(add, optimistic=True)
    assert seen == [0, 1]
    assert share.get()[0] == 2


def test_transactions_do_not_run_again_because_somebody_looked():
    shared = SharedDict(k=VALUES["a set beside an array"](), n=0)
    calls = []

    def step(view):
        calls.append(view["k"])
        in_child(look_at_key, shared)
        view["n"] += 1

    for _ in range(3):
        shared.transact(step)
    assert (len(calls), shared.version, shared["n"]) == (3, 4, 3)


def test_a_value_that_another_thread_overtakes_while_it_is_compared_is_a_conflict(monkeypatch):
    """It was unpickled from what a writer was writing there."""
    shared = SharedDict(k=[Twice(), numpy.zeros(10_000)], n=0)
    seen, frames_of = [], inside.index_of(shared).frames

    def overtaken(extents):
        frames = frames_of(extents)
        if len(seen) == 1:
            seen.append("overtaken")
            in_child(shared.__setitem__, "k", [1, 2])
            in_child(shared.update, {n: bytes(50_000) for n in range(4)})
        return frames

    def look_only(view):
        seen.append(view["k"])

    monkeypatch.setattr(*inside.at("index_frames"), lambda index, extents: overtaken(extents))
    shared.transact(look_only)
    assert len(seen) == 3 and seen[2] == [1, 2]


def test_a_value_whose_place_is_overwritten_while_it_is_compared_is_a_conflict(monkeypatch):
    shared = SharedDict(k=[Twice(), numpy.zeros(10_000)])
    reads, calls = [], []
    frames_of, stands = inside.index_frames, inside.log_stands

    def stands_but_once(log, position):
        if len(reads) == 2:  # The first was for the function, the second to compare with.
            reads.append("overwritten")
            return False
        return stands(log, position)

    monkeypatch.setattr(*inside.at("index_frames"), lambda *of: reads.append(of) or frames_of(*of))
    monkeypatch.setattr(*inside.at("log_stands"), stands_but_once)
    shared.transact(lambda view: calls.append(view["k"]))
    assert (len(calls), shared.version) == (2, 1)


# --- Tensors -------------------------------------------------------------------------------


def tensors(torch):
    base = torch.arange(40_000)
    return {
        "small": torch.ones(3),
        "large": torch.zeros(100_000),
        "none": torch.empty(0),
        "views": [base[::2], base[5:9]],
        "parameter": torch.nn.Parameter(torch.ones(2000)),
        "model": torch.nn.Linear(64, 64),
        "sparse": torch.eye(50).to_sparse(),
        "half": torch.ones(5, dtype=torch.bfloat16),
        "storage": torch.ones(9).untyped_storage(),
        "elsewhere": torch.empty(3, device="meta"),
        "beside a lambda and a set": [torch.ones(9), lambda: 1, {f"x{n}" for n in range(30)}],
    }


def test_a_look_at_a_tensor_publishes_nothing():
    """Its own pickle holds the address of its storage."""
    torch = pytest.importorskip("torch")
    for value in tensors(torch).values():
        share, shared = Share(value), SharedDict(k=value)
        look(share)
        look_at_key(shared)
        in_child(look, share)
        assert (share.version, shared.version) == (1, 1)


def test_tensors_come_back_equal_and_share_what_they_shared():
    torch = pytest.importorskip("torch")
    value = decode(encode(tensors(torch)))
    again = tensors(torch)
    for name in ("small", "large", "none", "parameter", "half"):
        assert value[name].equal(again[name])
    assert value["sparse"].to_dense().equal(torch.eye(50))
    one, other = value["views"]
    one[3] = 77
    assert other[1] == 77
    assert list(value["storage"]) == list(again["storage"])
    share = Share(torch.zeros(5000))
    with share.locked() as view:
        view.value[7] += 1
    assert share.get()[7] == 1 and len(inside.region_of(share).read()[1]) == 2


def test_a_storage_lives_as_long_as_its_buffer():
    torch = pytest.importorskip("torch")

    class Made:
        def __reduce__(self):
            return list, ((torch.full((5000,), 7.0),),)

    frames = encode([Made(), lambda: 1])
    others = [torch.zeros(5000) for _ in range(50)]
    assert decode(frames)[0][0].eq(7).all() and len(others) == 50


def test_what_others_pickle_is_left_as_it_is():
    torch = pytest.importorskip("torch")
    encode(torch.ones(3))
    assert b"mmapshare" not in pickle.dumps(torch.ones(3))
    assert b"mmapshare" not in cloudpickle.dumps([torch.ones(3), lambda: 1])


def test_a_torch_whose_import_is_under_way_is_none_yet(monkeypatch):
    """A program's other thread may be importing it at this very moment."""
    monkeypatch.setattr(*inside.at("reducers"), {})
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert decode(encode([lambda: 1, Job("torch")]))[1].id == "torch"
    assert decode(encode([Job("torch")]))[0].id == "torch"
    assert not inside.reducers


def test_torch_is_not_imported_for_values_without_tensors():
    code = (
        "import sys, mmapshare; mmapshare.Share([lambda: 1]).get(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
