"""What one owner takes a lock with."""

from __future__ import annotations

from typing import Any


class LockToken:
    """What one owner takes a lock with, told from other tokens by identity.

    Without the GIL: ``_owner`` is written by its owner, or by the one thread that has the token's
    clearing for itself (see `Lock._clear`); others read it by one load.

    A lock names the token that has it, so that an interrupt between any two steps leaves a state
    that the same token's release puts right, from any thread. ``_owner`` is None once the token
    is void: its block is over, or it was the parent's and this is a forked child. (The name is
    a private one since a `View` is a token too, and gives all public names to its value.)
    """

    __slots__ = ("_busy", "_inner", "_owner")

    _owner: object
    _inner: LockToken | None
    """The view of a block between `lock` and `unlock`, which this token covers."""
    _busy: bool
    """An operation of ours is in mid-step, or was when it was stopped; a block's body is not."""

    def _with_inner(self) -> list[LockToken]:
        """This one, and what it covers if that was ever set.

        Asked of the slot itself: a view without one would look among its value's attributes.
        """
        try:
            inner = _INNER.__get__(self)
        except AttributeError:
            inner = None
        return [self] if inner is None else [self, inner]


_INNER: Any = LockToken.__dict__["_inner"]


class ClosingToken(LockToken):
    """The token of who closes a lock, so that nobody is in it meanwhile."""

    __slots__ = ()


def token_by(owner: object, kind: type[LockToken] = LockToken) -> LockToken:
    """A new token of ``owner``, by an operation that is under way."""
    token = kind()
    token._owner = owner
    token._inner = None
    token._busy = True
    return token
