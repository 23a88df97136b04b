"""`shared_state` on classes of every form: properties, slots, special methods, __setattr__."""

import abc
import dataclasses
import enum
import inspect

import attrs
import pytest
from support import in_child, stateful
from support.stateful import Dispatcher, Shared, known_as_async

from mmapshare import LockTimeout, Share, UnpicklableError, shared_state


def test_special_methods_are_transactions_and_those_that_look_take_no_lock():
    @shared_state
    class Bag:
        """A bag."""

        LIMIT = 10

        def __init__(self, *items):
            self.items = list(items)

        def __setitem__(self, index, item):
            self.items[index] = item

        def __getitem__(self, index):
            return self.items[index]

        def __iadd__(self, item):
            self.items.append(item)
            return self

        def __len__(self):
            return len(self.items)

        def __iter__(self):
            return iter(self.items)

        def __call__(self, item):
            self.items.remove(item)

        @property
        def first(self):
            return self.items[0]

        @first.setter
        def first(self, item):
            self.items[0] = item

        @classmethod
        def of(cls, *items):
            return cls(*items)

        @staticmethod
        def twice(n):
            return 2 * n

        def like(self):
            return self.of(*self.items)

        def _private(self):
            return len(self.items)

        def tamper(self):
            return self._private()

    bag = same = Bag.of(1, 2)
    bag += 3
    bag[0] = 9
    bag(2)
    assert bag is same
    assert list(bag) == [9, 3]
    bag.first = 4
    assert (bag.first, bag[1], len(bag), bag.LIMIT, bag.twice(4)) == (4, 3, 2, 10, 8)
    assert (bag._private(), bag.tamper()) == (2, 2)
    assert type(bag.like()) is Bag
    assert list(bag.like()) == [4, 3]
    assert Bag.__doc__ == "A bag."

    def hold():
        with bag.share.locked():
            assert in_child(lambda: len(bag)) == 2
            with pytest.raises(LockTimeout):
                in_child(lambda: bag.share.lock(timeout=0))

    hold()


def test_an_abstract_class_cannot_be_made():
    class Base(abc.ABC):
        @abc.abstractmethod
        def work(self): ...

    shared_base = shared_state(Base)
    with pytest.raises(TypeError, match="abstract"):
        shared_base()

    @shared_state
    class Made(Base):
        def __init__(self):
            self.n = 0

        def work(self):
            self.n += 1
            return self.n

    assert Made().work() == 1
    assert isinstance(Made(), Base)


def test_the_plain_class_is_derived_from_in_silence():
    seen = []

    class Registry:
        def __init_subclass__(cls):
            seen.append(cls.__name__)

    class Entry(Registry):
        def __init__(self):
            self.n = 1

        def add(self):
            self.n += 1

    entry = shared_state(Entry)()
    entry.add()
    assert entry.n == 2
    assert seen == ["Entry"]


def test_what_cannot_be_shared_is_an_error_at_decoration():
    class Listlike(list):
        pass

    class WithShare:
        def share(self):
            pass

    class WithDel:
        def __del__(self):
            pass

    class WithGenerator:
        def items(self):
            yield

    class WithNew:
        def __new__(cls):
            return object.__new__(cls)

    for cls, word in [
        (Listlike, "keep a list in an attribute"),
        (WithShare, "rename yours"),
        (WithDel, "__del__"),
        (WithGenerator, "keep the lock"),
        (WithNew, "in __init__"),
        (enum.Enum("Colour", "RED"), "enumeration"),
        (Shared, "decorate it once"),
    ]:
        with pytest.raises(TypeError, match=word):
            shared_state(cls)
    for option in ({"initial": {}}, {"share": Share({})}):
        with pytest.raises(TypeError, match="for functions"):
            shared_state(**option)(WithShare)
    with pytest.raises(TypeError, match="before it is decorated"):

        class Derived(Shared):
            pass

    for options, error in ({"max_size": 0}, ValueError), ({"timeout": "soon"}, TypeError):
        with pytest.raises(error):
            shared_state(**options)(type("Plain", (), {}))


def test_what_cannot_be_right_is_an_error_when_an_instance_is_made():
    @shared_state
    class Unfit:
        def __init__(self, name, value):
            setattr(self, name, value)

    with pytest.raises(TypeError, match="rename yours"):
        Unfit("share", 1)
    with pytest.raises(UnpicklableError, match="generator"):
        Unfit("items", (n for n in ()))
    with pytest.raises(TypeError, match="__init__"):
        Unfit()

    @dataclasses.dataclass
    @shared_state
    class WrongWayRound:
        n: int = 0

    with pytest.raises(TypeError, match="above the other decorators"):
        WrongWayRound()


def test_the_methods_of_a_class_keep_their_names_and_signatures():
    shared = Shared()
    assert Shared.__name__ == Shared.__qualname__ == "Shared"
    assert Shared.add.__name__ == "add"
    assert str(inspect.signature(shared.add)) == "(n)"
    assert str(inspect.signature(Shared)) == "(calls=0)"
    assert known_as_async(shared.add_async)
    assert Shared.__module__ == stateful.__name__


def test_a_class_with_a_setattr_of_its_own_can_be_shared():
    """The draft's attributes went through it, all of them as one called ``__dict__``."""

    @shared_state
    @attrs.frozen
    class Frozen:
        x: int = 3

        def twice(self):
            return 2 * self.x

    @shared_state
    @dataclasses.dataclass(frozen=True, slots=True)
    class FrozenSlots:
        x: int = 3

        def replaced(self):
            return dataclasses.replace(self, x=4)

    assert (Frozen().x, Frozen(4).twice()) == (3, 8)
    assert FrozenSlots(5).x == 5
    assert FrozenSlots(5).replaced().x == 4


def test_a_property_that_changes_something_is_an_error_and_not_a_loss():
    @shared_state
    class Ticket:
        def __init__(self):
            self.last = 0

        @property
        def next(self):
            self.last += 1
            return self.last

    with pytest.raises(AttributeError, match="only look"):
        Ticket().next


def test_a_property_is_set_and_deleted_in_one_transaction_each():
    @shared_state
    class Box:
        def __init__(self):
            self.kept = [1]

        @property
        def item(self):
            return self.kept[-1]

        @item.setter
        def item(self, value):
            self.kept.append(value)

        @item.deleter
        def item(self):
            self.kept.pop()
            self.kept.pop()
            self.kept.append(0)

        def itself(self):
            return [self]

    box = Box()
    box.item = 2
    version = box.share.version
    del box.item
    assert (box.kept, box.share.version) == ([0], version + 1)
    (same,) = box.itself()
    same.item = 5
    del same.item
    assert box.kept == [0]
    with pytest.raises(AttributeError, match="kept is shared: change it in a method"):
        del same.kept


def test_a_slot_without_a_value_is_no_attribute():
    @shared_state
    class Slots:
        __slots__ = ("set", "unset")

        def __init__(self):
            self.set = 1

        def look(self):
            return self.set, type(self).unset is not None, self.unset

        def fill(self):
            self.unset = 2

    slots = Slots()
    with pytest.raises(AttributeError, match="'Slots' object has no attribute 'unset'"):
        slots.look()
    with pytest.raises(AttributeError, match="'Slots' object has no attribute 'unset'"):
        slots.unset
    slots.fill()
    assert slots.look() == (1, True, 2)


def test_an_instance_may_name_itself_from_the_start():
    dispatcher = Dispatcher()
    dispatcher.run()
    dispatcher.run()
    assert dispatcher.seen == 2


def test_a_method_may_ask_for_its_instances_repr_by_the_classs_name():
    @shared_state
    class Named:
        def __init__(self):
            self.n = 1

        def __repr__(self):
            return f"Named({self.n})"

        def change(self):
            self.n = 2
            return Named.__repr__(self)

    assert Named().change() == "Named(2)"
