"""What a view delegates, and who may use it when."""

import asyncio
import copy
import inspect
import pickle
import threading
from collections import OrderedDict, deque

import pytest
from support import in_child
from support.inside import MISSING

from mmapshare import EmptyShareError, Share, View, ViewClosedError


class Point:
    def __init__(self):
        self.x, self.version, self._hidden = 1, "its own", 2

    def move(self, by):
        self.x += by
        return self.x

    def __eq__(self, other):
        return isinstance(other, Point) and self.x == other.x


def test_items_iteration_len_and_in_go_to_the_value(medium):
    share = medium.share({"a": 1, "b": 2})
    with share.locked() as view:
        view["c"] = view["a"] + view["b"]
        del view["a"]
        assert (len(view), "b" in view, "a" in view, list(view)) == (2, True, False, ["b", "c"])
        assert list(reversed(view)) == ["c", "b"]
        assert view and view == {"b": 2, "c": 3} and view != {}
        assert {"b": 2, "c": 3} == view
        assert view == view
    assert share.get() == {"b": 2, "c": 3}


def test_a_views_truth_is_its_values(medium):
    for value in (0, "", [], {}, None):
        with medium.share(value).locked() as view:
            assert not view
    with medium.share(7).locked() as view:
        assert view


def test_methods_of_containers_go_to_the_value(medium):
    for value, change, expected in [
        ([1], lambda v: v.append(2), [1, 2]),
        ({"a": 1}, lambda v: v.setdefault("b", 2), {"a": 1, "b": 2}),
        ({1}, lambda v: v.add(2), {1, 2}),
        (deque([1]), lambda v: v.appendleft(0), deque([0, 1])),
        (OrderedDict(a=1), lambda v: v.move_to_end("a"), OrderedDict(a=1)),
    ]:
        share = medium.share(value)
        with share.locked() as view:
            change(view)
        assert share.get() == expected
        assert type(share.get()) is type(expected)
    with medium.share([1]).locked() as view, pytest.raises(AttributeError, match="'list' object"):
        view.keys()


def test_attributes_are_read_set_and_deleted_on_the_value(medium):
    share = medium.share(Point())
    with share.locked() as view:
        view.x = 5
        assert view.move(2) == 7
        view.new = "n"
        del view.new
        with pytest.raises(AttributeError, match="nothing"):
            view.nothing
        assert (view.version, view.value.version) == (1, "its own")
        with pytest.raises(AttributeError, match=r"view\.value\.version"):
            view.version = 3
        assert isinstance(view, View)
    assert share.get().x == 7
    assert not hasattr(share.get(), "new")


def test_an_empty_shares_view_has_nothing_to_read_set_or_delete(medium):
    """What stands there in place of a value took attributes like any object, for all shares."""
    share = medium.share()
    with share.locked() as view:
        for use in (
            lambda: view.x,
            lambda: setattr(view, "x", 1),
            lambda: delattr(view, "x"),
            lambda: view[0],
            lambda: view.__setitem__(0, 1),
            lambda: view.__delitem__(0),
            lambda: view.value,
        ):
            with pytest.raises(EmptyShareError, match=r"assign view\.value"):
                use()
        assert view.version == 0
    assert not hasattr(MISSING, "__dict__")


def test_a_share_without_a_value_is_shown_as_an_empty_one_by_help():
    assert "initial: T = <empty>" in str(inspect.signature(Share)).replace("'T'", "T")


def test_assigning_the_value_changes_what_the_view_delegates_to(medium):
    share = medium.share({"a": 1})
    with share.locked() as view:
        view.value = Point()
        view.x = 9
    assert share.get().x == 9
    with share.locked() as view:
        view.value = [1]
        view.append(2)
    assert share.get() == [1, 2]


def test_changes_deep_inside_the_value_stick(medium):
    share = medium.share({"jobs": [{"done": False}]})
    with share.locked() as view:
        view["jobs"][0]["done"] = True
    assert share.get() == {"jobs": [{"done": True}]}


def test_a_view_does_no_arithmetic_itself(medium):
    share = medium.share(1)
    with share.locked() as view:
        for wrong in (
            lambda: view + 1,
            lambda: 1 + view,
            lambda: view * 2,
            lambda: view | {},
        ):
            with pytest.raises(TypeError, match=r"view\.value"):
                wrong()
        same = view
        with pytest.raises(TypeError, match=r"view\.value \+="):
            same += 1
        view.value += 1
    assert share.get() == 2


def test_a_view_shows_its_value_and_its_state(medium):
    share = medium.share([1])
    with share.locked() as view:
        assert repr(view) == "<View of version 1: [1]>"
        with pytest.raises(TypeError):
            hash(view)
        for refused in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=r"view\.value"):
                refused(view)
    assert repr(view) == "<View, closed>"
    with medium.share().locked() as view:
        assert repr(view) == "<View of an empty share>"


def _every_use(view):
    yield lambda: view[0]
    yield lambda: view.__setitem__(0, 1)
    yield lambda: view.value
    yield lambda: setattr(view, "value", 1)
    yield lambda: view.version
    yield lambda: view.rollback()
    yield lambda: len(view)
    yield lambda: list(view)
    yield lambda: 1 in view
    yield lambda: view.append(1)
    yield lambda: bool(view)
    yield lambda: view == 1


def test_after_its_block_a_view_raises_and_what_it_gave_out_is_private(medium):
    share = medium.share([[1]])
    with share.locked() as view:
        kept = view[0]
    for use in _every_use(view):
        with pytest.raises(ViewClosedError, match=r"share itself"):
            use()
    kept.append(2)
    assert share.get() == [[1]]


def test_in_another_thread_a_view_raises(medium):
    share = medium.share([1])
    seen = []

    def look():
        for use in _every_use(view):
            try:
                use()
            except ViewClosedError as err:
                seen.append(str(err))

    with share.locked() as view:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        view.append(2)
    assert len(seen) == len(list(_every_use(view)))
    assert all("another thread" in text for text in seen)
    assert share.get() == [1, 2]


@pytest.mark.needs("crosses_fork")
def test_in_a_forked_child_a_view_is_dead(medium):
    share = medium.share([1])
    with share.locked() as view:

        def look():
            refused = 0
            for use in _every_use(view):
                try:
                    use()
                except ViewClosedError:
                    refused += 1
            return refused

        assert in_child(look) == len(list(_every_use(view)))
        view.append(2)
    assert share.get() == [1, 2]


def test_in_another_task_a_view_raises(medium):
    share = medium.share([1])

    async def main():
        with share.locked() as view:

            async def other():
                with pytest.raises(ViewClosedError):
                    view.append(3)

            await asyncio.create_task(other())
            view.append(2)

    asyncio.run(main())
    assert share.get() == [1, 2]


def test_an_empty_shares_view_takes_no_items_before_it_has_a_value(medium):
    share = medium.share()
    with share.locked() as view:
        for use in (lambda: view[0], lambda: view.__setitem__(0, 1)):
            with pytest.raises(EmptyShareError, match=r"assign view\.value"):
                use()
        view.value = [1]
        view[0] = 2
    assert share.get() == [2]


def test_attributes_are_their_owners_a_task_or_a_thread(medium):
    share = medium.share(Point())

    def elsewhere():
        for use in (lambda: view.x, lambda: setattr(view, "x", 9), lambda: delattr(view, "x")):
            with pytest.raises(ViewClosedError, match="another thread"):
                use()
        return "refused"

    async def main():
        nonlocal view
        async with share.locked() as view:
            view.x = view.x + 4
            assert await asyncio.to_thread(elsewhere) == "refused"

    view = None
    asyncio.run(main())
    assert share.get().x == 5


def test_a_view_is_formatted_as_its_value(medium):
    """f"{view}" gave the view's own repr, and a format's letters were refused."""
    with medium.share(3.14159).locked() as number, medium.share([1]).locked() as items:
        assert (f"{number:.2f}", f"{number}", str(items)) == ("3.14", "3.14159", "[1]")
    assert str(items) == "<View, closed>"
    with medium.dict(a=1).locked() as mapping:
        assert f"{mapping}" == str(mapping) == "{'a': 1}"
    with pytest.raises(ViewClosedError):
        f"{mapping}"


def test_match_takes_a_views_value(medium):
    with medium.share({"kind": "square", "side": 2}).locked() as view:
        match view.value:
            case {"kind": "square", "side": side}:
                view["area"] = side**2
        assert view["area"] == 4
