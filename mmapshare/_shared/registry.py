"""Handles: how a share reaches a process that did not inherit it.

A pickled share says where its region can be found: the process and descriptor that it was first
opened from (or the temporary folder; of a share that was opened by a name or a path, that, as long
as it has it). Whoever loads it looks for the region

1. among those that this process has open,
2. through ``/proc/PID/fd/N``, if device, inode and region id agree,
3. at the descriptor that multiprocessing passed along, while it was starting this process,
4. in all other processes that may be looked into (see `_proc`).

The process named is always the one that made the region, so that a share that is stored inside
another one keeps its bytes whoever stores it again. Once that has ended, the sender is named too
where the handle goes to somebody and is not stored.

Loading a handle raises nothing: pools and queues do it in threads of their own, which would die
of it. Where the region cannot be opened the share is *absent*, and each use tries again, which
raises what is wrong (see `Absent`). What was opened is mapped from a description of its own; the
lock opens another (see `_lock.lock`).
"""

from __future__ import annotations

import errno
import functools
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

import attrs

from .. import _proc
from .._codec import is_being_stored, note
from .._late import importing
from .._proc import LACKS, holders, in_worker, own_namespace, own_pid, start_of, why_not
from .._store import Segment
from ..errors import HandleError, MmapShareError

if TYPE_CHECKING:
    from .._store.named import ListedShare
    from .base import Shared

_HANDED_OUT_KEPT: Final = 64
_open_here: weakref.WeakValueDictionary[bytes, Shared[Any]] = weakref.WeakValueDictionary()
_handed_out: deque[Shared[Any]] = deque(maxlen=_HANDED_OUT_KEPT)
"""In a worker process: shares on their way back to the parent. A result's locals are gone before
the parent loads it, and with the last reference the region would be."""


_mutex = RLock()
"""Keeps threads apart that look at one of these and change it."""


@attrs.frozen(eq=False, repr=False)
class Place:
    """A descriptor of some process that a memfd can be opened through."""

    pid: int
    fd: int
    device: int
    inode: int
    started: int | None
    """When the process began: its number may come round."""
    namespace: int

    def open(self) -> int:
        """A new description of the memfd; OSError where it is not to be had here."""
        if not self.lives():  # What is not ours is not even opened: it may be a device.
            os.stat(self._path())
            raise FileNotFoundError(errno.ENOENT, "another file is in its place")
        fd = os.open(self._path(), os.O_RDWR | os.O_CLOEXEC)
        try:
            if not self._is(os.fstat(fd)):
                raise FileNotFoundError(errno.ENOENT, "another file is in its place")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def lives(self) -> bool:
        """Whether the memfd can still be found here."""
        try:
            return self._is(os.stat(self._path()))
        except OSError:
            return False

    def _path(self) -> str:
        return f"{_proc.PROC}/{self.pid}/fd/{self.fd}"

    def _is(self, found: os.stat_result) -> bool:
        return (found.st_dev, found.st_ino) == (self.device, self.inode)


@attrs.frozen(eq=False, repr=False)
class Handle:
    """What a pickled share consists of; one of ``place``, ``folder`` and ``address`` is set.

    ``place`` is the maker's, always; ``near`` is the sender's, where the maker is gone.
    """

    region_id: bytes
    place: Place | None
    folder: str | None
    near: Place | None = None
    passed: Any = None
    address: Any = None
    """Where it has a name: that is all there is to say."""


_places: weakref.WeakKeyDictionary[object, Place] = weakref.WeakKeyDictionary()


class Absent:
    """Stands where a share's store will be: each use tries to reach that.

    HandleError, or whatever it is that keeps the region from being opened, where it cannot.
    """

    __slots__ = ("_share", "found", "handle")

    def __init__(self, share: Shared[Any], handle: Handle) -> None:
        self._share = weakref.ref(share)
        self.handle = handle
        self.found: dict[None, Any] = {}
        """What the first thread to reach it has found, which counts for all."""

    def __getattr__(self, name: str) -> Any:
        share = self._share()
        assert share is not None  # It is in use.
        reach(share)
        return getattr(share._store, name)


def reach(share: Shared[Any], passed_fd: int = -1) -> None:
    """Open the region of a share that is absent; else nothing. Raises what keeps it from that."""
    absent = share._store
    if isinstance(absent, Absent):
        handle = absent.handle
        opened = _open(handle, passed_fd, type(share)._open_store)
        store = absent.found.setdefault(None, opened)
        if store is not opened:
            opened.close()
        elif store.segment is not None and handle.folder is None:
            # A name may be taken away, and then the place is all.
            _places[store] = handle.place or _own_place(store.segment.process_lock.fd)
        put(share, absent, store)


def put(share: Shared[Any], instead_of: object, store: Any) -> bool:
    """Put this in the place of what is absent; False where another thread has done so."""
    with _mutex:
        stands = share._store is instead_of
        if stands:
            share._store = store
        return stands


def is_reached(share: Shared[Any], passed_fd: int = -1) -> bool:
    """Whether a share's region is open here, or can be opened now; raises nothing."""
    try:
        reach(share, passed_fd)
    except Exception as err:
        if not _is_told_later(err):
            raise
    return not isinstance(share._store, Absent)


def _is_told_later(err: Exception) -> bool:
    """Whether the next try will tell what is wrong; a signal handler's error is none of ours."""
    if isinstance(err, OSError) and not isinstance(err, MmapShareError):
        return err.errno is not None
    return isinstance(err, MmapShareError | MemoryError | ValueError | OverflowError)


def register(share: Shared[Any]) -> None:
    """Remember a share as the one of this process for its region."""
    store = share._store
    _open_here[store.region_id] = share
    segment = store.segment
    if segment is not None and segment.address is None:  # Else only once the name is gone.
        _places[store] = _own_place(segment.process_lock.fd)  # Opened just now.


def adopt(store: Any, make: Callable[[Any], Shared[Any]]) -> Shared[Any]:
    """The share of this process for that store's region: an earlier one, or what is made of it."""
    with _mutex:
        share = _open_here.get(store.region_id)
        if share is None:
            share = make(store)
            register(share)
        return share


def forget(share: Shared[Any]) -> None:
    """The share is about to be closed: a handle to it is opened anew."""
    store = share._store
    region_id = (store.handle if isinstance(store, Absent) else store).region_id
    _open_here.pop(region_id, None)
    with _mutex:
        kept = [other for other in _handed_out if other is not share]
        if len(kept) < len(_handed_out):
            _handed_out.clear()
            _handed_out.extend(kept)


def of(share: Shared[Any]) -> Handle:
    """The handle of a share, as it is pickled now."""
    store = share._store
    if isinstance(store, Absent):
        return store.handle
    region_id, segment, location = store.region_id, store.segment, store.location(_is_spawning())
    if location is not None:
        return Handle(region_id, None, None, address=location)
    if in_worker():
        with _mutex:
            _handed_out.append(share)
    stored = is_being_stored()
    if stored:
        note(share)
    if segment.folder is not None:
        return Handle(region_id, None, segment.folder)
    place = _places.get(store)
    if place is None:
        place = _places[store] = _own_place(segment.fd)
    near = None if stored or place.lives() else _own_place(segment.fd)
    return Handle(region_id, place, None, near, _passed_while_spawning(segment))


def open_shares() -> list[Shared[Any]]:
    """The shares that this process has open."""
    found = [known() for known in _open_here.valuerefs()]  # Listed in one step.
    return [share for share in found if share is not None and not isinstance(share._store, Absent)]


def list_shares(url: str | None = None) -> list[ListedShare]:
    """This user's named shares on this machine, or those on a server.

    Args:
        url: of a server's database, such as ``redis://host/0``; None: this machine's names.

    Returns:
        A list in the order of the names, each with ``name``, ``version``, ``holder_pid`` and what
        else is known. What stands beside them and is no share is left out.

    Raises:
        ValueError: it is no URL of a server.
        OpenError: it needs ``mmapshare[redis]``.
        StoreRefusedError: the server refuses: a password, its access rules.
        StoreUnreachableError: the server cannot be reached.

    Safety: takes no lock, opens none of them, and loads nothing.

    >>> from mmapshare import Share, list_shares
    >>> share = Share.open("doctest-listed", 1)
    >>> [one.version for one in list_shares() if one.name == "doctest-listed"]
    [1]
    >>> share.unlink()
    """
    with importing:
        from .._store.finding import listing

    return listing(url)


def resolve(handle: Handle, make: Callable[[Handle], Shared[Any]]) -> Shared[Any]:
    """The share that a handle names, for which ``make`` makes an absent one.

    A process has one share for a region: where it has one already, that is it. Without the GIL:
    the mutex keeps two threads from finding none both.
    """
    passed_fd = handle.passed.detach() if handle.passed is not None else -1
    try:
        share = _open_here.get(handle.region_id)
        if share is None:
            made = make(attrs.evolve(handle, passed=None))
            with _mutex:  # A weak dict's `setdefault` is a look and, later, a store.
                share = _open_here.get(handle.region_id)
                if share is None:
                    share = _open_here[handle.region_id] = made
        is_reached(share, passed_fd)
    finally:
        if passed_fd >= 0:
            os.close(passed_fd)
    return share


def _open(handle: Handle, passed_fd: int, open_store: Callable[[Segment], Any]) -> Any:
    """The store that a handle names; HandleError where nobody who has it can be reached."""
    place = handle.place
    if place is None:
        store = open_store(_open_folder(handle) if handle.folder else _open_name(handle))
        if store.region_id == handle.region_id:
            return store
        store.close()
        raise HandleError("this share cannot be opened here: another region is in its place")
    why: OSError | None = None
    for way in _ways(handle, place, passed_fd):
        try:
            fd = way()
        except OSError as err:
            if err.errno in LACKS:
                raise
            why = why or err.with_traceback(None)
            continue
        store = open_store(Segment.adopt(fd))
        if store.region_id == handle.region_id:
            return store
        store.close()
        why = why or FileNotFoundError(errno.ENOENT, "another region is in its place")
    assert why is not None
    reason = why_not(place.pid, place.started, place.namespace, why)
    raise HandleError(f"this share cannot be opened here: {reason}") from why


def _ways(handle: Handle, place: Place, passed_fd: int) -> Iterator[Callable[[], int]]:
    """What opens the memfd, or something that has been put in its place; OSError else."""
    yield place.open
    if handle.near is not None:
        yield handle.near.open
    if passed_fd >= 0:  # The sender's description: ours must be another.
        yield lambda: os.open(f"{_proc.PROC}/self/fd/{passed_fd}", os.O_RDWR | os.O_CLOEXEC)
    for pid, fd in holders(place.device, place.inode):
        yield attrs.evolve(place, pid=pid, fd=fd).open


def _open_name(handle: Handle) -> Any:
    with importing:
        from .._store.finding import find

    found = find(handle.address)
    if found is None:
        raise HandleError(
            f"this share cannot be opened here: the name {handle.address} is gone, since it was "
            "unlinked, or the machine started again. Open the name anew"
        )
    return found


def _open_folder(handle: Handle) -> Segment:
    folder = str(handle.folder)
    try:
        return Segment.open_folder(folder)
    except PermissionError as err:
        raise HandleError(
            f"this share cannot be opened here: this process's user ({os.geteuid()}) may not look "
            f"into {folder}, where it is. Load the share before giving up privileges, or inherit "
            "it by fork"
        ) from err


def _own_place(fd: int) -> Place:
    found = os.fstat(fd)
    pid, started, namespace = _own_process()
    return Place(pid, fd, found.st_dev, found.st_ino, started, namespace)


@functools.cache
def _own_process() -> tuple[int, int | None, int]:
    pid = own_pid()
    return pid, start_of(pid), own_namespace()


def _after_fork_in_child() -> None:
    global _mutex  # noqa: PLW0603
    _mutex = RLock()  # Another thread may have had the parent's.
    _own_process.cache_clear()


if hasattr(os, "register_at_fork"):  # only with fork
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _is_spawning() -> bool:
    """Whether what is pickled now is for a child of this process's own."""
    context = sys.modules.get("multiprocessing.context")
    return context is not None and context.get_spawning_popen() is not None


def _passed_while_spawning(segment: Segment) -> Any:
    if not _is_spawning():
        return None
    with importing:
        from multiprocessing.reduction import DupFd

    return DupFd(segment.fd_to_pass())
