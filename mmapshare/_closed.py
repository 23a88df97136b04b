"""What stands where something was that has been closed.

Another thread may be using that very thing. So a close puts `CLOSED` in its place first: whoever
comes later gets a ClosedError. Whoever has it in hand goes on with it: with the GIL, what a single
instruction does to memory is over before that is unmapped; without, memory is unmapped with the
last reference to it (see `_store.segment`).
"""

from __future__ import annotations

import sys
from typing import Any, Final, NoReturn

from .errors import ClosedError

CLOSED_HERE: Final = "this share was closed in this process; close it after its last use"


class Closed:
    """Everything that is asked of it raises ClosedError."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # Collectors ask whatever stands in a module.
            raise AttributeError(name)
        raise ClosedError(CLOSED_HERE)

    def __getitem__(self, key: object) -> NoReturn:
        raise ClosedError(CLOSED_HERE)

    def __setitem__(self, key: object, value: object) -> NoReturn:
        raise ClosedError(CLOSED_HERE)

    def __buffer__(self, flags: int) -> NoReturn:  # only with PEP 688
        """Asked by ``memoryview`` from Python 3.12 on; before, that is a TypeError."""
        raise ClosedError(CLOSED_HERE)


CLOSED: Final[Any] = Closed()


def has_gil() -> bool:
    """Whether one thread at a time runs, so that no other one stands within an instruction."""
    is_enabled = getattr(sys, "_is_gil_enabled", None)
    return is_enabled is None or bool(is_enabled())


def let_go(view: memoryview) -> None:
    """A view of memory that is about to be closed is needed no more by who made it.

    Without the GIL another thread may read by it this very moment: then it goes when that is over.
    """
    if has_gil():  # only with the GIL
        view.release()
