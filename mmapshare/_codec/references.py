"""References: what a value that is being encoded names, and that must live as long as it is stored.

Shares are pickled as handles. One that only a stored value names would be gone before anybody
could load it, unless the process that stored it kept it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import get_ident
from types import FrameType
from typing import Any, Final

_CODEC: Final = __name__.rpartition(".")[0] + ".frames"
_FRAMES_UP_TO_CODEC: Final = 8
"""``__reduce__``, and the Python methods of cloudpickle's pickler."""

in_core: Callable[[], bool] = bool
"""Whether the compiled core pickles, which is on no stack; until there is one, never."""

named: dict[int, list[Any]] = {}
"""What is named in what a thread encodes, by its ident, until `take_named`."""


def note(named_one: Any) -> None:
    """The calling thread encodes a value that names this."""
    named.setdefault(get_ident(), []).append(named_one)


def take_named() -> tuple[Any, ...]:
    """What this thread's latest values named: it is kept as long as these are stored."""
    return tuple(named.pop(get_ident(), ()))


def is_being_stored() -> bool:
    """Whether it is our own codec that pickles, and nobody who hands the share on.

    Asked from `__reduce__`, by way of a function.
    """
    if in_core():
        return True
    frame: FrameType | None = sys._getframe(3)
    for _ in range(_FRAMES_UP_TO_CODEC):
        if frame is None:
            return False
        if frame.f_globals.get("__name__") == _CODEC:  # Its file's name may be anything.
            return True
        frame = frame.f_back
    return False
