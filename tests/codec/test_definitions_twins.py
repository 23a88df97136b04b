"""Definitions that look alike and are not: of threads, of twins after a fork, of other defaults."""

from support.programs import run


def test_threads_that_store_the_first_instances_of_a_class_at_once(tmp_path):
    """One thread named the definition that the other had not finished: its body was empty, and
    every later commit of that class could not be read elsewhere."""
    run(
        """
        import threading
        shares, classes = [], []
        for n in range(30):
            space = {}
            body = "".join(f"    def m{k}(self): return {k}\\n" for k in range(30))
            exec(f"class K{n}:\\n" + body, globals())
            classes.append(globals()[f"K{n}"])
        for cls in classes:
            pair = [Share(), Share()]
            start = threading.Barrier(2)
            def store(share):
                start.wait()
                share.set(cls())
            threads = [threading.Thread(target=store, args=(share,)) for share in pair]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            shares += pair
        stranger(shares, '''
            import threading
            start = threading.Barrier(4)
            errors = []
            def load():
                start.wait()
                for share in shares:
                    try:
                        assert share.get().m29() == 29
                    except BaseException as err:
                        errors.append(repr(err))
            threads = [threading.Thread(target=load) for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            assert not errors, errors[:3]
            ''')
        """,
        tmp_path,
    )


def test_twins_after_a_fork_do_not_take_one_anothers_classes_for_their_own(tmp_path):
    """Two children made classes at the same address with the same code: only what their methods
    close over told them apart."""
    run(
        """
        def make(n):
            class Local:
                def who(self):
                    return n
            return Local
        shares = [Share(), Share()]
        def store(n):
            cls = make(n)
            shares[n].set(cls())
            other = shares[1 - n]
            return other.get().who() if other.version else None
        in_child(lambda: store(0))
        assert in_child(lambda: store(1)) == 0
        """,
        tmp_path,
    )


def test_a_method_with_other_defaults_or_another_decorated_body_is_another_definition(tmp_path):
    run(
        """
        import functools
        def deco(function):
            @functools.wraps(function)
            def wrapper(*args):
                return function(*args)
            return wrapper
        class A:
            def f(self, n=1): return n
            @deco
            def g(self): return "old"
        share = Share()
        def redefine():
            class A:
                def f(self, n=2): return n
                @deco
                def g(self): return "new"
            A.__qualname__ = "A"
            share.set(A())
        in_child(redefine)
        value = share.get()
        assert (value.f(), value.g()) == (2, "new") and type(value) is not A
        """,
        tmp_path,
    )
