"""Several shares in one transaction, as `mmapshare.locked` makes it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, TypeAlias

from .._lock import from_first_instruction, in_steps
from ..errors import TransactionError
from .block import DONE, Done, Transaction, commit, keep, may_commit
from .nested import Joined
from .view import View

Made: TypeAlias = tuple[Any, View[Any], Any]
"""A store, a view on it, and what is to be committed; None for nothing."""


class Together:
    """The with-block that `locked` returns; use it once."""

    __slots__ = ("_entered", "_shares", "_timeout", "_views")

    def __init__(self, shares: tuple[Any, ...], timeout: float | None) -> None:
        self._shares = shares
        self._timeout = timeout
        self._entered: list[Transaction[Any]] = []
        self._views: dict[bytes, Any] = {}
        """By region id, in the order of which the locks are taken."""

    def _transactions(self) -> Iterator[Transaction[Any]]:
        """Those to be entered, one after the other; with them goes what is left of the time."""
        if self._views:
            raise TransactionError("a transaction is used once: call mmapshare.locked() again")
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        # One order for everybody, so that crossing blocks cannot wait for one another.
        by_id = {_id(share): share for share in self._shares}
        for region_id in sorted(by_id):
            # Without a limit each waits for as long as its share says.
            left = {} if deadline is None else {"timeout": max(0.0, deadline - time.monotonic())}
            transaction = by_id[region_id].locked(**left)
            self._entered.append(transaction)  # First: an interrupt finds it there.
            yield transaction

    def __enter__(self) -> tuple[Any, ...]:
        try:
            for transaction in self._transactions():
                self._views[_id(transaction._share)] = transaction.__enter__()
            return tuple(self._views[_id(share)] for share in self._shares)
        except BaseException as err:
            self._leave(err)
            raise

    async def __aenter__(self) -> tuple[Any, ...]:
        try:
            for transaction in self._transactions():
                self._views[_id(transaction._share)] = await transaction.__aenter__()
            return tuple(self._views[_id(share)] for share in self._shares)
        except BaseException as err:
            self._leave(err)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            own = [transaction.own_view for transaction in self._entered]
            if err is None:
                self._commit()
            self._leave(err)
            for view in own:
                if view is not None and isinstance(view._failed, Joined):
                    view._failed.over(err)
        except BaseException as failure:
            self._leave(failure)
            raise

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        traceback: TracebackType | None,
    ) -> Done:
        try:
            self.__exit__(kind, err, traceback)
        except BaseException as failure:
            self._leave(failure)
            raise
        return DONE

    def _commit(self) -> None:
        """Encode every draft and make room for it; then commit, server by server in one step."""
        made: list[Made] = []
        views = [transaction.own_view for transaction in self._entered]
        for transaction, view in zip(self._entered, views, strict=True):
            if view is None:
                transaction.check_outer()
            elif may_commit(view):
                view._busy = True
                store = transaction._share._store
                changes = view._changes()
                if changes is not None:
                    view._lock.check_held()
                    store.reserve(changes)
                made.append((store, view, changes))
        _commit_all(made)

    def _leave(self, err: BaseException | None) -> None:
        """Let go of all; a block that was joined hears of a failure."""
        # All that are one's own first: those that were joined may raise.
        for transaction in reversed(self._entered):
            transaction._give_up()
        while self._entered:
            transaction = self._entered.pop()
            if transaction._view is not None and transaction.own_view is None:
                transaction.__exit__(type(err) if err else None, err, None)


def _id(share: Any) -> bytes:
    region_id: bytes = share._store.region_id
    return region_id


def _commit_all(made: list[Made]) -> None:
    """All of them, even if an interrupt comes in between: doing one twice changes nothing.

    Not with ``while``: from CPython 3.12 on its jump back is outside of the ``try``.
    """
    groups: dict[Any, list[Made]] = {}
    for each in made:
        store, _, changes = each
        key = store.region_id if changes is None or store.server is None else store.server
        groups.setdefault(key, []).append(each)
    left = list(groups.values())
    try:
        for group in groups.values():
            _commit_group(group)
            del left[0]
    except BaseException:
        for group in left:
            with contextlib.suppress(Exception):  # The first error is on its way already.
                _commit_group(group)
        raise


def _commit_group(group: list[Made]) -> None:
    """Those that can be committed in one step."""
    if len(group) > 1:
        group[0][0].commit_together([(store, changes) for store, _, changes in group])
        for store, view, changes in group:
            keep(store, view, changes)
    else:
        commit(*group[0])


Together.__aexit__ = from_first_instruction(Together.__aexit__)  # type: ignore[method-assign]
Together.__exit__ = from_first_instruction(Together.__exit__)  # type: ignore[method-assign]


in_steps(Together._commit)
