"""`Transaction`: the with-block of `Share.locked`, from taking the lock to the commit.

It is left properly whatever happens. ``__enter__`` undoes what it began when anything is raised
in it. ``__exit__`` rolls back and releases when anything is raised in it, at its first instruction
too (see `_lock.interrupts`). Should even that be interrupted, the view does it as soon as the
transaction is gone; and where a traceback keeps the transaction alive, the same owner's next
block finds and clears it (`own_token`).
"""

from __future__ import annotations

import os
from collections.abc import Generator
from types import TracebackType
from typing import Any, Final, Generic, TypeVar
from weakref import ref

from .._lock import ENDED, HOLDER, current_owner, from_first_instruction, here, in_steps
from ..errors import TransactionError, ViewClosedError
from .hints import NotAView
from .nested import STILL_OPEN, Joined
from .own import EXITS, own_block, own_token
from .view import PLAIN_BASE, Missing, View

T = TypeVar("T")

# What a transaction is to the lock.
OWNER, JOINED, INSIDE = range(3)
"""OWNER: it took the lock. JOINED: it works on an outer block's view. INSIDE: it stands between
`lock` and `unlock`."""


class Transaction(NotAView, Generic[T]):
    """The with-block that `Share.locked` returns; use it once.

    ``async with`` waits for the lock while the event loop runs on, asyncio's or trio's; the task
    is the owner. A task that is cancelled while it waits leaves nothing taken; cancelled inside
    of the block it rolls back. The commit itself is made in one go.
    """

    __slots__ = ("__weakref__", "_pid", "_role", "_share", "_timeout", "_view")

    _pid: int
    """Where it joined; a forked child leaves the block in silence."""

    def __init__(self, share: Any, timeout: float | None) -> None:
        self._share = share
        self._timeout = timeout
        self._role = OWNER
        self._view: View[T] | None = None

    def __enter__(self) -> View[T]:
        if self._view is not None:
            raise TransactionError(_ONCE)
        try:
            share = self._share
            store = share._store
            view: View[T] = share._view_class()
            view._lock = lock = store.lock
            self._view = view
            view._owner = current_owner()
            view._busy = True
            view._guard = ref(self, view._abandoned)
            while not lock.acquire(view, self._timeout):
                outer = self._join(view)
                if outer is not None:
                    return outer
            view._open(share, store.current())
            view._busy = False
            return view
        except BaseException:
            self._give_up()
            raise

    async def __aenter__(self) -> View[T]:
        if self._view is not None:
            raise TransactionError(_ONCE)
        try:
            share = self._share
            store = share._store
            view: View[T] = share._view_class()
            view._lock = lock = store.lock
            self._view = view
            view._owner = current_owner()
            view._busy = True
            view._guard = ref(self, view._abandoned)
            while not await lock.acquire_async(view, self._timeout):
                outer = self._join(view)
                if outer is not None:
                    return outer
            view._open(share, store.current())
            view._busy = False
            return view
        except BaseException:
            self._give_up()
            raise

    def _join(self, view: View[T]) -> View[T] | None:
        """Go into what the owner has already, its running block or what `lock` took.

        The view to work on; None where it has nothing, and it is worth asking for the lock again.
        """
        share = self._share
        held = own_token(share)
        if held is None:
            return None
        outer = own_block(share, held)
        if outer is None:
            self._role, held._inner = INSIDE, view
            view._open(share, share._store.current())
            view._busy = False
            return view
        view._failed = None  # For `_give_up`, should it come between the next steps.
        if not isinstance(outer._failed, Joined):
            outer._failed = Joined(outer._failed)
        self._role, self._view, self._pid = JOINED, outer, os.getpid()
        outer._failed.open.append(self)
        return outer

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        traceback: TracebackType | None,
    ) -> Done:
        # No coroutine: the commit is made by the call itself, where no cancellation can come in.
        try:
            self.__exit__(kind, err, traceback)
        except BaseException:
            self._give_up()
            raise
        return DONE

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            view: Any = self._view
            if view._owner is not here.owner or view._failed is not None or self._role:
                self._leave_with_care(view, err)
                return
            view._busy = True
            lock = view._lock
            if kind is None:
                store = self._share._store
                changes = view._changes()
                if changes is not None:
                    if lock.words[HOLDER] != lock.pid:  # Another was in, or the word is damaged.
                        lock.check_held()
                    store.commit(changes)
                if view._named or store.kept:
                    store.keep(changes, view._named)
            lock.release()
            view._owner = view._guard = None
            if len(view._base) > PLAIN_BASE:
                view._drop()
        except BaseException as failure:
            if self._role == JOINED and self._view is not None:
                self._view._failed.failed = failure
            self._give_up()
            raise

    def _leave_with_care(self, view: View[T], err: BaseException | None) -> None:
        if self._role == JOINED:
            self._leave_joined(view._failed, err)
            return
        if err is None and may_commit(view):
            view._busy = True
            store = self._share._store
            changes = view._changes()
            if changes is not None:
                view._lock.check_held()
            commit(store, view, changes)
        self._give_up()
        if isinstance(view._failed, Joined):
            view._failed.over(err)

    def _leave_joined(self, joined: Joined, err: BaseException | None) -> None:
        if err is not None:
            joined.failed = err
            joined.leave(self)
            return
        self.check_outer()
        joined.end(self)

    def check_outer(self) -> None:
        """TransactionError where the block that this one joined is over."""
        assert self._view is not None
        if self._view._owner in _OVER and self._pid == os.getpid():
            raise TransactionError(
                "nothing was committed: the block that this one joined ended first. Leave blocks "
                "in the order in which they were entered, the last one first"
            )

    @property
    def own_view(self) -> View[T] | None:
        """The view, unless it is that of an outer block that this one joined."""
        return None if self._role == JOINED else self._view

    def _give_up(self) -> None:
        """Void the view and let go of the lock; harmless when done already."""
        view = self._view
        if view is None:
            return
        if self._role == JOINED:
            if isinstance(view._failed, Joined):
                view._failed.leave(self)
            return
        view._let_go()


class Done:
    """Something to await that is over already."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


DONE: Final = Done()


_OVER: Final = (None, ENDED)
_ONCE: Final = "a transaction is used once: call share.locked() again"

Transaction.__exit__ = from_first_instruction(Transaction.__exit__)  # type: ignore[method-assign]
Transaction.__aexit__ = from_first_instruction(Transaction.__aexit__)  # type: ignore[method-assign]
for _method in (Transaction.__enter__, Transaction.__aenter__, Transaction.__exit__,
                Transaction._join, Transaction._leave_with_care, Transaction._give_up):  # fmt: skip
    in_steps(_method)
EXITS.update({Transaction.__exit__.__code__, Transaction.__aexit__.__code__})


def commit(store: Any, view: View[Any], changes: Any) -> None:
    """Commit what a view has changed, and keep what it names; the hot path has it in place."""
    if changes is not None:
        store.commit(changes)
    keep(store, view, changes)


def keep(store: Any, view: View[Any], changes: Any) -> None:
    """Keep what a view names."""
    if view._named or store.kept:
        store.keep(changes, view._named)


def may_commit(view: View[Any]) -> bool:
    """Whether a block with something special about it commits; raises where that is an error."""
    owner, failed = view._owner, view._failed
    if owner is None:
        return False  # The block is a parent's, left by its forked child.
    if owner != current_owner():
        raise ViewClosedError(
            "nothing was committed: the thread, task or greenlet that entered this block ended "
            "without leaving it, and the lock was given on"
            if owner is ENDED
            else "nothing was committed: the block is left in another thread or task"
        )
    if isinstance(failed, Joined):
        if failed.open:
            raise TransactionError(STILL_OPEN)
        failed = failed.failed
    if isinstance(failed, Missing):
        return view._value is not failed
    if failed is not None:
        raise TransactionError(
            "nothing was committed: an inner block on this share failed "
            f"({type(failed).__name__}: {failed}). Let the exception pass, or call "
            "view.rollback() after catching it to go on from the committed value"
        ) from failed
    return True
