"""Every exception that mmapshare raises, grouped by the act that raises it.

All of them derive from `MmapShareError`, carry one message and a few named facts, and
survive pickle with both, since they come back from worker processes.

>>> import pickle
>>> from mmapshare import LockTimeout
>>> err = LockTimeout("held 1.0 s by pid 7", holder_pid=7, held_s=1.0)
>>> pickle.loads(pickle.dumps(err)).holder_pid
7
"""

from __future__ import annotations

from typing import TypeVar


class MmapShareError(Exception):
    """Base of all errors of this package: `except MmapShareError` catches every one."""

    def __init__(self, message: str = "", **facts: object) -> None:
        super().__init__(message)
        self.__dict__.update(facts)


Error = TypeVar("Error", "UnpicklableError", "UnloadableError")


# --- Locking ---------------------------------------------------------------------------


class LockTimeout(MmapShareError, TimeoutError):  # noqa: N818
    """The lock was not free within the timeout.

    Attributes:
        holder_pid: process that holds the lock, None where it could not be told.
        held_s: seconds since it took the lock, None likewise.
    """

    holder_pid: int | None
    held_s: float | None


class DeadlockError(MmapShareError):
    """Waiting for this lock could never end.

    Either the caller's own thread has it, and would wait for itself; tasks of one event loop wait
    for one another with ``async with share.locked()``. Or its holder waits, directly or through
    others, for a lock that the caller holds, be it with a timeout; then the message names the
    shares and processes. Nobody sees that of processes that share over a server: there one of them
    goes on when the other's lease is over, whose block ends in LeaseLostError.
    Take several shares together, with ``mmapshare.locked(a, b)``, or in one order everywhere.

    Attributes:
        waits_for, holds: names of the shares, as their ``repr`` shows them; only where processes
            or threads wait for one another.
        pids: the processes in the circle, the caller's first; likewise.
    """

    waits_for: str
    holds: str
    pids: tuple[int, ...]


# --- Transactions ----------------------------------------------------------------------


class TransactionError(MmapShareError):
    """An operation that the caller's own transaction forbids, such as `set` inside `locked()`."""


class ViewClosedError(MmapShareError):
    """A view was used outside of its block, its thread, its task or its process."""


class VersionConflict(MmapShareError):  # noqa: N818
    """`set(if_version=)` found another version.

    Attributes:
        expected: the version that was asked for.
        found: the version that the region has.
    """

    expected: int
    found: int


# --- Values ----------------------------------------------------------------------------


class EmptyShareError(MmapShareError):
    """The share has no value yet. None is a value like any other, an empty share has none."""


class UnpicklableError(MmapShareError):
    """The value, or a part of it, cannot be pickled; the stored value is as it was.

    Attributes:
        path: where the part at fault stands, such as ``value['model'].lock``.
    """

    path: str


class UnloadableError(MmapShareError):
    """A stored value cannot be loaded in this process: its class refuses, or is not to be had.

    Nothing is damaged: the value stays stored until somebody replaces it, and other processes may
    be able to load it. Of a `SharedDict` only the one key is affected.

    Attributes:
        path: where it stands: ``value``, or ``value['key']`` of a SharedDict.
        name: the class or function that refused, such as ``app.ApiError``; None where it could
            not be told.
        key: the key, of a SharedDict only.
    """

    path: str
    name: str | None
    key: object


# --- Regions ---------------------------------------------------------------------------


class RegionFullError(MmapShareError):
    """The value does not fit under the ceiling, or the machine has no memory for it.

    Attributes:
        needed_bytes: size of the value as it would be stored.
        max_size_bytes: the region's ceiling.
        held_bytes: what is held by ``copy=False``, where that leaves too little room; else 0.
        held_by: how many processes do, as far as can be seen.
    """

    needed_bytes: int
    max_size_bytes: int
    held_bytes: int = 0
    held_by: int = 0


class ClosedError(MmapShareError):
    """The share was closed in this process."""


class HandleError(MmapShareError):
    """A share cannot be opened here: no process that has it open is to be found, or no /proc.

    Loading a pickled share does not raise it; using what was loaded does, each time anew.
    """


# --- Names -----------------------------------------------------------------------------


class OpenError(MmapShareError):
    """A share cannot be opened, or made, under the name that was given."""


class ShareNotFoundError(OpenError):
    """There is no share of that name, or it is gone; the message lists names that are near."""


class ShareExistsError(OpenError):
    """There is a share of that name already, and a new one was wanted."""


class UnsafePathError(OpenError):
    """What has that name is no file that this user alone can have written; it was not opened."""


# --- Servers ---------------------------------------------------------------------------


class StoreUnreachableError(MmapShareError, ConnectionError):
    """The server of a share does not answer. Whether the last change arrived is unknown.

    Nothing is damaged: a change arrives whole or not at all, and the share works again when the
    server does.
    """


class StoreLostError(MmapShareError):
    """The server has another share by that name, or none, or an older state than was seen.

    It was unlinked, flushed or evicted; or the server came back from an older dump, or a replica
    that lagged took its place. Of an older state it is raised once: what is there now is whole.
    """


class StoreRefusedError(MmapShareError):
    """The server has refused a command: by its access rules, as a replica, or for lack of room."""


class LeaseLostError(TransactionError):
    """A block took longer than its lease, and somebody else has had the lock since.

    Nothing of it was committed.
    """


# --- Files -----------------------------------------------------------------------------


class DurabilityError(MmapShareError):
    """The disk refused a commit to a durable share: nobody sees it, nor is any other made there."""


class CorruptRegionError(MmapShareError):
    """Stored bytes fail their check: something other than mmapshare wrote into the region."""


def at_key(err: Error, key: object) -> Error:
    """The same error of a value, saying under which key of a `SharedDict` it came up."""
    path = f"value[{key!r}]" + err.path.removeprefix("value")
    facts = vars(err) | ({"key": key} if isinstance(err, UnloadableError) else {})
    return type(err)(str(err).replace(err.path, path, 1), **facts | {"path": path})
