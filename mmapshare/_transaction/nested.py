"""Blocks that joined another one, by whatever flow of the same owner.

Nested blocks end before the one that they joined. But generators and callbacks that interleave in
one thread cannot be told from it, nor from one another, so their blocks join as well, and may end
in any order, or fail one by one. Nothing of that may be lost, or committed half done, without a
word:

- a block does not commit while one that joined it is open;
- where it fails, although a block of another flow had joined it and had ended well, it says so.

Which of the two a failure is, the stack tells. A nested block was left in a call by the frame that
leaves the outer one; or that is left by somebody's ``__exit__``, which such a frame has called.
"""

from __future__ import annotations

import sys
from collections import deque
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import FrameType
from typing import Any, Final

from .._lock import is_ours
from ..errors import TransactionError


class Joined:
    """Stands in a view's ``_failed`` from the first block on that joins its own."""

    __slots__ = ("_kept", "ended", "failed", "open")

    def __init__(self, failed: Any) -> None:
        self.failed = failed
        """What ``_failed`` would say without this."""
        self.open: list[object] = []
        """The transactions that have joined, and have not been left."""
        self.ended: set[frozenset[tuple[int, int]]] = set()
        """The frames that those were left in which have ended well, as `_name` tells them."""
        self._kept: deque[FrameType] = deque(maxlen=_KEPT)

    def leave(self, transaction: object) -> None:
        """It has been left, or was never entered; harmless when done already."""
        self.open[:] = [other for other in self.open if other is not transaction]

    def end(self, transaction: object) -> None:
        """It has ended well."""
        stack = _stack()
        self.ended.add(frozenset(map(_name, stack)))
        # The frame of a generator is made when it is first looked at: perhaps only when its block
        # fails, and then in the place of one that was left here, if that were gone.
        self._kept.extend(frame for frame in stack if frame.f_code.co_flags & _SUSPENDS)
        if len(self.ended) > _KEPT:  # As if all of them had been left in one place.
            self.ended = {frozenset[tuple[int, int]]().union(*self.ended)}
        self.leave(transaction)

    def over(self, err: BaseException | None) -> None:
        """The block itself has ended, and failed where there is an error.

        Says that blocks of other flows are rolled back with it: TransactionError, or a note where
        the exception stands for an end that must not be held up.
        """
        self._kept.clear()
        if err is not None and any(map(_is_apart, self.ended)):
            if isinstance(err, Exception | GeneratorExit):
                raise TransactionError(_LOST) from err
            err.add_note(_LOST)


def _is_apart(left: frozenset[tuple[int, int]]) -> bool:
    """Whether a block that was left in these frames was nested in none of the caller's."""
    called: FrameType | None = None
    for frame in _stack():
        if frame.f_code.co_name not in _EXITS and _name(frame) in left:
            return called is not None and called.f_code.co_name not in _EXITS
        called = frame
    return True


def _name(frame: FrameType) -> tuple[int, int]:
    """A frame's name, which does not keep it alive.

    One that has lived ever since is known by it. A new one in the place of another hardly ever
    runs the same code; those that do, an ``__exit__`` after another, are not asked for.
    """
    return id(frame), id(frame.f_code)


def _stack() -> list[FrameType]:
    """The caller's frames outside of this package, innermost first."""
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frames or not is_ours(frame):
            frames.append(frame)
        frame = frame.f_back
    return frames


_KEPT: Final = 64
_SUSPENDS: Final = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR
_EXITS: Final = {"__exit__", "__aexit__"}
_LOST: Final = (
    "this block failed, and with it is rolled back what another one had changed that had joined "
    "it and had ended, in another generator or callback of this thread: the two cannot be told "
    "apart. Leave a block before others run, or use threads, tasks or greenlets"
)
STILL_OPEN: Final = (
    "nothing was committed: a block that joined this one is still open, in a generator or "
    "callback of this thread that has not gone on. Leave blocks in the order in which they were "
    "entered, the last one first"
)
