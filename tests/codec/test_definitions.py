"""Classes of ``__main__``: pickled once, the very same objects within a family of forks, rebuilt
elsewhere. Each test is a program of its own, since its ``__main__`` is what it is about."""

from support.programs import run


def test_within_a_family_of_forks_a_class_is_the_very_object(tmp_path):
    run(
        """
        share = Share({"p": Point(1), "c": Color.RED, "e": MyError("x")})
        def check(value):
            assert type(value["p"]) is Point and value["p"] == Point(1), value
            assert value["c"] is Color.RED
            try:
                raise value["e"]
            except MyError:
                pass
        check(share.get())
        in_child(lambda: check(share.get()))
        # Stored by the child, who is the first to need it, and read by the parent.
        other = Share()
        in_child(lambda: other.set({"p": Point(1), "c": Color.RED, "e": MyError("x")}))
        check(other.get())
        in_child(lambda: check(other.get()))
        """,
        tmp_path,
    )


def test_a_class_first_stored_by_a_child_is_the_parents(tmp_path):
    run(
        """
        class Late:
            table = {}
            def look(self):
                return Late, Color.BLUE
        share = Share()
        in_child(lambda: share.set([Late(), Color.BLUE]))
        late, blue = share.get()
        assert type(late) is Late and blue is Color.BLUE
        """,
        tmp_path,
    )


def test_a_local_class_is_found_again_in_the_family(tmp_path):
    run(
        """
        def factory(n):
            class Local:
                def value(self):
                    return n
            return Local
        one, two = factory(1), factory(2)
        share = Share()
        in_child(lambda: share.set([one(), two()]))
        a, b = share.get()
        assert type(a) is one and type(b) is two
        assert (a.value(), b.value()) == (1, 2)
        """,
        tmp_path,
    )


def test_definitions_ride_along_and_are_pickled_once(tmp_path):
    run(
        """
        import cloudpickle
        calls = []
        real = cloudpickle.Pickler.reducer_override
        def counted(self, obj):
            if obj is Point:
                calls.append(obj)
            return real(self, obj)
        cloudpickle.Pickler.reducer_override = counted
        share = Share(Point(1))
        for n in range(50):
            with share.locked() as view:
                view.x += 1
        assert share.get() == Point(51)
        assert len(calls) == 1, len(calls)
        assert share.version == 51
        """,
        tmp_path,
    )


def test_elsewhere_a_class_is_rebuilt_once_and_comes_home_as_itself(tmp_path):
    run(
        """
            a, b = Share([Point(1), Color.RED]), Share(Point(5))
            def second():
                b.set(Point(6))
            in_child(second)
            stranger([a, b], '''
                a, b = shares
                (p, red), q = a.get(), b.get()
                assert type(p) is type(q), "two classes of one definition"
                assert p.double() == type(p)(2, 4) and q.x == 6
                assert a.get()[1] is red and type(red)(2).name == "BLUE"
                with a.locked() as view:
                    view[0].x = 10
                    view.append(type(red).BLUE)
                version = a.version
                with a.locked() as view:
                    view[0].x = 10
                assert a.version == version
            ''')
            point, red, blue = a.get()
            assert type(point) is Point and point.x == 10
            assert red is Color.RED and blue is Color.BLUE
        """,
        tmp_path,
    )


def test_definitions_may_name_one_another_in_a_ring(tmp_path):
    run(
        """
            class Egg:
                def hatch(self):
                    return Hen()
            class Hen(Point):
                def __init__(self):
                    Point.__init__(self, 1)
                def lay(self):
                    return Egg()
            share = Share(Hen())
            stranger([share], '''
                hen = shares[0].get()
                egg = hen.lay()
                assert type(egg.hatch()) is type(hen)
                assert type(hen).__mro__[1].__name__ == "Point"
                shares[0].set([egg, hen])
            ''')
            egg, hen = share.get()
            assert type(egg) is Egg and type(hen) is Hen
        """,
        tmp_path,
    )


def test_a_spawned_child_uses_the_class_that_it_imported(tmp_path):
    run(
        """
        import multiprocessing
        def work(share):
            value = share.get()
            assert type(value["p"]) is Point, type(value["p"])
            assert value["c"] is Color.RED
            share.set({"p": Point(7), "c": Color.BLUE, "f": lambda: Point(1), "g": work})
        if __name__ == "__main__":
            for method in ("spawn", "forkserver"):
                share = Share({"p": Point(1), "c": Color.RED})
                process = multiprocessing.get_context(method).Process(target=work, args=(share,))
                process.start(); process.join()
                assert process.exitcode == 0
                value = share.get()
                assert type(value["p"]) is Point and value["p"].x == 7
                assert value["c"] is Color.BLUE
                assert type(value["f"]()) is Point
                share.close()
        """,
        tmp_path,
    )


def test_a_class_whose_surroundings_cannot_be_pickled_works_in_its_family(tmp_path):
    run(
        """
            import threading
            guard = threading.Lock()
            class Guarded:
                def work(self):
                    with guard:
                        return 1
            share = Share(Guarded())
            assert share.get().work() == 1
            in_child(lambda: share.set([share.get()]))
            assert type(share.get()[0]) is Guarded
            stranger([share], '''
                try:
                    shares[0].get()
                except Exception as err:
                    assert type(err).__name__ == "UnpicklableError", err
                    assert all(word in str(err) for word in ("Guarded", "lock", "module")), err
                else:
                    raise AssertionError
            ''')
        """,
        tmp_path,
    )


def test_functions_of_main_and_their_code_travel(tmp_path):
    run(
        """
            base = 10
            def outer(x):
                def inner(y):
                    return x + y + base
                return inner
            share = Share({"outer": outer, "bound": outer(1)})
            stranger([share], '''
                value = shares[0].get()
                assert value["outer"](1)(2) == 13 and value["bound"](5) == 16
                version = shares[0].version
                with shares[0].locked() as view:
                    pass
                assert shares[0].version == version
                with shares[0].locked() as view:
                    view["n"] = 1
            ''')
            assert share.get()["outer"](1)(1) == 12
            for _ in range(3):
                with share.locked():
                    pass
            assert share.version == 2
        """,
        tmp_path,
    )


def test_generic_and_nested_and_abstract_classes_travel(tmp_path):
    run(
        """
        import abc, dataclasses, typing, collections
        T = typing.TypeVar("T")
        class Box(typing.Generic[T]):
            class Lid:
                pass
            def __init__(self, item: T):
                self.item = item
        class Base(abc.ABC):
            @abc.abstractmethod
            def go(self): ...
        class Real(Base):
            def go(self):
                return super().__hash__() is not None
            @property
            def p(self):
                return 1
            @classmethod
            def c(cls):
                return cls
            @staticmethod
            def s():
                return 3
        @dataclasses.dataclass(frozen=True)
        class Data:
            a: int = 1
        Row = collections.namedtuple("Row", "a b")
        share = Share()
        in_child(lambda: share.set([Box(1), Box.Lid(), Real(), Data(5), Row(1, 2), Box]))
        box, lid, real, data, row, cls = share.get()
        assert type(box) is Box and type(lid) is Box.Lid and type(real) is Real and cls is Box
        assert data == Data(5) and type(row) is Row and real.go() and real.c() is Real
        """,
        tmp_path,
    )


def test_what_a_spawned_main_has_defined_is_handed_on_by_others(tmp_path):
    """It knows itself by a name that is no module's elsewhere."""
    run(
        """
        import multiprocessing
        def work(share):
            assert __name__ == "__mp_main__"
            share.set([lambda: 7, type("Made", (), {"n": 8})])
        if __name__ == "__main__":
            first, second = Share(), Share()
            context = multiprocessing.get_context("spawn")
            process = context.Process(target=work, args=(first,))
            process.start(); process.join()
            assert process.exitcode == 0
            found, made = first.get()
            assert found.__module__ == made.__module__ == "__mp_main__"
            assert sys.modules["__mp_main__"].__name__ == "__main__"
            second.set([found, made])
            stranger([second], '''
                found, made = shares[0].get()
                assert (found(), made.n) == (7, 8)
            ''')
        """,
        tmp_path,
    )
