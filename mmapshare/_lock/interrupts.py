"""What interrupts our code in mid-step: signal handlers, finalisers, pickling hooks.

`is_under_way` tells an operation that such a one has stopped from one that is over.

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
from types import CodeType, FrameType, FunctionType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from .token import LockToken

F = TypeVar("F", bound=Callable[..., Any])
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


IN_CORE: object = None
"""What a token is busy with in the compiled core, which takes that away on every way out."""
_STEPS: Final[set[CodeType]] = set()
_PACKAGE: Final = __name__.partition(".")[0]


def in_steps(function: F) -> F:
    """Mark a function which is under way while its local variables have a busy token."""
    _STEPS.add(function.__code__)
    return function


def is_under_way(token: LockToken) -> bool:
    """Whether an operation that holds ``token`` stands on the caller's own stack, in mid-step.

    Asked only where an owner finds its own token, which is a nested block or a rare accident. What
    was interrupted, twice perhaps, is busy for ever, but stands on no stack.
    """
    busy = [one for one in token._with_inner() if one._busy]
    if any(one._busy is IN_CORE for one in busy):
        return True
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and busy:
        if frame.f_code in _STEPS:
            found: list[object] = [*frame.f_locals.values()]
            for several in [one for one in found if type(one) is list]:
                found.extend(several)
            if any(one is other for one in busy for other in found):
                return True
        frame = frame.f_back
    return False


def is_ours(frame: FrameType) -> bool:
    """Whether a frame runs code of this package."""
    return str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE


def level_of_caller() -> int:
    """For a warning: how far up the one is who called this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and is_ours(frame):
        level, frame = level + 1, frame.f_back
    return level
