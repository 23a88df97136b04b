"""Values whose definitions are stored apart: looks at them, and what does not load of them."""

import gc

import pytest
from support import in_child, inside, stranger
from support.inside import is_sound, stream_of

from mmapshare import CorruptRegionError, SharedDict, UnloadableError, UnpicklableError


def _made(name="Odd", **more):
    """A class that travels by value."""
    return type(name, (), {"__module__": __name__, **more})


def _forget_all():
    for known in list(inside.hot):
        known.kept, known.contents = None, ()
    gc.collect()


def _refuses(*args):
    raise ValueError("not here")


def test_a_look_at_an_instance_that_pickles_anew_publishes_nothing(monkeypatch):
    """An attribute's name that is a key too is no longer the same string once it is loaded."""
    monkeypatch.setattr(*inside.at("SAMENESS_ALWAYS"), 1 << 30)
    cls = _made()
    shared = SharedDict()

    def fill():
        made = cls()
        made.name, made.keys, made.set = 1, {"name": 2}, {cls(), cls(), cls()}
        return made

    shared.update({n: fill() for n in range(3)})
    version = shared.version

    def one_by_one(view):
        for n in range(3):
            assert view[n].keys == {"name": 2}

    def all_of_them(view):
        assert [each.keys for each in view.values()] == [{"name": 2}] * 3

    for look in (one_by_one, all_of_them):
        with shared.locked() as view:
            look(view)
        shared.transact(look)
        in_child(shared.transact, look)
    assert shared.version == version
    with shared.locked() as view:
        view[1].keys["name"] = 3
    assert shared.version == version + 1
    assert shared[1].keys == {"name": 3}


def test_a_look_finds_the_definitions_that_only_the_dict_has(monkeypatch):
    shared = SharedDict()
    in_child(lambda: shared.update(a=_made()(), b=[_made(), {_made()(), _made()()}]))
    _forget_all()
    version = shared.version
    with shared.locked() as view:
        assert type(view["a"]).__name__ == type(view["b"][0]()).__name__ == "Odd"
    assert shared.version == version


def test_a_predicate_reads_values_of_classes_that_it_meets_first():
    shared = SharedDict(a=_made(x=7)())
    stranger([shared], "assert shares[0].wait(lambda d: d['a'].x == 7, timeout=60)")


def test_a_value_by_key_that_does_not_load_is_told_from_damage():
    """What stands behind its stream made it look overwritten."""
    cls = _made("Picky", __reduce__=lambda self: (_refuses, (type(self),)))
    shared = SharedDict(a=cls(), b=1)

    def in_block():
        with shared.locked() as view:
            return view["a"]

    for read in (
        lambda: shared["a"],
        lambda: shared.snapshot()["a"],
        lambda: shared.transact(lambda view: view["a"]),
        lambda: shared.wait(lambda seen: seen["a"], timeout=60),
        in_block,
    ):
        with pytest.raises(UnloadableError, match="not here") as caught:
            read()
        assert caught.value.name == f"{__name__}._refuses"
        assert caught.value.key == "a"
    assert shared["b"] == 1


def test_memory_that_runs_out_is_no_damage_of_a_value_by_key():
    apart = {}
    frames = inside.encode(_made()(), apart)
    with pytest.raises(MemoryError):
        inside.recover(frames, MemoryError(), apart)
    with pytest.raises(CorruptRegionError, match="overwritten"):
        inside.recover((frames[0][:20] + frames[0][30:],), MemoryError(), apart)


def test_a_key_that_ends_as_a_stream_does_is_taken_for_no_bundle():
    stream = b"\x80\x05N."
    tail = b"k" * 15 + b"." + (1).to_bytes(8, "little")
    assert stream_of(stream + tail, apart=True) == stream
    assert is_sound(stream + tail, apart=True)
    assert stream_of(stream, apart=True) == stream_of(stream, apart=False) == stream


def test_a_set_in_whose_members_something_changes_meanwhile_counts_as_changed(monkeypatch):
    """Another thread may patch a class just then."""

    def look(error):
        def frames_of(ordered, value):
            raise error

        monkeypatch.setattr(*inside.at("ordered_frames_of"), frames_of)
        return inside.same_but_for_sets({1}, {1})

    assert look(RuntimeError("dictionary changed size during iteration")) is False
    with pytest.raises(RuntimeError, match="another"):
        look(RuntimeError("another"))


def test_a_class_that_is_met_at_the_edge_of_what_is_too_deep_can_be_rebuilt():
    """There its definition found no room any more: the class counted as one that never has any."""

    def stores(depth):
        value = _made(work=lambda self: 1)()
        for _ in range(depth):
            value = [value]
        try:
            inside.encode(value)
        except UnpicklableError as err:
            assert "nested too deeply" in str(err)
            return False
        finally:
            while isinstance(value, list):
                value = value[0]
        return True

    kept = len(inside.known_unpicklable)
    most, too_much = 1, 1 << 18
    while too_much - most > 1:
        middle = (most + too_much) // 2
        most, too_much = (middle, too_much) if stores(middle) else (most, middle)
    for depth in range(max(1, most - 20), most + 20):
        stores(depth)
    assert len(inside.known_unpicklable) == kept
