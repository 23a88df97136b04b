"""How long definitions live: as long as a value needs them, in writer, reader and region."""

import collections
import gc
import pickle
import threading
import weakref

import pytest
from support import Child, in_child, inside, stranger

from mmapshare import CorruptRegionError, Share, SharedDict, UnpicklableError


def _row(n):
    """A class of its own with each call, as pandas' itertuples makes one."""
    return collections.namedtuple("Row", "a b")(1, n)


def _rule(n):
    return eval(f"lambda: {n}")


@pytest.mark.classes_end
def test_classes_that_no_value_needs_any_more_take_no_room():
    """Three keys filled a dict: each snapshot copied the definitions of all classes there were."""
    latest, one = SharedDict(max_size="1M"), Share()

    def read(child):
        while True:
            assert child.hear() == "read"
            child.say(([value.b for value in latest.values()], one.get().b, _alive()))

    reader = Child(read)
    sizes = []
    for n in range(1, 1001):
        row = _row(n)
        latest[n % 3] = row
        one.set(row)
        if n % 10 == 0:
            reader.say("read")
            values, single, alive = reader.hear()
            assert sorted(values) == [n - 2, n - 1, n]
            assert single == n
            sizes.append(latest.info().used_bytes)
    reader.kill()
    assert alive < 2 * inside.HOT_MOST
    assert _alive() < 2 * inside.HOT_MOST
    assert max(sizes) < 150 << 10
    assert len(inside.index_of(latest).state.definitions) < 100


def _alive():
    """How many classes there are, and of how many definitions this process has the bytes."""
    gc.collect()
    rows = [cls for cls in tuple.__subclasses__() if cls.__name__ == "Row"]
    return max(len(rows), len(inside.known_by_key), len(inside.known_by_address))


def test_a_snapshot_keeps_what_its_values_need_and_no_more(monkeypatch):
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), 0)

    class Base:
        pass

    def rare(n):
        class Rare(Base):
            number = n

        return Rare()

    d = SharedDict({"rare": rare(1), "plain": [1]})
    for n in range(50):
        d["other"] = _row(n)
    d["array"] = [rare(2), bytearray(10_000)]
    for n in range(50):
        d["other"] = rare(n)
    assert d.pop("other").number == 49
    with d.locked() as view:  # What room is made for has lost its definitions meanwhile.
        view["again"] = rare(3)
        view["rare"]
    gc.collect()
    assert len(inside.index_of(d).state.definitions) < 20
    stranger(
        [d],
        """
        d, = shares
        assert d["rare"].number == 1 and d["array"][0].number == 2 and d["again"].number == 3
        assert type(d["rare"]).__mro__[1] is type(d["again"]).__mro__[1]
        """,
    )


def test_a_block_over_several_brings_the_definitions_that_making_room_dropped(monkeypatch):
    """They were in the log when the block ended, but no value of it needed them any more."""
    from mmapshare import locked

    monkeypatch.setattr(*inside.at("SPARE_BYTES"), 0)
    row, d, other = _row(1), SharedDict(fill=bytes(1 << 16)), Share(0)
    d["row"] = row
    del d["row"]
    rewritten = []
    real = inside.index_rewrite

    def counted(index, state, changes):
        rewritten.append(changes)
        return real(index, state, changes)

    monkeypatch.setattr(*inside.at("index_rewrite"), counted)
    monkeypatch.setattr(*inside.at("log_has_room"), lambda *args: len(rewritten) > 0)
    with locked(d, other) as (view, second):
        view["row"] = row
        second.value += 1
    assert rewritten
    assert d["row"] == row
    stranger([d], "assert shares[0]['row'].b == 1")


def test_a_late_reader_looks_at_each_definition_a_few_times_at_most():
    """It looked through all that there were, for each one."""
    d = SharedDict({n: _row(n) for n in range(300)})
    stranger(
        [d],
        """
        from support import inside
        asked = 0
        real = inside.workshop_stored
        def counted(shop, key):
            global asked
            asked += 1
            return real(shop, key)
        inside.put("workshop_stored", counted)
        d, = shares
        assert [value.b for value in d.values()] == list(range(300))
        assert asked < 5 * len(d), asked
        """,
    )


def test_a_class_that_cannot_be_rebuilt_is_kept_for_its_values():
    """Were it let go, what has been stored could not be read by anybody."""

    def made():
        guard = threading.Lock()

        class Guarded:
            def work(self):
                with guard:
                    return 1

        return Guarded()

    share = Share(made())
    for n in range(2 * inside.HOT_MOST):
        Share(_rule(n))
    gc.collect()
    assert share.get().work() == 1
    assert in_child(lambda: share.get().work()) == 1


def test_a_class_that_others_still_use_is_warmed_again():
    rows = [_row(n) for n in range(inside.HOT_MOST + 10)]
    share = Share(rows)
    assert inside.known_by_address[id(type(rows[0]))].kept is None
    again = share.get()
    assert all(type(a) is type(b) for a, b in zip(rows, again, strict=True))
    share.set(rows[0])
    assert inside.known_by_address[id(type(rows[0]))].kept is type(rows[0])
    assert len(inside.hot) <= inside.HOT_MOST


def test_a_value_that_other_threads_change_meanwhile_is_pickled_again(monkeypatch):
    """Now and then a set failed: a dict had changed its size during iteration."""
    real, failures = inside.dump_of_codec, [3]

    def dump(pickler, value):
        if failures[0]:
            failures[0] -= 1
            pickler.needs[b"half"] = None
            raise RuntimeError("dictionary changed size during iteration")
        real(pickler, value)

    monkeypatch.setattr(*inside.at("dump_of_codec"), dump)
    share = Share(lambda: 5)
    assert failures == [0]
    assert share.get()() == 5

    failures[0] = 1000
    with pytest.raises(UnpicklableError, match="during iteration"):
        share.set(lambda: 6)

    class Restless:
        tries = 0

        def __reduce__(self):
            Restless.tries += 1
            if Restless.tries == 1:
                raise RuntimeError("Set changed size during iteration")
            return int, (7,)

    failures[0] = 0
    share.set(Restless())
    assert share.get() == 7


def test_a_class_that_changes_while_it_is_pickled_does_not_count_as_unpicklable(monkeypatch):
    """For good: who rebuilds it would be told that a dictionary had changed its size."""
    real, failures = inside.dump_of_pickler, [1]

    def dump(obj):
        if failures[0]:
            failures[0] -= 1
            raise RuntimeError("dictionary changed size during iteration")
        return real(obj)

    monkeypatch.setattr(*inside.at("dump_of_pickler"), dump)
    before = len(inside.known_unpicklable)
    share = Share(_row(1))
    assert failures == [0]
    assert len(inside.known_unpicklable) == before
    stranger([share], "assert shares[0].get().b == 1")


def test_a_class_that_another_thread_lets_go_meanwhile_is_not_held(monkeypatch):
    """Its attributes may hold the class: nobody would ever let go of them."""
    row = _row(1)
    share = Share(row)
    known = inside.known_by_address[id(type(row))]
    known.kept, known.contents = None, ()
    monkeypatch.setattr(*inside.at("warm_in_pickler"), lambda known, obj: None)
    share.set(row)
    assert known.contents == ()
    assert share.get() == row


@pytest.mark.classes_end
def test_an_edited_class_that_dies_is_forgotten_under_all_its_keys():
    for module in ("__main__", __name__):
        made = [type("Edited", (), {"__module__": module})]
        share = Share(made[0]())
        made[0].look = lambda self: 1
        share.set(made[0]())
        keys = [key for key, one in inside.known_by_key.items() if one() is made[0]]
        assert len(keys) == 2
        gone = weakref.ref(made.pop())
        for n in range(2 * inside.HOT_MOST):
            Share(_rule(n))
        gc.collect()
        assert gone() is None
        assert not any(key in inside.known_by_key for key in keys)
        assert share.get().look() == 1


def test_loading_a_class_may_load_another_share():
    """Its definition brings along what it needs; the other value brings its own."""
    other = Share(_row(5))

    class Loads:
        def __reduce__(self):
            return eval("lambda share: share.get()"), (other,)

    class Holder:
        row = Loads()

    stranger([Share(Holder()), other], "assert shares[0].get().row.b == 5")
    other.close()  # The class holds it.


def test_members_that_are_combined_are_stored_by_value():
    import enum

    class Flag(enum.Flag):
        UP = 1
        DOWN = 2

    class Odd(enum.Enum):
        ONE = 1

        def __reduce_ex__(self, protocol):
            return Odd, (1,)

    share = Share([Flag.UP | Flag.DOWN, Flag.UP, Odd.ONE])
    both, up, odd = share.get()
    assert both == Flag.UP | Flag.DOWN
    assert up is Flag.UP
    assert odd is Odd.ONE


def test_a_definition_that_is_missing_from_a_dict_is_damage():
    row, apart = _row(1), {}
    frames = inside.encode(row, apart)
    assert inside.decode(frames, {}) == row
    del row
    for known in list(inside.hot):
        known.kept, known.contents = None, ()
    gc.collect()
    with pytest.raises(CorruptRegionError, match="missing from its commit"):
        inside.decode(frames, {})
    assert inside.decode(frames, apart).b == 1


def test_threads_store_functions_and_classes_at_once():
    errors = []

    def work(k):
        try:
            for n in range(60):
                share = Share(eval(f"lambda x: x * {n} + {k}"))
                assert share.get()(2) == 2 * n + k
                share.set(_row(n))
                assert share.get().b == n
                share.close()
        except BaseException as err:
            errors.append(err)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def test_who_registers_a_reducer_later_is_heeded():
    import copyreg

    class Odd:
        pass

    share = Share(lambda: 1)
    copyreg.pickle(Odd, lambda odd: (int, (9,)))
    try:
        share.set([Odd(), lambda: 2])
        assert share.get()[0] == 9
    finally:
        del copyreg.dispatch_table[Odd]


def test_definitions_stand_behind_a_stream_where_unpickling_does_not_look():
    (frame,) = inside.encode(_row(1))
    apart = {}
    (short,) = inside.encode(_row(1), apart)
    assert pickle.loads(frame).b == pickle.loads(short).b == 1
    assert len(short) < len(frame) / 3
    assert set(inside.needs_of(short, len(short))) <= set(apart)
    assert inside.needs_of(pickle.dumps(1), len(pickle.dumps(1))) == []
