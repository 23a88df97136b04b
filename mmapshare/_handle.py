"""Handles: how a share reaches a process that did not inherit it.

A pickled share says where its region can be found: the process and descriptor that it was first
opened from (or the temporary folder). Whoever loads it looks for the region

1. among those that this process has open,
2. through ``/proc/PID/fd/N``, if device, inode and region id agree,
3. at the descriptor that multiprocessing passed along, while it was starting this process.

The place named is the creator's for as long as that process lives, and otherwise the sender's,
so a share that is stored inside another one keeps its bytes whichever process stores it again.
What was opened is mapped from a description of its own; the lock opens another (see `_lock`).
"""

from __future__ import annotations

import errno
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable
from threading import get_ident
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import attrs

from ._late import importing
from ._memory import Segment
from .errors import HandleError

if TYPE_CHECKING:
    from ._shared import Shared

_HANDED_OUT_KEPT: Final = 64
_CODEC: Final = f"{__package__}._codec"
_LACKS: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""What says nothing about the one who had the share."""
_FRAMES_UP_TO_CODEC: Final = 8
"""``__reduce__``, and the Python methods of cloudpickle's pickler."""

_open_here: weakref.WeakValueDictionary[bytes, Shared[Any]] = weakref.WeakValueDictionary()
_handed_out: deque[Shared[Any]] = deque(maxlen=_HANDED_OUT_KEPT)
"""In a worker process: shares on their way back to the parent. A result's locals are gone before
the parent loads it, and with the last reference the region would be."""


named: dict[int, list[Shared[Any]]] = {}
"""Shares that are named in what a thread encodes, by its ident, until `take_named`."""


@attrs.frozen(eq=False, repr=False)
class Place:
    """A descriptor of some process that a memfd can be opened through."""

    pid: int
    fd: int
    device: int
    inode: int

    def open(self) -> int:
        """A new description of the memfd; OSError where it is not to be had here."""
        fd = os.open(f"/proc/{self.pid}/fd/{self.fd}", os.O_RDWR | os.O_CLOEXEC)
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
            return self._is(os.stat(f"/proc/{self.pid}/fd/{self.fd}"))
        except OSError:
            return False

    def _is(self, found: os.stat_result) -> bool:
        return (found.st_dev, found.st_ino) == (self.device, self.inode)


@attrs.frozen(eq=False, repr=False)
class Handle:
    """What a pickled share consists of; exactly one of ``place`` and ``folder`` is set."""

    region_id: bytes
    place: Place | None
    folder: str | None
    passed: Any = None


_places: weakref.WeakKeyDictionary[object, Place] = weakref.WeakKeyDictionary()


def register(share: Shared[Any]) -> None:
    """Remember a share as the one of this process for its region."""
    _open_here[share._region.identity.region_id] = share
    _places[share._region] = _own_place(share._region.segment)


def forget(share: Shared[Any]) -> None:
    """The share was closed: a handle to it is opened anew."""
    if not share.closed:
        _open_here.pop(share._region.identity.region_id, None)
        kept = [other for other in _handed_out if other is not share]
        if len(kept) < len(_handed_out):
            _handed_out.clear()
            _handed_out.extend(kept)


def of(share: Shared[Any]) -> Handle:
    """The handle of a share, as it is pickled now."""
    region = share._region
    segment = region.segment
    if in_worker():
        _handed_out.append(share)
    if _is_being_stored():
        named.setdefault(get_ident(), []).append(share)
    if segment.folder is not None:
        return Handle(region.identity.region_id, None, segment.folder)
    place = _places[region]
    if not place.lives():
        _places[region] = place = _own_place(segment)
    return Handle(region.identity.region_id, place, None, _passed_while_spawning(segment))


def open_shares() -> list[Shared[Any]]:
    """The shares that this process has open."""
    return list(_open_here.values())


def take_named() -> tuple[Shared[Any], ...]:
    """The shares that this thread's latest values named: they live on as long as these are stored.

    Else a share that only a stored value names would be gone before anybody could load it.
    """
    return tuple(named.pop(get_ident(), ()))


def _is_being_stored() -> bool:
    """Whether it is our own codec that pickles, and nobody who hands the share on."""
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_FRAMES_UP_TO_CODEC):
        if frame is None:
            return False
        if frame.f_globals.get("__name__") == _CODEC:  # Its file's name may be anything.
            return True
        frame = frame.f_back
    return False


def resolve(handle: Handle, attach: Callable[[Segment], Shared[Any]]) -> Shared[Any]:
    """The share that a handle names; HandleError where its region cannot be reached."""
    passed_fd = handle.passed.detach() if handle.passed is not None else -1
    try:
        share = _open_here.get(handle.region_id)
        if share is None:
            opened = _open(handle, passed_fd, attach)
            # Another thread may have loaded it meanwhile: a process has one share for a region.
            share = _open_here.setdefault(handle.region_id, opened)
            if share is not opened:
                opened._region.close()
    finally:
        if passed_fd >= 0:
            os.close(passed_fd)
    return share


def _open(handle: Handle, passed_fd: int, attach: Callable[[Segment], Shared[Any]]) -> Shared[Any]:
    if handle.folder is not None:
        share = attach(Segment.open_folder(handle.folder))
    else:
        assert handle.place is not None
        share = attach(Segment.adopt(_open_memfd(handle.place, passed_fd)))
        place = handle.place
        region = share._region
        _places[region] = place if place.lives() else _own_place(region.segment)
    if share._region.identity.region_id != handle.region_id:
        share._region.close()
        raise HandleError("this share cannot be opened here: another region is in its place")
    return share


def _open_memfd(place: Place, passed_fd: int) -> int:
    try:
        return place.open()
    except OSError as err:
        if passed_fd >= 0:
            return os.dup(passed_fd)
        if err.errno in _LACKS:
            raise
        raise HandleError(f"this share cannot be opened here: {_why_not(place, err)}") from err


def _why_not(place: Place, err: OSError) -> str:
    """Why a place could not be opened, and the way out."""
    if isinstance(err, PermissionError):
        return (
            f"this process's user ({os.geteuid()}) may not look into process {place.pid}, which "
            "has it. Load the share before giving up privileges, or inherit it by fork"
        )
    return (
        f"process {place.pid}, which had it, is gone or has closed it. Keep a reference to the "
        "share in the process that made it for as long as others may load it"
    )


def _own_place(segment: Segment) -> Place:
    fd = segment.fd
    found = os.fstat(fd)
    return Place(os.getpid(), fd, found.st_dev, found.st_ino)


def in_worker() -> bool:
    """Whether multiprocessing started this process, for another one's work."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _passed_while_spawning(segment: Segment) -> Any:
    context = sys.modules.get("multiprocessing.context")
    if context is None or context.get_spawning_popen() is None:
        return None
    with importing:
        from multiprocessing.reduction import DupFd

    return DupFd(segment.fd_to_pass())
