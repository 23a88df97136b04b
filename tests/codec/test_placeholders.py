"""What a stored value says is told without running any of it."""

import array
import collections
import copyreg
import datetime
import enum
import io
import os
import pickle
import re

import numpy
import pytest
from support import inside

from mmapshare import Share, SharedDict


class Color(enum.Enum):
    RED = 1


RED_BY_NAME = Color.RED.__reduce_ex__(4)[0] is getattr
"""As the first of CPython 3.11 pickle it, Debian's too."""


class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self):
        self.a = 1
        self.b = [2]


class Items(list):
    pass


class Tags(set):
    pass


def _by_value(cls):
    """The same class as one of a program's own, whose definition is stored with its instances."""
    cls = type(cls.__name__, cls.__bases__, {k: v for k, v in vars(cls).items() if k != "__dict__"})
    cls.__module__ = "__main__"
    return cls


def _said(value):
    frames = inside.encode(value)
    return repr(inside.sketch([bytes(frames[0]), *frames[1:]]))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [1.5, None], (1, "b"): {b"c"}}, "{'a': [1.5, None], (1, 'b'): {b'c'}}"),
        (Point(1, [2]), f"<{__name__}.Point(x=1, y=[2])>"),
        (Slotted(), f"<{__name__}.Slotted(a=1, b=[2])>"),
        (Point, f"<{__name__}.Point>"),
        (Color.RED, f"<{__name__}.Color{'.RED' if RED_BY_NAME else '(1)'}>"),
        (Items([1, 2]), f"<{__name__}.Items(1, 2)>"),
        (collections.OrderedDict(a=1), "<collections.OrderedDict('a': 1)>"),
        (collections.deque([1], 3), "<collections.deque((), 3, 1)>"),
        (datetime.timedelta(1), "<datetime.timedelta(1, 0, 0)>"),
        (range(3), "<range(0, 3, 1)>"),
        (len, "<len>"),
        (numpy.zeros((1000, 10)), "<numpy.ndarray f8 (1000, 10)>"),
        (numpy.arange(3, dtype="i4"), "<numpy.ndarray i4 (3,)>"),
        (numpy.zeros((4, 4))[::2, ::2], "<numpy.ndarray f8 (2, 2)>"),
        (pickle.PickleBuffer(bytes(5000)), "Left"),
        (RuntimeError("no", 3), "<RuntimeError('no', 3)>"),
    ],
)  # fmt: skip
def test_plain_data_is_shown_as_it_is_and_all_else_by_what_it_is_made_of(value, said):
    frames = inside.encode(value)
    left = [inside.Left(len(frame)) for frame in frames[1:]]  # Nobody needs the arrays' bytes.
    shown = repr(inside.sketch([bytes(frames[0]), *left]))
    assert shown.startswith(said)


def test_what_travels_by_value_is_shown_by_its_name():
    cls = _by_value(Point)
    assert _said(cls(1, 2)) == "<__main__.Point(x=1, y=2)>"
    assert _said({cls(1, 2): [cls]}) == "{<__main__.Point(x=1, y=2)>: [<__main__.Point>]}"
    assert _said(lambda n: n) == f"<function {_said.__module__ and ''}" + (
        "test_what_travels_by_value_is_shown_by_its_name.<locals>.<lambda>>"
    )
    kind = enum.Enum("Kind", ["A"], module="__main__")
    assert _said(kind.A) == "<__main__.Kind.A>"


class _Runs:
    """Pickles as a call of whatever it was given."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def test_nothing_that_a_stream_asks_for_is_called_or_imported(tmp_path, request):
    """Each opcode by which a stream makes objects, aimed at something that leaves a trace."""
    there = tmp_path / "ran"
    command = f"touch {there}"
    copyreg.add_extension("os", "system", 7)
    request.addfinalizer(lambda: copyreg.remove_extension("os", "system", 7))
    assert pickle.loads(b"\x82\x07.") is os.system  # Python remembers it.
    text = pickle.UNICODE + command.encode() + b"\n"
    streams = [
        pickle.dumps(_Runs(os.system, (command,)), 5),
        pickle.dumps(_Runs(exec, (f"open({str(there)!r}, 'w')",)), 2),
        b"cos\nsystem\n(" + text + b"tR.",  # GLOBAL, REDUCE
        b"(" + text + b"ios\nsystem\n.",  # INST
        b"(cos\nsystem\n" + text + b"o.",  # OBJ
        b"\x80\x02cos\nsystem\n(" + text + b"t\x81.",  # NEWOBJ
        b"\x80\x04cos\nsystem\n(" + text + b"t}\x92.",  # NEWOBJ_EX
        b"\x82\x07(" + text + b"tR.",  # EXT1, which this process has met
        b"\x83\x07\x00(" + text + b"tR.",  # EXT2
        b"\x80\x04\x8c\x02os\x8c\x06system\x93(" + text + b"tR.",  # STACK_GLOBAL
        b"csite\nnone_such\n.",
        b"Psome id\n.",  # PERSID
        b"cbuiltins\ngetattr\n(cos\n_exit\nVx\ntR(I3\ntR.",
        b"cos\nsystem\n)R" + text + b"b.",  # BUILD
        b"]Vx\nb.",  # BUILD of what is plain
    ]
    for stream in streams:
        assert "<" in repr(inside.sketch([stream])) or stream.startswith(b"]")
    assert not there.exists()
    assert pickle.loads(streams[2]) == 0  # These streams do run where they are loaded.
    assert there.exists()


def test_a_value_that_holds_itself_is_shown():
    point = Point(1, None)
    point.y = [point]
    assert _said(point) == f"<{__name__}.Point(x=1, y=[<...>])>"


def test_keys_that_say_the_same_are_one_key():
    """A dict's log says again which key is gone; it is found by what it says."""
    cls = _by_value(Point)
    cls.__hash__ = lambda self: self.x
    cls.__eq__ = lambda self, other: self.x == other.x
    shared = SharedDict({cls(1, 2): "a", cls(2, 3): "b"})
    del shared[cls(1, 2)]
    with inside.outside_of(shared) as region:
        store = region.store(inside.placeholders, 1000)
        keys = store.read(lambda state: list(state.places))
    assert repr(keys) == "[<__main__.Point(x=2, y=3)>]"
    assert keys[0] == keys[0] != "other"


@pytest.mark.parametrize(
    "reduced",
    [
        (getattr, (int, "x", 0)),
        (getattr, ("text", "upper")),
        (inside.open_shared, ("no class", "no handle")),
        (print, ("x",), [1]),
    ],
)
def test_what_is_not_as_it_is_often_is_shown_all_the_same(reduced):
    name = reduced[0].__name__
    assert re.match(rf"<[a-z_.]*{name}\(.*\)>$", _said(_Runs(*reduced)))


def test_what_is_damaged_raises():
    for stream in (b"", b"\x80\x05.", b"\x80\x05]", b"garbage", b"\x80\x05\x97."):
        with pytest.raises(Exception):
            inside.sketch([stream])


@pytest.mark.parametrize("value", [{"a": 1}, numpy.zeros(10_000), [numpy.zeros(3)] * 2])
def test_what_is_read_from_outside_loads_to_the_same(value, kind):
    share = Share(value, kind=kind)
    shared = SharedDict({"k": value}, kind=kind)
    with inside.outside_of(share) as region:
        store = region.store(inside.codec, None)
        frames = store.read_or_lock(store.try_read)[1]
        assert repr(inside.decode(frames)) == repr(value)
    with inside.outside_of(shared) as region:
        store = region.store(inside.codec, None)
        frames = store.read(lambda state: store.frames(state.places["k"]))
        assert repr(inside.decode(frames)) == repr(value)
    share.close()
    shared.close()


def test_a_forgotten_definition_is_code():
    made = io.BytesIO()
    pickle.Pickler(made, 5).dump(_Runs(inside.resolve, (b"unknown",)))
    assert repr(inside.sketch([made.getvalue()])) == "<code>"
    assert _said(array.array("b", [1])).startswith("<array._array_reconstructor")
