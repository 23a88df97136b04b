"""What an owner has already of a share's lock: its running block, or what `lock` took."""

from __future__ import annotations

import sys
from typing import Any

from .._lock import LockToken, current_owner, has_ended, in_steps, is_under_way, token_by
from ..errors import DeadlockError, TransactionError
from .view import View

_NOT_LOCKED = (
    "unlock() without lock(): this owner has not locked the share; or a task or thread had locked "
    "it that has ended, and somebody has asked for the lock since"
)


def own_token(share: Any) -> LockToken | None:
    """The caller's own token, which has the lock; None where it is worth asking again.

    An abandoned one is cleared. What interrupts can leave behind is the token of a `set`
    that is not running any more, or that of a block whose `__exit__` was stopped at its
    very first step and stands in the traceback that is being handled. DeadlockError where
    the token belongs to an operation that this very call interrupts.
    """
    lock = share._store.lock
    held = lock.token
    if held is None or held._owner != current_owner():
        return None
    if is_under_way(held):
        raise DeadlockError(
            "a signal handler, a finaliser or a pickling hook used the share in the middle of "
            "this thread's own transaction on it; let it leave a note, to be acted upon later"
        )
    if held is share._explicit or (isinstance(held, View) and not _stopped_in_exit(held)):
        return held
    lock.abandon(held)
    held._owner = None
    return None


def own_block(share: Any, held: LockToken) -> View[Any] | None:
    """The view of the block that runs under the caller's own token; None between blocks."""
    view = held._inner if held is share._explicit else held
    return view if isinstance(view, View) and view._owner is not None else None


def in_own_block(share: Any) -> bool:
    """Whether the caller stands in a block of its own on that share."""
    token = share._store.lock.token
    own = token is not None and token._owner == current_owner()
    return own and own_block(share, token) is not None


EXITS: set[Any] = set()
"""The code of `__exit__` and `__aexit__` of blocks, which have the view among their locals."""


def _stopped_in_exit(view: View[Any]) -> bool:
    """Whether the exception being handled stopped the `__exit__` of this view's block."""
    err = sys.exc_info()[1]
    seen: set[int] = set()
    while err is not None and id(err) not in seen:
        seen.add(id(err))
        traceback = err.__traceback__
        while traceback is not None:
            frame = traceback.tb_frame
            if frame.f_code in EXITS:
                transaction = frame.f_locals.get("self")
                if transaction is not None and transaction._view is view:
                    return True
            traceback = traceback.tb_next
        err = err.__context__ or err.__cause__
    return False


# --- Taking the lock without a block -----------------------------------------------------------


@in_steps
def take(share: Any, timeout: float | None) -> None:
    """Take the lock until `give_back`; DeadlockError where the owner has it."""
    lock = share._store.lock
    token = token_by(current_owner())
    try:
        while not lock.acquire(token, timeout):
            if own_token(share) is not None:
                raise DeadlockError(
                    "this owner has the lock already; leave the block or unlock() first"
                )
        share._explicit = token
        token._busy = False
    except BaseException:
        lock.abandon(token)
        raise


@in_steps
def give_back(share: Any) -> None:
    """Give back what `take` took; TransactionError where this owner has not taken it."""
    lock = share._store.lock
    token: LockToken | None = lock.token
    if token is None or token is not share._explicit:
        raise TransactionError(_NOT_LOCKED)
    ended = has_ended(token._owner)
    if not ended and token._owner != current_owner():
        raise TransactionError(_NOT_LOCKED)
    if not ended and own_block(share, token) is not None:
        raise TransactionError("unlock() inside a locked() block; leave the block first")
    try:
        token._busy = True
        share._explicit = None
        if ended:
            lock.abandon(token)  # Others may be just about to clear it.
        else:
            lock.release()
    except BaseException:
        lock.abandon(token)
        raise


@in_steps
def put_inside(share: Any, held: LockToken, changes: Any, expect: Any, kept: Any) -> int:
    """Commit at once under what `take` took."""
    held._busy = True
    try:
        version: int = share._store.put_inside(changes, expect, kept)
        return version
    finally:
        held._busy = False
