"""A `SharedDict` some of whose values do not load."""

import numpy
import pytest
from support import in_child
from support.values import ApiError

from mmapshare import (
    UnloadableError,
    UnpicklableError,
)


@pytest.fixture(params=[0, numpy.zeros(10_000)], ids=["alone", "beside an array"])
def make_mixed(request, medium):
    """Two values that load, and between them one that does not."""

    def make():
        shared = medium.dict(a=1)
        shared["e"] = [ApiError(1, "x"), request.param]
        shared["z"] = 3
        return shared

    return make


@pytest.mark.needs("crosses_fork")
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
        assert caught.value.name == "support.values.ApiError"
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
    shown = "{'a': 1, 'e': <unloadable: support.values.ApiError>, 'z': 3}"
    assert repr(mixed) == shown
    with mixed.locked() as view:
        assert repr(view) == f"<View of version 3: {shown}>"
    mixed["e"] = ApiError(1, "x")
    assert "'e': <unloadable: support.values.ApiError>" in mixed._repr_mimebundle_()["text/plain"]
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


def test_a_key_that_does_not_load_is_refused_before_anybody_meets_it(medium):
    shared = medium.dict(a=1)
    with pytest.raises(UnpicklableError, match="cannot be loaded again"):
        shared[(ApiError(1, "x"),)] = 1
    assert dict(shared) == {"a": 1}
