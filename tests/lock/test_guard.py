"""The guard widens what it knows, and leaves alone what it does not."""

import dis

import pytest
from support import inside
from support.inside import Lock, Together, Transaction


@pytest.mark.parametrize(
    "function",
    [inside.of_python(Transaction, "__exit__"), Transaction.__aexit__, inside.view_abandoned,
     Together.__exit__, Together.__aexit__, Lock.abandon],
)  # fmt: skip
def test_a_try_that_opens_its_function_covers_the_first_instruction(function):
    entries = dis.Bytecode(function).exception_entries
    assert min(entry.start for entry in entries) == 0


def _no_try(n):
    return n + 1


def _late_try(n):
    n = n * 2 + 1
    n = n * 2 + 1
    n = n * 2 + 1
    try:
        return 1 // n
    except ZeroDivisionError:
        return 0


@pytest.mark.parametrize("function", [_no_try, _late_try])
def test_a_function_that_no_try_opens_is_left_as_it_is(function):
    code = function.__code__
    assert inside.from_first_instruction(function) is function
    assert function.__code__ is code


@pytest.mark.parametrize("value", [0, 1, 63, 64, 4095, 4096, 10**6])
def test_a_number_of_the_table_is_read_as_it_was_written(value):
    assert inside.table_number(inside.table_digits(value) + b"rest") == (value, b"rest")


def test_a_number_that_does_not_end_is_an_error():
    with pytest.raises(ValueError, match="does not end"):
        inside.table_number(b"\x41\x41")
