"""Values of all kinds, and what looks at them without a change."""

import array
import collections
import dataclasses
import datetime
import enum
import fractions
import functools
import pathlib
import re
import types
import uuid

import numpy

from mmapshare import locked


class ApiError(Exception):
    """The field's own: it pickles with its ``args``, which its ``__init__`` does not take."""

    def __init__(self, code, text):
        super().__init__(f"{code} {text}")


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
        return (Twice, (True,)) if self.loaded else (made_anew, (1, 2, 3))


def made_anew(*_):
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
