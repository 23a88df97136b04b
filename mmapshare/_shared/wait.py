"""Waiting for a commit: `Waiting` is what `Share` and `SharedDict` have of it.

Waiters sleep on the version word itself, so that a commit between their look at it and their
sleep keeps them awake. Before they sleep they take a *lease*: a word that says until when
somebody may be asleep. Who lets go of the lock after a commit looks at the lease, which costs
what reading a word costs, and wakes the sleepers only where there is one:

1. The waiter stores the lease. 2. It goes to sleep, if the version is still the one it saw.
3. The writer stores the version. 4. It lets go of the lock, a system call and a fence.
5. It reads the lease. If that is too early to see 1, then 2 comes after 3 and nobody sleeps.

A writer that is killed between 3 and 5 wakes nobody. So nobody sleeps for longer than `NAP_S` at
a time, which also renews the lease: a lease that has run out belongs to nobody.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, Generic, TypeVar

from .._arguments import timeout_s
from .._late import importing
from .._lock import hub
from .._transaction import Versioned
from ..errors import DeadlockError, UnloadableError

T = TypeVar("T")

NAP_S: Final = 0.04
"""The longest sleep, and so the most by which a wake-up can be late."""
_LEASE_NS: Final = 1_000_000_000
_FIRST_PAUSE_S: Final = 100e-6
_LAST_PAUSE_S: Final = 5e-3


class Waiting(Versioned):
    """`wait` and `changes`, for what has a region and can tell a snapshot."""

    __slots__ = ()

    _store: Any
    version: Any
    _has_value_when_empty = False
    """Whether a predicate can be asked before anything was committed."""

    def _holds(self, predicate: Callable[[Any], object]) -> bool:
        """Whether a predicate holds for the current value."""
        raise NotImplementedError

    def wait(
        self,
        predicate: Callable[[Any], object] | None = None,
        *,
        since: int | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Wait for a commit of any process.

        Args:
            predicate: called with the current value after each commit, until it is true. It gets
                a fresh copy and runs without the lock. Of a `SharedDict` it gets a snapshot that
                reads only what it is asked for. An empty `Share` has nothing to be called with.
            since: a version; only one that differs counts. By default the version now, or, with a
                predicate, any version.
            timeout: seconds; None for ever.

        Returns:
            Whether it came about in time.

        Raises:
            DeadlockError: within one's own block, where nobody else could commit.
            UnloadableError: the predicate wants a value that does not load here.

        Safety: takes no lock, and costs a commit nothing while nobody waits. Any thread and process
        may wait at any time, and Ctrl-C ends the wait at once. In an event loop write ``await
        share.wait_async(...)``; other greenlets run on.

        >>> from mmapshare import Share
        >>> share = Share(3)
        >>> share.wait(lambda n: n > 2)
        True
        >>> share.wait(timeout=0)
        False
        """
        through = hub()
        pause_s = _FIRST_PAUSE_S
        for look in self._looks(predicate, since, timeout):
            if look.done:
                return True
            if through is None:
                look.sleep()
            else:
                through.sleep(min(pause_s, look.left_s))
                pause_s = min(1.5 * pause_s, _LAST_PAUSE_S)
        return False

    async def wait_async(
        self,
        predicate: Callable[[Any], object] | None = None,
        *,
        since: int | None = None,
        timeout: float | None = None,
    ) -> bool:
        """As `wait`, while the event loop (asyncio's or trio's) runs on.

        It looks again and again, at most 5 ms apart, since no event loop can sleep on a word of
        memory and no thread is started for it.

        >>> import asyncio
        >>> from mmapshare import Share
        >>> asyncio.run(Share(3).wait_async(lambda n: n > 2))
        True
        """
        with importing:
            from .._lock.loop import pause

        pause_s = _FIRST_PAUSE_S
        for look in self._looks(predicate, since, timeout):
            if look.done:
                return True
            await pause(min(pause_s, look.left_s))
            pause_s = min(1.5 * pause_s, _LAST_PAUSE_S)
        return False

    def changes(self, *, since: int | None = None, timeout: float | None = None) -> Changes[Any]:
        """Iterate over snapshots as they are committed, with ``for`` or ``async for``.

        No version comes twice, and none after a newer one. A slow reader misses some.

        Args:
            since: a version; begins with the first that differs; by default the version now.
            timeout: seconds after the last one until the iteration ends; None for ever.

        Returns:
            An iterator, and an asynchronous one, of snapshots.

        >>> from mmapshare import Share
        >>> share = Share("a")
        >>> for snapshot in share.changes(since=0, timeout=0):
        ...     snapshot.value
        'a'
        """
        return Changes(self, self.version if since is None else since, timeout_s(timeout))

    def _looks(
        self,
        predicate: Callable[[Any], object] | None,
        since: int | None,
        timeout: float | None,
    ) -> Iterator[_Look]:
        """Looks at the version, until the time is over; after one that is not done, sleep."""
        if since is not None and type(since) is not int:
            raise TypeError(f"since is a version, an int, not {since!r}")
        left_s = timeout_s(timeout)
        deadline = None if left_s is None else time.monotonic() + left_s
        if predicate is None and since is None:
            since = self.version
        asked: int | None = None
        while True:
            store = self._store
            version = store.version
            empty_counts = predicate is not None and self._has_value_when_empty
            done = version != since and (version > 0 or empty_counts)
            if done and predicate is not None:
                done = version != asked and self._holds(predicate)
                asked = version
            left_s = NAP_S
            if deadline is not None:
                left_s = min(left_s, deadline - time.monotonic())
            if not done and store.lock.holds_own():
                raise DeadlockError(
                    "waiting for a commit inside of one's own block: nobody else can commit; leave "
                    "the block first"
                )
            yield _Look(done, store, version, max(left_s, 0.0))
            if left_s <= 0:
                return


class _Look:
    """One look at a store's version."""

    __slots__ = ("_store", "_version", "done", "left_s")

    def __init__(self, done: bool, store: Any, version: int, left_s: float) -> None:
        self.done = done
        self._store = store
        self._version = version
        self.left_s = left_s
        """How long one may sleep before the next look."""

    def sleep(self) -> None:
        """Until the version is another, or for a while."""
        until_ns = time.monotonic_ns() + _LEASE_NS
        with contextlib.suppress(ValueError):  # Closed meanwhile, as the next look will say.
            if not self._store.sleep(self._version, until_ns, self.left_s):
                _poll(self._store, self._version, self.left_s)


def _poll(store: Any, version: int, left_s: float) -> None:
    end = time.monotonic() + left_s
    pause_s = _FIRST_PAUSE_S
    while store.version == version and time.monotonic() < end:
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LAST_PAUSE_S)


class Changes(Generic[T]):
    """An iterator over the snapshots of a share, for ``for`` and for ``async for``."""

    def __init__(self, shared: Waiting, since: int, timeout: float | None) -> None:
        self._shared = shared
        self._since = since
        self._timeout = timeout

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if not self._shared.wait(since=self._since, timeout=self._timeout):
            raise StopIteration
        return self._next()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if not await self._shared.wait_async(since=self._since, timeout=self._timeout):
            raise StopAsyncIteration
        return self._next()

    def _next(self) -> T:
        version = self._shared.version
        try:
            snapshot: Any = self._shared.snapshot()
        except UnloadableError:
            self._since = version  # The next one may be loadable.
            raise
        self._since = snapshot.version
        return snapshot  # type: ignore[no-any-return]
