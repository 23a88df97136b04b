"""What makes two classes the same; what it decides over forks and spawns: see test_definitions."""

import functools
import os
import subprocess
import sys

from support import TESTS
from support.inside import shape_of


def _class_with(**members):
    return type("Made", (), members)


def test_what_functools_wraps_is_part_of_it():
    def made(by):
        def plus(self, n=0):
            return n + by

        return (
            _class_with(area=functools.cached_property(plus)),
            _class_with(area=functools.partialmethod(plus, 5)),
            _class_with(area=functools.lru_cache(plus)),
        )

    for one, same, other in zip(made(1), made(1), made(2), strict=True):
        assert shape_of(one) == shape_of(same)
        assert shape_of(one) != shape_of(other)


def test_a_function_that_closes_over_itself_is_looked_at_once():
    def made(step):
        def down(self, n):
            return n and down(self, n - step)

        return _class_with(down=down)

    assert shape_of(made(1)) == shape_of(made(1))
    assert shape_of(made(1)) != shape_of(made(2))


def test_a_function_within_a_function_is_part_of_it():
    def made(source):
        return _class_with(look=eval(source))

    assert shape_of(made("lambda self: lambda: 1")) == shape_of(made("lambda self: lambda: 1"))
    assert shape_of(made("lambda self: lambda: 1")) != shape_of(made("lambda self: lambda: 2"))


def test_a_variable_that_has_no_value_yet_counts_as_none():
    def made(*values):
        def look(self):
            return later

        for later in values:
            pass
        return _class_with(look=look)

    assert shape_of(made()) == shape_of(made()) == shape_of(made(None))
    assert shape_of(made()) != shape_of(made(1))


PROGRAM = """
from support.inside import shape_of
class Parser:
    def is_known(self, word):
        return word in {"alpha", "beta", "gamma", "delta", "epsilon", "zeta"}
print(shape_of(Parser).hex(), list({"alpha", "beta", "gamma", "delta", "epsilon", "zeta"}))
"""


def test_the_order_of_a_set_in_the_source_is_no_part_of_it():
    """Each process hashes strings in its own way, and so lists a constant set in its own order."""
    shapes, orders = set(), set()
    for seed in range(4):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": TESTS},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        shape, _, order = done.stdout.partition(" ")
        shapes.add(shape)
        orders.add(order)
    assert len(orders) > 1
    assert len(shapes) == 1
