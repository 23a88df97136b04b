"""Values that are nested too deeply, and the search for the part that is to blame."""

import copyreg

import numpy
import pytest
from support import inside
from support.inside import decode, encode

from mmapshare import (
    Share,
    SharedDict,
    UnpicklableError,
)


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
