"""A block that changed nothing publishes nothing, whatever its value is."""

import pytest
from support import in_child, inside
from support.values import VALUES, look, look_at_key

from mmapshare import Share, SharedDict

every_value = pytest.mark.parametrize("make_value", VALUES.values(), ids=VALUES)


@every_value
@pytest.mark.untraced
def test_a_look_publishes_nothing(make_value):
    """Values whose second pickle differs from the first were committed by who looked at them."""
    share = Share(make_value())
    for _ in range(3):
        look(share)
    in_child(look, share)
    assert share.version == 1


@every_value
@pytest.mark.untraced
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
