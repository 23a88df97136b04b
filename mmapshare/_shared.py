"""`Shared`: what a share and a shared dict have in common: a region, its lock, its life."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, Self, TypeVar

import attrs

from . import _carried as carried
from . import _handle
from ._arguments import timeout_s
from ._card import bundle
from ._closed import CLOSED, Closed
from ._lock import Closing
from ._owner import Claim, claim_by, current_owner, has_ended
from ._region import Region
from ._showing import Showing
from ._transaction import Transaction, is_under_way, stopped_in_exit
from ._view import View
from ._wait import Waiting
from .errors import DeadlockError, TransactionError

T = TypeVar("T")


class _OwnTimeout:
    def __repr__(self) -> str:
        return "<the share's own>"


_OWN_TIMEOUT: Final[Any] = _OwnTimeout()
_NOT_LOCKED: Final = (
    "unlock() without lock(): this owner has not locked the share; or a task or thread had locked "
    "it that has ended, and somebody has asked for the lock since"
)


@attrs.frozen
class ShareInfo:
    """What `Share.info` tells, as it was at one moment.

    Attributes:
        version: the newest committed version; 0 while the share is empty.
        used_bytes: what the committed value takes in the region.
        resident_bytes: memory that the region takes from the machine now.
        max_size: ceiling of one value, in bytes.
        kind: "memfd" or "file".
        holder_pid: process that holds the lock, None where it is free.
        held_s: seconds since it took the lock, None likewise.
        commits: how often a value was committed.
        contended_waits: how often somebody had to wait for another process.
        holders_found_dead: how often a process died holding the lock.
    """

    version: int
    used_bytes: int
    resident_bytes: int
    max_size: int
    kind: str
    holder_pid: int | None
    held_s: float | None
    commits: int
    contended_waits: int
    holders_found_dead: int

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return bundle("ShareInfo", None, self)


class Shared(Showing, Waiting, Generic[T]):
    """A region and how this process holds it. Its subclasses say what is in it:

    - `_open` fills a view in, `_committed` makes its value anew, `_store` commits it, and
      `_prepare` does all of that but the last step, which it returns (None if nothing was
      changed): all under the lock;
    - ``_region_class`` maps a segment, ``_view_class`` is what blocks hand out.
    """

    __slots__ = ("__weakref__", "_explicit", "_keeps", "_region", "_timeout", "_unset")

    _region_class: type[Region] = Region
    _view_class: type[View[Any]]
    _part_names: tuple[str, ...] = ("_region",)
    """The slots in which `_parts` are, or what stands in for them."""

    _region: Region | Closed  # Or a `_handle.Absent`, which turns into the first.

    def _bind(self, parts: dict[str, Any], timeout: float | None) -> None:
        self._take(parts)
        self._timeout = timeout
        self._explicit: Claim | None = None  # The claim between lock() and unlock().
        self._keeps: Any = ()  # Shares that the value names which this process stored last.
        self._unset = False  # A subclass's attributes are on their way, see `carried`.

    def _take(self, parts: dict[str, Any]) -> None:
        for name, part in parts.items():
            setattr(self, name, part)

    def _parts(self, region: Region) -> dict[str, Any]:
        """What this process has of an open region, by slot."""
        return {"_region": region}

    def _is_reached(self) -> bool:
        return _handle.is_reached(self)

    def _open(self, view: View[T]) -> None:
        raise NotImplementedError

    def _committed(self) -> Any:
        raise NotImplementedError

    def _store(self, view: View[T]) -> None:
        raise NotImplementedError

    def _prepare(self, view: View[T]) -> Callable[[], object] | None:
        raise NotImplementedError

    # --- How it stands ---------------------------------------------------------------------

    @property
    def version(self) -> int:
        """The newest committed version: 0 while empty, one more with each commit."""
        return self._region.version

    def info(self) -> ShareInfo:
        """How the share stands: sizes, holder, counters.

        >>> from mmapshare import Share
        >>> Share(1).info().holder_pid is None
        True
        """
        region, version = self._region, self._region.version
        pid, held_s = region.lock.holder() or (None, None)
        return ShareInfo(
            version=version,
            used_bytes=region.used_bytes(),
            resident_bytes=region.segment.resident_bytes(),
            max_size=region.identity.max_size,
            kind=region.segment.kind,
            holder_pid=pid,
            held_s=held_s,
            commits=version,
            contended_waits=region.lock.contended,
            holders_found_dead=region.lock.found_dead,
        )

    # --- Transactions ----------------------------------------------------------------------

    def locked(self, *, timeout: float | None = _OWN_TIMEOUT) -> Transaction[T]:
        """One transaction: ``with share.locked() as view``; see `View` for what it can do.

        One owner at a time over all processes, threads, tasks and greenlets. When the block ends
        the draft is committed whole; an exception drops it. A block that changed nothing
        commits nothing. ``timeout`` seconds (by default the share's) bound the wait for the
        lock: LockTimeout then. A nested block of the same owner joins the outer one; if it
        fails, the outer one cannot commit any more, and if the outer one fails, its changes are
        dropped too: those of a signal handler's block as well that interrupts one. Neither a
        killed nor an interrupted process leaves the lock taken, nor half a change.

        Generators and callbacks that interleave in one thread are one owner. Their blocks join,
        and a TransactionError says so where they end in another order than nested ones do: leave
        a block before you yield. A child, a thread or a pool that wants the lock cannot be waited
        for inside of the block: leave it before you join them.

        >>> from mmapshare import Share
        >>> share = Share([])
        >>> with share.locked(timeout=5) as view:
        ...     view.append(1)
        >>> share.get()
        [1]
        """
        return Transaction(self, self._timeout if timeout is _OWN_TIMEOUT else timeout_s(timeout))

    def lock(self, timeout: float | None = _OWN_TIMEOUT) -> None:
        """Take the lock until `unlock`, by the same owner; prefer `locked`, which cannot forget.

        Between the two, `set` and `update` of this owner commit at once, each for itself. Taking
        a lock that one has raises DeadlockError.

        The owner is the thread, or the task or greenlet that runs in it, and one that has ended
        owns nothing, since it could never let go: any thread or task of this process may `unlock`
        what it had locked, and whoever asks for the lock next gets it, with a RuntimeWarning. So
        in a notebook whose kernel runs each cell as a task of its own (ipykernel 7), keep `lock`
        and `unlock` in one cell; between two cells the lock holds others off only until somebody
        in this process asks for it.

        >>> from mmapshare import Share
        >>> share = Share(1)
        >>> share.lock(); share.set(share.get() + 1); share.unlock()
        2
        """
        region = self._region
        timeout = self._timeout if timeout is _OWN_TIMEOUT else timeout_s(timeout)
        claim = claim_by(current_owner())
        try:
            while not region.lock.acquire(claim, timeout):
                if self._own_claim() is not None:
                    raise DeadlockError(
                        "this owner has the lock already; leave the block or unlock() first"
                    )
            self._explicit = claim
        except BaseException:
            region.lock.abandon(claim)
            raise

    def unlock(self) -> None:
        """Give back what `lock` took; TransactionError where this owner has not taken it.

        Nor one that has ended: its lock is given back by anybody, see `lock`.

        >>> from mmapshare import Share
        >>> share = Share(1)
        >>> share.lock(timeout=1)
        >>> share.unlock()
        """
        region = self._region
        claim = region.lock.claim
        if claim is None or claim is not self._explicit:
            raise TransactionError(_NOT_LOCKED)
        ended = has_ended(claim._owner)
        if not ended and claim._owner != current_owner():
            raise TransactionError(_NOT_LOCKED)
        if not ended and self._block(claim) is not None:
            raise TransactionError("unlock() inside a locked() block; leave the block first")
        try:
            self._explicit = None
            if ended:
                region.lock.abandon(claim)  # Others may be just about to clear it.
            else:
                region.lock.release()
        except BaseException:
            region.lock.abandon(claim)
            raise

    def _block(self, held: Claim) -> View[T] | None:
        """The view of the block that runs under the caller's own claim; None between blocks."""
        view = held._inner if held is self._explicit else held
        return view if isinstance(view, View) and view._owner is not None else None

    def _own_claim(self) -> Claim | None:
        """The caller's own claim, which has the lock; None where it is worth asking again.

        An abandoned one is cleared. What interrupts can leave behind is the claim of a `set`
        that is not running any more, or that of a block whose `__exit__` was stopped at its
        very first step and stands in the traceback that is being handled. DeadlockError where
        the claim belongs to an operation that this very call interrupts.
        """
        lock = self._region.lock
        held = lock.claim
        if held is None or held._owner != current_owner():
            return None
        if is_under_way(held):
            raise DeadlockError(
                "a signal handler, a finaliser or a pickling hook used the share in the middle of "
                "this thread's own transaction on it; let it leave a note, to be acted upon later"
            )
        if held is self._explicit or (isinstance(held, View) and not stopped_in_exit(held)):
            return held
        lock.abandon(held)
        held._owner = None
        return None

    # --- Life ------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the region in this process; its memory goes with the last process.

        Every later use raises ClosedError. Closing twice is harmless; closing inside one's own
        block is a TransactionError. A share that is simply dropped closes by itself.

        >>> from mmapshare import Share
        >>> share = Share(1)
        >>> share.close()
        >>> share.closed
        True
        """
        if self.closed:
            return
        region = self._region
        if isinstance(region, _handle.Absent):
            _handle.forget(self)
            if not _handle.put(self, region, dict.fromkeys(self._part_names, CLOSED)):
                self.close()  # Another thread has reached it just now.
            return
        lock = region.lock
        claim = Closing(current_owner())
        try:
            lock.clear_ended()
            if lock.keep_out(claim) and self._region is region:
                parts = [getattr(self, name) for name in self._part_names]
                _handle.forget(self)
                self._take(dict.fromkeys(self._part_names, CLOSED))
                self._keeps = ()
                for part in parts:
                    part.close()
        finally:
            lock.abandon(claim)

    @property
    def closed(self) -> bool:
        """Whether `close` was called in this process."""
        return self._region is CLOSED

    # --- Pickling: a handle, and what a subclass has added -----------------------------------

    def __getstate__(self) -> Any:
        """What a subclass has added, as pickle asks for it; None where that is nothing."""
        return carried.state_of(self)

    def __reduce__(self) -> tuple[Any, ...]:
        handle, state = _handle.of(self), self.__getstate__()
        args, kwargs = carried.arguments_of(self)
        made = (type(self), handle, self._timeout, state is not None, args, kwargs)
        if state is None:
            return _open_shared, made
        return _open_shared, made, state, None, None, carried.restore

    def __copy__(self) -> Self:
        """Itself: a process has one share for a region."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _open_shared(
    cls: type[Shared[Any]],
    handle: _handle.Handle,
    timeout: float | None,
    has_state: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    def make(handle: _handle.Handle) -> Shared[Any]:
        shared = cls.__new__(cls, *args, **kwargs)
        parts = {name: _handle.Absent(shared, name, handle) for name in cls._part_names}
        shared._bind(parts, timeout)
        shared._unset = has_state
        return shared

    return _handle.resolve(handle, make)
