"""`Shared`: what a share and a shared dict have in common: a store, and its life."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

import attrs

from .. import _cores
from .._arguments import timeout_s
from .._closed import CLOSED
from .._display import Showing, bundle
from .._lock import ClosingToken, LockToken, current_owner, token_by
from .._transaction import Together, Transaction, own
from . import carried, registry
from .wait import Waiting

if TYPE_CHECKING:
    from .._transaction import View

T = TypeVar("T")


class _OwnTimeout:
    def __repr__(self) -> str:
        return "<the share's own>"


_OWN_TIMEOUT: Final[Any] = _OwnTimeout()


@attrs.frozen
class ShareInfo:
    """What `Share.info` tells, as it was at one moment.

    Attributes:
        version: the newest committed version; 0 while the share is empty.
        used_bytes: what the committed value takes in the region.
        resident_bytes: memory that the region takes from the machine now.
        max_size: ceiling of one value, in bytes.
        kind: "memfd" or "file"; "name", "path" or "redis" for what was opened by such.
        held_bytes: what ``get(copy=False)`` and the like hold, in all processes together.
        holder_pid: process that holds the lock, None where it is free.
        held_s: seconds since it took the lock, None likewise.
        commits: how often a value was committed.
        contended_waits: how often somebody had to wait for another process.
        holders_found_dead: how often a process died holding the lock.
        core: what does the work in this process: "c", the compiled core, or "python".
    """

    version: int
    used_bytes: int
    resident_bytes: int
    max_size: int
    kind: str
    held_bytes: int
    holder_pid: int | None
    held_s: float | None
    commits: int
    contended_waits: int
    holders_found_dead: int
    core: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return bundle("ShareInfo", None, self)


class Shared(Showing, Waiting, Generic[T]):
    """A store and how this process holds it. Its subclasses say what is in it, and:

    - ``_over_memory`` is its store's class where it lies in memory, and what any is given besides;
    - ``_view_class`` is what blocks hand out, which knows how a draft becomes changes;
    - ``_trust`` is what this process knows of the values' pickles (see `_codec.sameness`).
    """

    __slots__ = ("__weakref__", "_explicit", "_store", "_timeout", "_trust", "_unset")

    _view_class: type[View[Any]]
    _over_memory: tuple[Any, ...]
    _content: str
    """What stores of it say that they hold."""
    _store: Any  # A store, `CLOSED`, or a `_shared.registry.Absent`, which turns into the first.
    _explicit: LockToken | None
    """The token between lock() and unlock()."""

    @classmethod
    def _open_store(cls, found: Any) -> Any:
        return found.open_store(*cls._over_memory)

    @classmethod
    def _new_store(cls, new: Any, max_size: int) -> Any:
        store, *more = cls._over_memory
        return new(store, max_size, *more)

    def _bind(self, store: Any, timeout: float | None) -> None:
        self._store = store
        self._timeout = timeout
        self._explicit = None
        self._unset = False  # A subclass's attributes are on their way, see `carried`.

    def _is_reached(self) -> bool:
        return registry.is_reached(self)

    # --- How it stands ---------------------------------------------------------------------

    @property
    def version(self) -> int:
        """The newest committed version: 0 while empty, one more with each commit."""
        version: int = self._store.version
        return version

    @property
    def address(self) -> str | None:
        """The name that it was opened by, for `Share.open`; None for one without a name."""
        address: str | None = self._store.address
        return address

    def unlink(self) -> None:
        """Take the share's name away: a process that opens it later makes a new share.

        Processes that have this share open go on with it, and it ends with the last of them.

        Raises:
            ShareNotFoundError: it is unlinked already, or its file was removed in another way.
            OpenError: it has no name.

        Safety: of several threads or processes that unlink it at once, one succeeds. A process
        that is killed in the middle leaves the name, or takes it away.

        >>> from mmapshare import Share
        >>> share = Share.open("doctest-unlinked", 1)
        >>> share.unlink()
        >>> share.get()
        1
        """
        self._store.unlink()

    def info(self) -> ShareInfo:
        """How the share stands: sizes in bytes, holder, counters.

        Returns:
            A `ShareInfo`. Its figures are of about one moment; none of them waits for a lock.

        >>> from mmapshare import Share
        >>> Share(1).info().holder_pid is None
        True
        """
        stats, lock = self._store.stats(), self._store.lock
        pid, held_s = lock.holder() or (None, None)
        return ShareInfo(
            **stats._asdict(),
            holder_pid=pid,
            held_s=held_s,
            commits=stats.version,
            contended_waits=lock.contended,
            holders_found_dead=lock.found_dead,
            core=_cores.used,
        )

    # --- Transactions ----------------------------------------------------------------------

    def locked(self, *, timeout: float | None = _OWN_TIMEOUT) -> Transaction[T]:
        """One transaction: ``with share.locked() as view``; see `View` for what it can do.

        The block has a private draft of the value. The draft is committed whole when the block
        ends, and dropped when an exception leaves it. A block that changed nothing commits
        nothing. A nested block of the same owner joins the outer one: both commit together, or
        neither does.

        The draft of a value of 4 MiB or more, or of that under one key of a `SharedDict`, has its
        large buffers mapped, as ``get(copy=False)`` has; the commit writes the pages that were
        changed. What you keep of it stays as it is, and its memory taken, until you drop it.

        Args:
            timeout: seconds to wait for the lock; by default the share's, None for ever.

        Returns:
            A `Transaction`, for one ``with`` or ``async with``.

        Raises (on entry):
            LockTimeout: somebody else had the lock for too long; it names the holder.
            DeadlockError: the wait could never end.
            ClosedError: the share is closed, or something closed its descriptors.

        Raises (at the end):
            RegionFullError: the value exceeds ``max_size``, or the machine has no room.
            UnpicklableError: the value cannot be stored; it names the part.
            TransactionError: a joined block failed, or blocks ended out of order.

        Safety: one owner at a time over all processes, threads, tasks and greenlets. A process that
        is killed, or interrupted, leaves the lock free and no half of a change. A child that is
        forked inside the block has a dead view. Generators and callbacks that interleave in one
        thread are one owner: leave a block before you yield. Leave it also before you wait for a
        child, a thread or a pool that wants the lock.

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

        Between the two, `set` and `update` of this owner commit at once, each for itself.

        Args:
            timeout: seconds to wait; by default the share's, None for ever.

        Raises:
            LockTimeout: somebody else had the lock for too long.
            DeadlockError: this owner has the lock already, or the wait could never end.

        Safety: the owner is the thread, or the task or greenlet that runs in it. An owner that has
        ended owns nothing: any thread or task of this process may `unlock` what it had locked, and
        the next one that asks for the lock gets it, with a RuntimeWarning. So in a notebook whose
        kernel runs each cell as a task of its own (ipykernel 7), keep `lock` and `unlock` in one
        cell.

        >>> from mmapshare import Share
        >>> share = Share(1)
        >>> share.lock(); share.set(share.get() + 1); share.unlock()
        2
        """
        own.take(self, self._timeout if timeout is _OWN_TIMEOUT else timeout_s(timeout))

    def unlock(self) -> None:
        """Give back what `lock` took.

        Raises:
            TransactionError: this owner has not taken it (of one that has ended, anybody may).

        >>> from mmapshare import Share
        >>> share = Share(1)
        >>> share.lock(timeout=1)
        >>> share.unlock()
        """
        own.give_back(self)

    # --- Life ------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the region in this process; its memory goes with the last process.

        Every later use raises ClosedError. A second close is harmless. A share that is dropped
        closes by itself.

        Raises:
            TransactionError: a block of this process runs.

        Safety: any thread may close; other processes, and children, are not affected.

        >>> from mmapshare import Share
        >>> share = Share(1)
        >>> share.close()
        >>> share.closed
        True
        """
        if self.closed:
            return
        store = self._store
        if isinstance(store, registry.Absent):
            registry.forget(self)
            if not registry.put(self, store, CLOSED):
                self.close()  # Another thread has reached it just now.
            return
        lock = store.lock
        token = token_by(current_owner(), ClosingToken)
        try:
            lock.clear_ended()
            if lock.acquire_to_close(token) and self._store is store:
                registry.forget(self)
                self._store = CLOSED
                store.close()
        finally:
            lock.abandon(token)

    @property
    def closed(self) -> bool:
        """Whether `close` was called in this process."""
        return self._store is CLOSED

    # --- Pickling: a handle, and what a subclass has added -----------------------------------

    def __getstate__(self) -> Any:
        """What a subclass has added, as pickle asks for it; None where that is nothing."""
        return carried.state_of(self)

    def __reduce__(self) -> tuple[Any, ...]:
        handle, state = registry.of(self), self.__getstate__()
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
    handle: registry.Handle,
    timeout: float | None,
    has_state: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    def make(handle: registry.Handle) -> Shared[Any]:
        shared = cls.__new__(cls, *args, **kwargs)
        shared._bind(registry.Absent(shared, handle), timeout)
        shared._unset = has_state
        return shared

    return registry.resolve(handle, make)


def locked(*shares: Shared[Any], timeout: float | None = None) -> Together:
    """Several shares in one transaction: ``with locked(a, b) as (view_a, view_b):``.

    All locks are taken in one order, whatever the order of the arguments: two such blocks cannot
    wait for each other. At the end all drafts are encoded, and room is made for all, before the
    first is committed: an exception, a value that cannot be pickled or a full region changes none.

    Args:
        shares: of any kind, each once or several times.
        timeout: seconds for all the locks together; None for ever.

    Returns:
        A context manager, for one ``with`` or ``async with``, that gives the views in the order of
        the shares.

    Raises:
        As `Share.locked`.

    Safety: a process that is *killed between two of the commits* leaves each share whole, but may
    part them. Where that must not be, keep the values under the keys of one `SharedDict`, whose
    block commits as one. Shares of one database of one server are committed as one.

    >>> from mmapshare import Share, locked
    >>> a, b = Share(10), Share(0)
    >>> with locked(a, b) as (from_, to):
    ...     from_.value -= 3
    ...     to.value += 3
    >>> a.get(), b.get()
    (7, 3)
    """
    if not shares:
        raise TypeError("locked() takes one share or more")
    for share in shares:
        if not isinstance(share, Shared):
            raise TypeError(f"locked() takes shares, not {type(share).__name__}")
    return Together(shares, timeout_s(timeout))
