"""Classes of ``__main__`` that change: which definition a value goes with, and for how long."""

import pytest
from support.programs import run


def test_class_attributes_that_are_data_do_not_part_a_family(tmp_path):
    run(
        """
        class Counted:
            made = 0
            def __init__(self):
                type(self).made += 1
        share = Share(Counted())
        def work():
            for _ in range(3):
                share.set(Counted())
            Counted._note = "the child's own"
            share.set(Counted())
        in_child(work)
        assert type(share.get()) is Counted
        assert Counted.made == 1
        """,
        tmp_path,
    )


def test_a_changed_definition_is_a_new_one(tmp_path):
    run(
        """
        share = Share()
        def redefine():
            global Point
            @attrs.define
            class Point:
                x: int
                z: int = 5
                def double(self):
                    return "changed"
            share.set(Point(1))
            assert type(share.get()) is Point
        in_child(redefine)
        value = share.get()
        assert type(value) is not Point and value.double() == "changed" and value.z == 5
        assert type(share.get()) is type(value)
        share.set(Point(3))
        assert type(share.get()) is Point and share.get().double() == Point(6, 4)

        class Config:
            a = 1
        old = Config
        share.set(Config())
        class Config:
            a = 1
            b = 2
        share.set(Config())
        assert type(share.get()) is Config and share.get().b == 2
        def enum_of(**members):
            return enum.Enum("Color", members, module="__main__")
        in_child(lambda: share.set(enum_of(RED=7).RED))
        assert share.get().value == 7
        """,
        tmp_path,
    )


def test_a_changed_method_makes_a_new_definition(tmp_path):
    run(
        """
        share = Share(Point(1))
        from support import inside
        known = len(inside.known_by_key)
        share.set(Point(2))
        assert len(inside.known_by_key) == known
        def check():
            Point.double = lambda self: "patched"
            share.set(Point(2))
            assert len(inside.known_by_key) > known
            assert type(share.get()) is Point and share.get().double() == "patched"
        in_child(check)
        patched = share.get()
        assert patched.double() == "patched" and type(patched) is not Point
        assert Point(1).double() == Point(2, 4), "reading it has patched ours"
        """,
        tmp_path,
    )


def test_nothing_that_a_value_needs_is_forgotten(tmp_path):
    """After 1024 definitions a process forgot those that its dict's values needed."""
    run(
        """
        from mmapshare import SharedDict
        from support import inside
        jobs = SharedDict(max_size="4M")
        early = Share([Point(1), Color.RED])
        jobs["first"], jobs["mood"] = Point(1), Color.RED
        for n in range(3 * inside.HOT_MOST):
            jobs["rule"] = eval(f"lambda x: x * {n}")
            early.get()
        assert len(inside.hot) == inside.HOT_MOST
        for point, red in early.get(), (jobs["first"], jobs["mood"]):
            assert type(point) is Point and red is Color.RED
        assert jobs["rule"](2) == 2 * n
        many = Share(["old"])
        many.set([eval(f"lambda x: x + {n}") for n in range(3 * inside.HOT_MOST)])
        def check():
            assert [f(1) for f in many.get()] == [n + 1 for n in range(3 * inside.HOT_MOST)]
        check()
        in_child(check)
        stranger([many, jobs], """
        + "'''"
        + """
            many, jobs = shares
            assert [f(1) for f in many.get()][-1] == len(many.get())
            assert jobs["first"].double() == type(jobs["first"])(2, 4)
            assert jobs["mood"].name == "RED"
        """
        + "'''"
        + """)
        """,
        tmp_path,
    )


def test_a_definition_that_is_missing_from_its_commit_is_damage(tmp_path):
    run(
        """
        from mmapshare import CorruptRegionError
        from support import inside
        (frame,) = inside.encode(Point(1))
        bare = (inside.stream_of(frame, apart=False),)
        assert len(bare[0]) < len(frame) and type(inside.decode(bare)) is Point
        inside.known_by_key.clear()
        try:
            inside.decode(bare)
        except CorruptRegionError as err:
            assert "missing from its commit" in str(err), err
        else:
            raise AssertionError
        assert type(inside.decode((frame,))) is Point
        """,
        tmp_path,
    )


def test_a_class_attribute_that_cannot_be_compared_makes_no_new_definition(tmp_path):
    """Two arrays are neither equal nor not, when their truth is asked for."""
    pytest.importorskip("numpy")
    run(
        """
        import numpy
        from support import inside
        class Table:
            rows = numpy.arange(3)
        share = Share(Table())
        known = len(inside.known_by_key)
        for _ in range(3):
            Table.rows = numpy.arange(3)
            share.set(Table())
            assert type(share.get()) is Table
        assert len(inside.known_by_key) == known
        """,
        tmp_path,
    )
