"""Types whose values hand over buffers are remembered: their values are pickled once, not twice."""

import contextlib
import gc
import pickle
import weakref

import pytest
from support import Wanted, inside

from mmapshare import ClosedError, Share

numpy = Wanted("numpy")


def _type():
    """A new class, of one's own, whose objects count how often they are pickled."""

    class Blob:
        count = 0

        def __init__(self, raw):
            self.raw = raw

        def __reduce_ex__(self, protocol):
            type(self).count += 1
            return bytearray, (pickle.PickleBuffer(self.raw),)

    return Blob


def test_the_second_value_of_a_type_is_pickled_once():
    blob = _type()(bytearray(b"x" * 10_000))
    share = Share(blob)
    assert type(blob).count == 2
    share.set(blob)
    assert type(blob).count == 3
    assert share.get() == b"x" * 10_000
    share.set(type(blob)(bytearray(10)))  # Too small for a frame of its own.
    assert type(blob).count == 4 and share.get() == bytes(10)


def test_containers_are_not_remembered():
    before = set(inside.buffered)
    share = Share({"a": numpy.zeros(10_000)})
    share.set([numpy.zeros(10_000)])
    assert set(inside.buffered) == before
    share.set(numpy.zeros(10_000))
    assert id(numpy.ndarray) in inside.buffered
    share.set(numpy.array([object, 1]))  # Without a buffer.
    assert list(share.get()) == [object, 1]


def test_a_type_that_is_gone_is_forgotten():
    blob = _type()(bytearray(10_000))
    Share(blob)
    known = id(type(blob))
    assert known in inside.buffered
    del blob
    gc.collect()
    assert known not in inside.buffered


@pytest.mark.classes_end
@pytest.mark.parametrize("kind", [MemoryError, ClosedError])
def test_an_error_in_the_middle_of_pickling_keeps_nothing_until_the_collector_comes(kind):
    """CPython's collector crashed (until 3.12.7) on what such an error had kept of large values."""

    class Fails:
        def __reduce_ex__(self, protocol):
            raise kind("not now")

    value = Fails()
    gone = weakref.ref(value)
    gc.disable()
    try:
        with contextlib.suppress(kind):
            inside.encode(value)
        del value
        assert gone() is None
    finally:
        gc.enable()
