"""Closing the signal gap at a function's first instruction.

CPython looks for signals as a function starts, before its first ``try`` has begun. A Ctrl-C that
arrives there leaves ``__exit__`` without having released anything. `from_first_instruction`
widens the function's first ``try`` to cover its start as well; on other interpreters, and where
the code looks otherwise than expected, it leaves the function as it is.

The table's format is CPython's (Objects/exception_handling_notes.txt): entries of start, length,
target and depth, each a big-endian number of 6-bit digits, bit 6 saying that more follow, bit 7
that an entry begins.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FunctionType
from typing import Final, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")

_PROLOGUE_MOST: Final = 8
"""Instructions that may stand before a ``try`` that opens its function."""


def from_first_instruction(function: Callable[P, R]) -> Callable[P, R]:
    """Let the ``try`` statement that opens ``function`` cover its first instruction too."""
    code = cast(FunctionType, function).__code__
    table = getattr(code, "co_exceptiontable", b"")
    if sys.implementation.name == "cpython" and table:
        start, rest = _number(table)
        length, rest = _number(rest)
        if start <= _PROLOGUE_MOST:
            widened = bytes([0x80]) + _digits(start + length) + rest
            cast(FunctionType, function).__code__ = code.replace(co_exceptiontable=widened)
    return function


def _number(table: bytes) -> tuple[int, bytes]:
    value = 0
    for index, digit in enumerate(table):
        value = value << 6 | digit & 0x3F
        if not digit & 0x40:
            return value, table[index + 1 :]
    raise ValueError("a number of the exception table does not end")


def _digits(value: int) -> bytes:
    digits = [value & 0x3F]
    while value := value >> 6:
        digits.insert(0, value & 0x3F | 0x40)
    return bytes(digits)
