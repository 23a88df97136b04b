"""`Share`: a region that holds one Python object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import attrs

from . import _handle
from ._arguments import size_bytes, timeout_s
from ._codec import decode, encode
from ._memory import default_kind
from ._misuse import NotAContainer
from ._owner import Claim, claim_by, current_owner
from ._region import ClosedRegion, Commit, Region
from ._transaction import Transaction, is_under_way, stopped_in_exit
from ._view import MISSING, View
from .errors import (
    DeadlockError,
    EmptyShareError,
    TransactionError,
    VersionConflict,
)

T = TypeVar("T")
P = ParamSpec("P")


class _OwnTimeout:
    def __repr__(self) -> str:
        return "<the share's own>"


_OWN_TIMEOUT: Final[Any] = _OwnTimeout()


@attrs.frozen
class Snapshot(Generic[T]):
    """A value with the version that it was committed as."""

    value: T
    version: int


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


class Share(NotAContainer, Generic[T]):
    """One Python object that processes share.

    Args:
        initial: the first value; without it the share is empty. None is a value like any other.
        max_size: ceiling of one value as it is pickled: bytes, or a string such as "64M" or
            "1G" in binary units. Not a reservation: memory is taken as it is used, and the
            region takes up to about twice the value, since commits are written aside.
        timeout: seconds that `locked`, `lock`, `set` and `update` wait for the lock before they
            raise LockTimeout; None waits for as long as it takes.
        kind: "memfd" or "file"; by default what the platform offers.

    The value is anything that cloudpickle takes. What `get` and the views hand out are private
    copies; only a commit changes what others see. Any thread, task and process may use a share
    at any time. Children get it by fork, or as an argument under spawn and forkserver; a
    pickled share is a handle to the same region, good as long as a process that had it is.
    Loading a share's value runs the pickles that its co-owners stored. An open share takes three
    file descriptors.

    >>> share = Share({"hits": 0})
    >>> with share.locked() as view:
    ...     view["hits"] += 1
    >>> share.get()
    {'hits': 1}
    """

    __slots__ = ("__weakref__", "_explicit", "_region", "_timeout")

    def __init__(
        self,
        initial: T = MISSING,
        *,
        max_size: int | str = "1G",
        timeout: float | None = None,
        kind: str | None = None,
    ) -> None:
        if kind not in {None, "memfd", "file"}:
            raise ValueError(f'kind is "memfd" or "file", not {kind!r}')
        size, timeout = size_bytes(max_size), timeout_s(timeout)
        frames = None if initial is MISSING else encode(initial)
        self._bind(Region.create(kind or default_kind(), size), timeout)
        _handle.register(self)
        if frames is not None:
            self._region.publish(frames, self._region.extent())

    def _bind(self, region: Region, timeout: float | None) -> None:
        self._region: Region | ClosedRegion = region
        self._timeout = timeout
        self._explicit: Claim | None = None  # The claim between lock() and unlock().

    @classmethod
    def _attach(cls, region: Region, timeout: float | None) -> Share[T]:
        share = cls.__new__(cls)
        share._bind(region, timeout)
        return share

    # --- Reading: takes no lock, never waits for a holder ----------------------------------

    def get(self) -> T:
        """A fresh private copy of the committed value; EmptyShareError where there is none.

        Takes no lock and never waits for a holder; inside one's own block it is still the last
        commit.

        >>> Share([1, 2]).get()
        [1, 2]
        """
        value: T = decode(self._read()[1])
        return value

    def snapshot(self) -> Snapshot[T]:
        """The committed value together with its version, as `set(if_version=)` wants it.

        >>> Share("a").snapshot()
        Snapshot(value='a', version=1)
        """
        version, frames, *_ = self._read()
        return Snapshot(decode(frames), version)

    def _read(self) -> Commit:
        try:
            commit = self._region.read()
        except ValueError:  # Another thread closed it meanwhile; it says so now.
            commit = self._region.read()
        if commit[0]:
            return commit
        raise EmptyShareError("the share has no value yet; set() one, or pass it to Share()")

    @property
    def version(self) -> int:
        """The newest committed version: 0 while empty, one more with each commit."""
        return self._region.version

    def info(self) -> ShareInfo:
        """How the share stands: sizes, holder, counters.

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

    # --- Writing ---------------------------------------------------------------------------

    def set(self, value: T, *, if_version: int | None = None) -> int:
        """Replace the value; returns the new version.

        With ``if_version`` only where that is still the share's version (0: still empty), else
        VersionConflict. Waits for the lock as `locked` does; between `lock` and `unlock` of the
        same owner it commits at once. Inside one's own `locked` block it raises
        TransactionError: assign ``view.value`` there. RegionFullError and UnpicklableError leave
        the old value as it was.

        >>> share = Share(1)
        >>> share.set(2, if_version=1)
        2
        """
        if if_version is not None and type(if_version) is not int:
            raise TypeError(f"if_version is an int, as snapshot() gives it, not {if_version!r}")
        frames = encode(value)
        region = self._region
        lock = region.lock
        claim = claim_by(current_owner())
        try:
            while not lock.acquire(claim, self._timeout):
                held = self._own_claim()
                if held is not None:
                    return self._set_inside(held, frames, if_version)
            commit = region.extent()
            if if_version is not None and if_version != commit[0]:
                raise _conflict(if_version, commit[0])
            version = region.publish(frames, commit)
            lock.release()
            return version
        except BaseException:
            lock.abandon(claim)
            raise

    def _set_inside(self, claim: Claim, frames: Any, if_version: int | None) -> int:
        if self._block(claim) is not None:
            raise TransactionError(
                "set() inside one's own locked() block would be lost or overwritten by the "
                "block's commit; assign view.value instead"
            )
        commit = self._region.extent()
        if if_version is not None and if_version != commit[0]:
            raise _conflict(if_version, commit[0])
        return self._region.publish(frames, commit)

    def update(
        self, func: Callable[Concatenate[T, P], T | None], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call ``func(value, *args, **kwargs)`` in one transaction; returns the new value.

        What it returns *becomes the value*; None keeps the argument, with the changes made to
        it. To take something out (``pop``) use a `locked` block.
        An exception commits nothing and is raised unchanged.

        >>> share = Share(40)
        >>> share.update(lambda n, by: n + by, 2)
        42
        """
        if not callable(func):
            raise TypeError(
                f"update() calls a function with the value, {type(func).__name__} is none; "
                "to change items write  with share.locked() as view: ..."
            )
        with self.locked() as view:
            if view._value is MISSING:
                raise EmptyShareError("the share has no value yet; set() a first one")
            result = func(view.value, *args, **kwargs)
            if result is not None:
                view.value = result
            return view.value

    def locked(self, *, timeout: float | None = _OWN_TIMEOUT) -> Transaction[T]:
        """One transaction: ``with share.locked() as view``; see `View` for what it can do.

        One owner at a time over all processes, threads and asyncio tasks. When the block ends
        the draft is committed whole; an exception drops it. A block that changed nothing
        commits nothing. ``timeout`` seconds (by default the share's) bound the wait for the
        lock: LockTimeout then. A nested block of the same owner joins the outer one; if it
        fails, the outer one cannot commit any more. Neither a killed nor an interrupted process
        leaves the lock taken, nor half a change.

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

        >>> share = Share(1)
        >>> share.lock(timeout=1)
        >>> share.unlock()
        """
        region = self._region
        claim = region.lock.claim
        if claim is None or claim is not self._explicit or claim._owner != current_owner():
            raise TransactionError("unlock() without lock(): this owner has not locked the share")
        if self._block(claim) is not None:
            raise TransactionError("unlock() inside a locked() block; leave the block first")
        self._explicit = None
        try:
            region.lock.release()
        except BaseException:
            region.lock.abandon(claim)
            raise

    def _committed(self) -> Any:
        """The lock's holder's fresh copy of the committed value, MISSING while there is none."""
        version, frames, *_ = self._region.current()
        return decode(frames) if version else MISSING

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

        >>> share = Share(1)
        >>> share.close()
        >>> share.closed
        True
        """
        if self.closed:
            return
        region = self._region
        if region.lock.claim is not None:
            raise TransactionError("close() while a block of this process runs; leave it first")
        _handle.forget(self)
        self._region = ClosedRegion()
        region.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called in this process."""
        return isinstance(self._region, ClosedRegion)

    def __reduce__(self) -> tuple[Callable[..., Share[Any]], tuple[Any, ...]]:
        return _open_share, (_handle.of(self), self._timeout)

    def __repr__(self) -> str:
        if self.closed:
            return "<Share, closed>"
        region = self._region
        what = f"version {region.version}" if region.version else "empty"
        return f"<Share {region.identity.region_id.hex()[:8]}: {what}>"


def _open_share(handle: _handle.Handle, timeout: float | None) -> Share[Any]:
    return _handle.resolve(handle, lambda region: Share._attach(region, timeout))


def _conflict(expected: int, found: int) -> VersionConflict:
    return VersionConflict(
        f"expected version {expected}, found {found}; take a new snapshot() and try again",
        expected=expected,
        found=found,
    )
