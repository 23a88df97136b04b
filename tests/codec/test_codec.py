"""What can be stored, what comes back, and who is named when it cannot."""

import functools
import os
import pickle
import resource
import threading
import types

import attrs
import cloudpickle
import pytest
from support import Wanted, in_child, inside
from support.inside import decode, encode

from mmapshare import LockTimeout, Share, UnloadableError, UnpicklableError

numpy = Wanted("numpy")


def same(value):
    return decode(encode(value))


def test_lambdas_closures_and_nested_functions_are_stored(make):
    def scaled(by):
        def scale(x):
            return x * by

        return scale

    share = make({"double": scaled(2), "inc": lambda x: x + 1})
    assert in_child(lambda: share.get()["double"](21)) == 42
    in_child(lambda: share.set({"triple": scaled(3)}))
    assert share.get()["triple"](2) == 6


def test_closures_are_copied_as_they_are_when_stored(make):
    n = 1
    share = make(lambda: n)
    n = 2
    assert share.get()() == 1
    share.set(lambda: n)
    assert share.get()() == 2


def test_recursive_structures_and_aliases_stay_what_they_are(make):
    ring = [1]
    ring.append(ring)
    part = {"x": 1}
    share = make({"ring": ring, "a": part, "b": part})
    value = share.get()
    assert value["ring"][1] is value["ring"]
    assert value["a"] is value["b"]
    with share.locked() as view:
        view["a"]["x"] = 2
    assert share.get()["b"] == {"x": 2}


def test_dynamic_classes_and_modules_are_stored(make):
    cls = type("Made", (), {"hello": lambda self: "hi"})
    share = make(cls())
    assert share.get().hello() == "hi"
    assert type(share.get()) is cls
    share.set(types.ModuleType)
    assert share.get() is types.ModuleType


@pytest.mark.parametrize("value", [None, 0, "", b"", (), [], {}, set(), 1.5, 2**100, "é", range(3)])
def test_plain_values_come_back_equal(value):
    assert same(value) == value
    assert len(encode(value)) == 1


@pytest.mark.parametrize("size", [10, 5_000, 3_000_000])
def test_arrays_come_back_equal_writeable_and_private(make, size):
    array = numpy.arange(size)
    share = make({"a": array, "b": [array[::2].copy()], "same": array})
    value = share.get()
    assert (value["a"] == array).all() and (value["b"][0] == array[::2]).all()
    assert value["a"] is value["same"]
    value["a"][0] = 99
    array[0] = 77
    assert share.get()["a"][0] == 0
    with share.locked() as view:
        view["a"][1] = 55
    assert share.get()["a"][1] == 55
    version = share.version
    with share.locked() as view:
        view["a"][1] = 55
    assert share.version == version


def test_large_buffers_are_stored_once_and_aligned():
    share = Share([numpy.zeros(100_000), bytearray(10)])
    frames = inside.region_of(share).read()[1]
    assert [len(frame) for frame in frames[1:]] == [800_000]
    assert len(frames[0]) < 1000
    head = inside.load_slot(inside.region_of(share))
    for begin, _ in inside.extents(inside.region_of(share), head):
        assert begin % 64 == 0


def test_a_readonly_array_comes_back_readonly():
    array = numpy.arange(10_000)
    array.flags.writeable = False
    assert not same(array).flags.writeable


@pytest.mark.parametrize("beside", [lambda: "by value", "of __main__"])
def test_arrays_stay_out_of_the_stream_beside_what_plain_pickle_cannot_do(beside):
    array = numpy.arange(10_000)
    stream, buffer = encode([array, beside])
    assert len(stream) < 5000
    assert buffer.nbytes == array.nbytes
    again, _ = decode((stream, bytearray(buffer)))
    assert (again == array).all()


def test_many_small_arrays_stay_in_the_stream():
    assert len(encode([numpy.zeros(5) for _ in range(100)])) == 1


def test_many_large_arrays_fit():
    share = Share([numpy.full(600, n) for n in range(2000)], max_size="16M")
    assert [int(a[0]) for a in share.get()] == list(range(2000))


class Holder:
    def __init__(self):
        self.fine = 1
        self.lock = threading.Lock()


@attrs.define
class Slotted:
    fine: int
    lock: object


class Refuses:
    def __getstate__(self):
        raise RuntimeError("only by inheritance")


@pytest.mark.parametrize(
    ("value", "path", "culprit"),
    [
        (threading.Lock(), "value", "a _thread.lock"),
        ({"model": Holder()}, "value['model'].lock", "a _thread.lock"),
        ([1, [2, Slotted(1, threading.Lock())]], "value[1][1].lock", "a _thread.lock"),
        ({"a": (x for x in [1])}, "value['a']", "a generator"),
        ({(1, threading.get_ident): {"f": Holder().lock.acquire}}, None, None),
        ([Refuses()], "value[0]", "a test_codec.Refuses"),
        (functools.partial(print, threading.Lock()), None, "lock"),
    ],
)
def test_the_part_that_cannot_be_pickled_is_named(value, path, culprit):
    with pytest.raises(UnpicklableError) as caught:
        encode(value)
    if path is not None:
        assert caught.value.path == path
        assert f"{path}: {culprit}" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_an_open_file_is_refused_and_not_turned_into_its_text(monkeypatch):
    """cloudpickle made a StringIO of a text file, and nobody heard of it."""
    with open(__file__) as file, pytest.raises(UnpicklableError, match="store its path") as caught:
        encode({"f": file})
    assert caught.value.path == "value['f']"
    with open(os.devnull, "w") as file:
        monkeypatch.setattr("sys.stderr", file)  # That is the same name anywhere.
        assert decode(encode({"f": file})) == {"f": file}


def test_what_a_closure_holds_is_named():
    lock = threading.Lock()

    def uses():
        return lock

    with pytest.raises(UnpicklableError) as caught:
        encode({"f": uses})
    assert caught.value.path == "value['f'].closure(lock)"


def test_blame_ends_on_endless_structures():
    ring = [threading.Lock()]
    ring.insert(0, ring)
    with pytest.raises(UnpicklableError) as caught:
        encode(ring)
    assert caught.value.path == "value[1]"
    deep = leaf = []
    for _ in range(100_000):
        leaf.append([])
        leaf = leaf[0]
    with pytest.raises(UnpicklableError, match="RecursionError|recursion"):
        encode(deep)
    while deep:
        deep = deep.pop()


def test_an_error_of_ones_own_while_storing_is_the_cause():
    class Angry(Exception):
        pass

    class Bad:
        def __reduce__(self):
            raise Angry("no")

    with pytest.raises(UnpicklableError) as caught:
        encode(Bad())
    assert isinstance(caught.value.__cause__, Angry)


class _Raises:
    def __init__(self, err):
        self.err = err

    def __reduce__(self):
        raise self.err

    def __setstate__(self, state):
        raise state


@pytest.mark.parametrize("err", [MemoryError("no more"), LockTimeout("held", holder_pid=7)])
@pytest.mark.parametrize("beside", [[], [lambda: 1]], ids=["pickle", "cloudpickle"])
def test_no_memory_and_our_own_errors_while_storing_are_raised_as_they_are(err, beside):
    with pytest.raises(type(err)) as caught:
        encode([*beside, _Raises(err)])
    assert caught.value is err


def test_an_error_that_cannot_say_what_it_is_hides_nothing():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    with pytest.raises(UnpicklableError, match=r"value\[0\]: .*_Raises \(Mute\)\.") as caught:
        encode([_Raises(Mute())])
    assert isinstance(caught.value.__cause__, Mute)


class _NeedsMore:
    def __init__(self, size):
        self.content = bytes(size)

    def __setstate__(self, state):
        raise MemoryError("not enough")


@pytest.mark.parametrize("size", [10, 2 << 20])
def test_no_memory_for_a_sound_value_is_no_damage(size):
    with pytest.raises(MemoryError, match="not enough"):
        decode(encode(_NeedsMore(size)))


def test_no_memory_is_none_to_look_for_damage_with_either():
    frames = [memoryview(encode([b"x" * 900_000])[0])]

    def with_no_memory():
        import pickletools  # noqa: F401  Loaded here, where there is memory for it.

        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 20, before[1]))
        taken = []
        try:
            # Holes of that size are filled; without the GIL objects have some of their own.
            for size in (900_000, 800_000, 400_000):
                for kind in (bytearray, bytes):
                    try:
                        while True:
                            taken.append(kind(size))
                    except MemoryError:
                        pass
            decode(frames)
        except MemoryError as err:
            return err
        finally:
            taken.clear()
            resource.setrlimit(resource.RLIMIT_AS, before)

    assert type(in_child(with_no_memory)) is MemoryError
    assert decode(frames) == [b"x" * 900_000]


def test_what_cannot_be_loaded_says_why_and_keeps_the_cause(make):
    share = make(pickle.PickleBuffer(b"x" * 5000))
    share.set(_Fragile(1))
    with pytest.raises(UnloadableError, match="refuse to load") as caught:
        share.get()
    assert isinstance(caught.value.__cause__, ValueError)
    share.set("mended")
    assert share.get() == "mended"


class _Fragile:
    def __init__(self, n):
        self.n = n

    def __setstate__(self, state):
        raise ValueError("refuse to load")


def test_storing_inside_of_storing_works():
    inner = Share(0)

    class Counts:
        def __reduce__(self):
            inner.update(int.__add__, 1)
            return (list, ())

    outer = Share()
    outer.set([Counts(), lambda: 1])
    assert outer.get()[0] == []
    assert inner.get() >= 1


def test_modules_registered_with_cloudpickle_travel_by_value(tmp_path, monkeypatch):
    (tmp_path / "unknown_elsewhere.py").write_text("class Thing:\n    n = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    import unknown_elsewhere

    cloudpickle.register_pickle_by_value(unknown_elsewhere)
    try:
        frames = encode(unknown_elsewhere.Thing())
    finally:
        cloudpickle.unregister_pickle_by_value(unknown_elsewhere)
    assert len(frames) == 1
    assert decode(frames).n == 7


def test_encoding_is_pickles_own_for_plain_data():
    value = {"hits": 1, "xs": [1, 2]}
    assert encode(value) == (pickle.dumps(value, 5),)
    assert inside.taken_by_value is cloudpickle.cloudpickle._PICKLE_BY_VALUE_MODULES
