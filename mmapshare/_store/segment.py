"""Memory that processes share: one sparse file without a name, mapped once at its ceiling.

On Linux the file is a memfd: no name, nothing to leak, and a descriptor that can be handed on.
Elsewhere it is a private temporary file that the last process to leave removes. Either way
memory is taken page by page as it is first used, so a high ceiling costs nothing and growth
never remaps.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import functools
import mmap
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any, Final

import attrs

from .. import _proc
from .._closed import CLOSED, has_gil
from .._late import importing
from .._lock import (
    Descriptor,
    Marked,
    NamedLock,
    ProcessLock,
    StreamsTaken,
    duplicate_of,
    shut,
)
from ..errors import CorruptRegionError, HandleError, RegionFullError
from .format import FILE_FORMAT, FORMAT, UNLINKED

MEMFD: Final = "memfd"
FILE: Final = "file"
NAME, PATH = "name", "path"
_FILES: Final = ("region", "users")
_PAGE: Final = mmap.PAGESIZE
_GROWTH_SPARE: Final = 1 << 20
"""The most that is allocated ahead of what was asked for."""

_NOT_THE_SIZE: Final = {errno.EMFILE, errno.ENFILE, errno.EPERM, errno.EACCES, errno.EIO}
"""Why a region cannot be made though there is room."""

_ADD_SEALS: Final = 1033  # Linux numbers, which not every build of fcntl names.
_SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW = 1, 2, 4


def kind_of_memory(wanted: str | None) -> str:
    """The kind that is wanted, or what the platform offers: "memfd", or "file" where there is none.

    ValueError where that is no kind, HandleError where it cannot be had here.
    """
    if wanted not in {None, MEMFD, FILE}:
        raise ValueError(f'kind is "memfd" or "file", not {wanted!r}')
    has_proc = os.path.isdir(f"{_proc.PROC}/self/fd")
    if wanted == MEMFD and not has_proc:
        raise HandleError(
            f'kind="memfd" needs {_proc.PROC}, which this process does not see. Mount it, or '
            "leave kind out"
        )
    return wanted or (MEMFD if hasattr(os, "memfd_create") and has_proc else FILE)


def memory_of(wanted: str | None) -> Callable[[int], Segment]:
    """What makes memory of a size, without a name; see `kind_of_memory`."""
    return functools.partial(Segment.create, kind_of_memory(wanted))


@attrs.define(eq=False, repr=False)
class Segment:
    """A file of shared memory and this process's mapping of it.

    ``process_lock`` is this process's own description of the file, never mapped; all that needs a
    descriptor asks it. The mapping keeps the description that it was made from, but, from Python
    3.13 on, no descriptor. Children inherit the mapping; they stay valid there. Closing twice is
    harmless.
    """

    kind: str
    process_lock: ProcessLock
    size_bytes: int
    map: mmap.mmap
    folder: str | None
    _hidden: Marked | None
    """mmap's own duplicate of what it was made from."""
    address: Any = None
    """Where it is found by name; None for memory without one."""
    _passed: Descriptor | None = None
    _users: Descriptor | None = None
    _finalizer: weakref.finalize[..., Segment] | None = None
    _folder_finalizer: weakref.finalize[..., Segment] | None = None

    @classmethod
    def create(cls, kind: str, size_bytes: int) -> Segment:
        """Make new zeroed memory; OSError or RegionFullError where the machine refuses the size."""
        folder = None if kind == MEMFD else _new_folder()
        fd = -1
        try:
            if folder is None:
                fd = os.memfd_create("mmapshare", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            else:
                for name in _FILES:
                    shut(os.open(os.path.join(folder, name), os.O_CREAT | os.O_CLOEXEC, 0o600))
                fd = os.open(os.path.join(folder, "region"), os.O_RDWR | os.O_CLOEXEC)
            os.fchmod(fd, 0o600)
            os.ftruncate(fd, size_bytes)
            if folder is None:
                # A file that shrinks under a mapping turns loads into SIGBUS.
                fcntl.fcntl(fd, _ADD_SEALS, _SEAL_SHRINK | _SEAL_GROW | _SEAL_SEAL)
            return cls._map(kind, fd, size_bytes, folder)
        except BaseException as err:
            if folder is not None:
                _remove(folder)
            _refuse_size(err, size_bytes)
            raise
        finally:
            if fd >= 0:
                shut(fd)

    @classmethod
    def adopt(cls, fd: int) -> Segment:
        """Map a memfd that was received from another process; owns ``fd`` from then on."""
        try:
            size_bytes = os.fstat(fd).st_size
            # The description is the sender's: mapped, it would keep the sender's lock.
            own = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        finally:
            shut(fd)
        try:
            return cls._map(MEMFD, own, size_bytes, None)
        finally:
            shut(own)

    def open_store(self, kind: Any, *codec: Any) -> Any:
        """The store that is in it, of that kind."""
        return kind.open(self, *codec)

    @classmethod
    def open_folder(cls, folder: str) -> Segment:
        """Map a temporary file that another process made; HandleError where it is gone."""
        try:
            fd = os.open(os.path.join(folder, "region"), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as err:
            raise HandleError(f"the shared file in {folder} is gone: its users have ended") from err
        try:
            return cls._map(FILE, fd, os.fstat(fd).st_size, folder)
        finally:
            shut(fd)

    @classmethod
    def new_named(cls, fd: int, size_bytes: int, address: Any, path: str) -> Segment:
        """Give a new file its size, and map it; RegionFullError where the machine refuses that."""
        try:
            os.fchmod(fd, 0o600)
            os.ftruncate(fd, size_bytes)
            return cls.named(fd, size_bytes, address, path)
        except BaseException as err:
            _refuse_size(err, size_bytes)
            raise

    @classmethod
    def named(cls, fd: int, size_bytes: int, address: Any, path: str | None = None) -> Segment:
        """Map a file that has the name of that address, or is to get it and has that path now.

        `has_name` tells when that is certain.
        """
        try:
            lock = NamedLock(f"{_proc.PROC}/self/fd/{fd}")
        except FileNotFoundError:  # There is no /proc.
            lock = NamedLock(path or address.path)
        lock.size_bytes = size_bytes
        segment = cls._map_with(lock, NAME if address.is_name else PATH, fd, size_bytes, None)
        segment.address = address
        return segment

    def has_name(self) -> None:
        """It has the name of its address, which from now on must not vanish but by `unlink`."""
        assert isinstance(self.process_lock, NamedLock)
        mapping = self.map
        self.process_lock.named(self.address, lambda: mapping[8 * UNLINKED])

    @classmethod
    def _map(cls, kind: str, fd: int, size_bytes: int, folder: str | None) -> Segment:
        """Map the file at ``fd``, which the caller closes afterwards."""
        if not size_bytes:
            raise CorruptRegionError("the region's file is empty: something has cut it off")
        path = f"/proc/self/fd/{fd}" if folder is None else os.path.join(folder, "region")
        return cls._map_with(ProcessLock(path), kind, fd, size_bytes, folder)

    @classmethod
    def _map_with(
        cls, process_lock: ProcessLock, kind: str, fd: int, size_bytes: int, folder: str | None
    ) -> Segment:
        try:
            mapping, hidden = _mapping(fd, size_bytes)
            segment = cls(kind, process_lock, size_bytes, mapping, folder, hidden)
            segment._join_users()
        except BaseException:
            process_lock.close()
            raise
        # Not at exit: others' exit handlers may use the region after ours.
        segment._finalizer = weakref.finalize(segment, _unmap, mapping, hidden)
        segment._finalizer.atexit = False
        if hidden is not None:  # only without trackfd
            _with_hidden.add(segment)
        return segment

    @property
    def format(self) -> int:
        """The format of what is in it."""
        return FORMAT if self.address is None or self.address.is_name else FILE_FORMAT

    @property
    def fd(self) -> int:
        """A descriptor of the file, for the moment; ClosedError where others have closed it."""
        return self.process_lock.checked()

    def fd_to_pass(self) -> int:
        """A descriptor to hand on: of a description that is neither locked nor mapped elsewhere.

        It stays open as long as the segment, since who sends it does so later.
        """
        if self._hidden is not None and self._hidden.stands():
            return self._hidden.fd
        if self._passed is None or not self._passed.stands():
            self._passed = Descriptor(os.open(f"/proc/self/fd/{self.fd}", os.O_RDWR | os.O_CLOEXEC))
        return self._passed.fd

    def after_fork_in_child(self) -> None:
        """Count the forked child as a user of its own; OSError where it cannot be."""
        if self._folder_finalizer is not None:
            self._folder_finalizer.detach()
        if self._users is not None:
            self._users.close()
        self._join_users()

    def _join_users(self) -> None:
        # A shared flock on a description of this process's own says "in use" until it ends, however
        # that comes. 1. Parent forks. 2. Parent leaves before the child's hook has run and finds it
        # is alone. 3. The child finds the folder gone: its mapping stays good, its next lock fails.
        if self.folder is not None:
            path = os.path.join(self.folder, "users")
            users = Descriptor(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            try:
                fcntl.flock(users.fd, fcntl.LOCK_SH)
            except BaseException:
                users.close()
                raise
            self._users = users
            self._folder_finalizer = weakref.finalize(self, _leave, users, self.folder)

    def allocate(self, start: int, end: int, stored: int = 0) -> int:
        """Give bytes [start, end) memory, and a little ahead; returns up to where.

        A store into memory that cannot be had is a SIGBUS or a kill; asked for here it is a
        RegionFullError, and what is stored already, up to ``stored``, is as it was.
        """
        ahead = min(end + min((end - start) // 8, _GROWTH_SPARE), self.size_bytes)
        ahead = -(-ahead // _PAGE) * _PAGE
        if hasattr(os, "posix_fallocate"):
            fd = self.fd
            try:
                os.posix_fallocate(fd, start, ahead - start)
            except OSError as err:
                # Some file systems keep what they found room for; nothing is stored in this yet.
                self.give_back(max(start, stored), end - end % _PAGE)
                lacks = "disk has no room" if self.kind == PATH else "machine has no memory"
                raise RegionFullError(
                    f"the {lacks} for {end - start:,} more bytes ({err.strerror})",
                    needed_bytes=end - start,
                    max_size_bytes=self.size_bytes,
                ) from err
        return ahead

    def give_back(self, start: int, end: int) -> int:
        """Return the memory of the whole pages in [start, end), which read as zeros from then on.

        Returns where they begin. Where the system has no way to do that the memory stays.
        """
        start = -(-start // _PAGE) * _PAGE
        if end > start and hasattr(mmap, "MADV_REMOVE"):
            with contextlib.suppress(OSError):
                self.map.madvise(mmap.MADV_REMOVE, start, end - start)
        return start

    def resident_bytes(self) -> int:
        """Bytes of memory (or disk blocks, for a file) that the segment takes now."""
        try:
            return os.fstat(self.fd).st_blocks * 512
        except OSError:
            self.process_lock.checked()  # Another thread may have closed it just now.
            raise

    def close(self) -> None:
        """Unmap, and close the descriptors; a temporary file goes when its last user leaves."""
        self.process_lock.close()
        if self._passed is not None:
            self._passed.close()
        self.map = CLOSED
        for finalizer in (self._finalizer, self._folder_finalizer):
            if finalizer is not None:
                finalizer()


def _refuse_size(err: BaseException, size_bytes: int) -> None:
    """RegionFullError where that says that the machine does not take the size."""
    refused = isinstance(err, OSError | OverflowError | ValueError)
    if refused and getattr(err, "errno", None) not in _NOT_THE_SIZE:
        raise RegionFullError(
            f"this machine refuses to map {size_bytes:,} bytes ({err}); pass a smaller max_size",
            needed_bytes=size_bytes,
            max_size_bytes=size_bytes,
        ) from err


# --- Mapping: mmap keeps a duplicate of the descriptor, and closes whatever stands there then -----

if sys.version_info >= (3, 13):  # only with trackfd

    def _mapping(fd: int, size_bytes: int) -> tuple[mmap.mmap, Marked | None]:
        return mmap.mmap(fd, size_bytes, trackfd=False), None

else:  # only without trackfd

    def _mapping(fd: int, size_bytes: int) -> tuple[mmap.mmap, Marked | None]:
        with StreamsTaken() as likely:
            mapping = mmap.mmap(fd, size_bytes)
        return mapping, duplicate_of(fd, likely)


def _unmap(mapping: mmap.mmap, hidden: Marked | None) -> None:
    if hidden is not None:
        if not hidden.stands():
            _keep_for_good(mapping)
            return
        hidden.fd = -1  # The mapping closes it.
    # While a reader in another thread still copies, the mapping goes when that ends: with the last
    # reference to it. Without the GIL nobody could tell whether one does.
    if has_gil():  # only with the GIL
        with contextlib.suppress(BufferError):
            mapping.close()


def _keep_for_good(mapping: mmap.mmap) -> None:
    """Leave memory mapped until the process ends: unmapping it would close a stranger's file."""
    with importing:
        import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(mapping))


_with_hidden: weakref.WeakSet[Segment] = weakref.WeakSet()


@atexit.register
def _spare_strangers() -> None:
    # What is open at the end goes without a finalizer.
    for segment in list(_with_hidden):
        if segment._hidden is not None and not segment._hidden.stands():
            _keep_for_good(segment.map)


def _leave(users: Descriptor, folder: str) -> None:
    """The last to leave removes the folder."""
    if users.stands():
        with contextlib.suppress(BlockingIOError):  # Somebody still uses it.
            fcntl.flock(users.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
    users.close()


# Imported where they are needed, since they cost as much as all the rest.


def _new_folder() -> str:
    with importing:
        import tempfile

    return tempfile.mkdtemp(prefix="mmapshare-")


def _remove(folder: str) -> None:
    # By their names first, for which no descriptor needs to be free.
    with contextlib.suppress(OSError):
        for name in _FILES:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
        return
    with importing:
        import shutil

    shutil.rmtree(folder, ignore_errors=True)
