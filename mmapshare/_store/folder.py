"""A folder in which one user's processes find files by name, and what may stand there.

Everything is done on descriptors, never on one path twice:

1. The folder is opened, and its owner and mode are checked on the descriptor.
2. What stands under a name is looked at first, and opened only if it is a plain file, of this user,
   closed to others, with one name. If what was opened is another file than what was looked at, one
   begins again.
3. A new file has no name (``O_TMPFILE``) until all that belongs into it is there. Then it is linked
   to its name, which succeeds whole or finds the name taken. Where the system has no such files
   it gets a name of its own first, one that begins with a dot.
4. Names are taken away under a lock file, so that nobody takes away what another one has put there
   meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import Final, NoReturn, Self

from .. import _proc
from .._late import importing
from ..errors import OpenError, UnsafePathError

_LOCK: Final = ".lock"
_NEW: Final = ".mmapshare-new-"
_ATTEMPTS: Final = 1000
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS: Final = {
    stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device",
}  # fmt: skip
_OF_SEVERAL_HOSTS: Final = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "lustre", "gfs2", "ocfs2",
}  # fmt: skip
"""File systems on which a mapping is each host's own; and all that begin with ``fuse``."""


class Folder:
    """A folder by its descriptor; a context manager that closes it.

    ``shown`` tells a person which file is meant by an entry.
    """

    def __init__(self, path: str, fd: int, locks: str) -> None:
        self.path = path
        self._fd = fd
        self._locks = locks
        """The private folder that the lock file is in."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self._fd)

    @classmethod
    def private(cls, path: str, create: bool) -> Folder | None:
        """One that this user alone can look into; None where there is none, and none is made."""
        try:
            try:
                fd = os.open(path, _FOLDER)
            except FileNotFoundError:
                if not create:
                    return None
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, 0o700)
                fd = os.open(path, _FOLDER)
        except OSError as err:
            if err.errno in _proc.LACKS:
                raise
            if err.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise UnsafePathError(
                    f"{path}, where names are kept, is no folder: remove it"
                ) from err
            raise OpenError(
                f"{path}, where names are kept, cannot be made or used by this process's user "
                f"({os.geteuid()}): {err.strerror}. Mend that, or {_ANOTHER}"
            ) from err
        folder = cls(path, fd, path)
        try:
            found = os.fstat(fd)
            if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise UnsafePathError(
                    f"{path}, where names are kept, belongs to user {found.st_uid} and has mode "
                    f"{stat.S_IMODE(found.st_mode):o}: it must be this user's ({os.geteuid()}) and "
                    f"closed to others (chmod 700), or {_ANOTHER}"
                )
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def anybodys(cls, path: str, create: bool, locks: str) -> Folder | None:
        """One that is there already; None where it is not, and nothing is to be made in it."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as err:
            if err.errno == errno.ENOENT and not create:
                return None
            if err.errno in _proc.LACKS:
                raise
            raise OpenError(f"the folder {path} cannot be used: {err.strerror}") from err
        return cls(path, fd, locks)

    def open(self, entry: str, shown: str) -> int | None:
        """A descriptor of the file of that name; None where there is none.

        UnsafePathError for anything but a plain file that this user alone has, under one name.
        """
        for _ in range(_ATTEMPTS):
            found = self._look(entry)
            if found is None:
                return None
            _check(found, shown)
            if found.st_nlink > 1:  # It is about to get its name, or who gave it was killed.
                with self.locked():
                    self._clear(found)
                    found = self._look(entry)
                if found is not None and found.st_nlink > 1:
                    raise UnsafePathError(
                        f"{shown} has more than one name (hard links): remove the others"
                    )
                continue
            try:
                fd = os.open(entry, _OPEN, dir_fd=self._fd)
            except OSError as err:
                if err.errno not in {errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EISDIR}:
                    _refuse(shown, err)
                continue  # Another one is there by now.
            if _same(os.fstat(fd), found):
                return fd
            os.close(fd)
        raise UnsafePathError(f"{shown} is made and removed all the time: it cannot be opened")

    def leads_to(self, entry: str, *fds: int) -> bool:
        """Whether that name is that of the one file at these descriptors."""
        found = self._look(entry)
        return found is not None and all(_same(found, os.fstat(fd)) for fd in fds)

    def new(self, shown: str) -> NewFile:
        """A new, empty file that has no name yet."""
        if hasattr(os, "O_TMPFILE"):
            with contextlib.suppress(OSError):
                path = f"{_proc.PROC}/self/fd/{self._fd}"
                fd = os.open(path, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
                return NewFile(self, fd, None)
        entry = _NEW + os.urandom(8).hex()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return NewFile(self, os.open(entry, flags, 0o600, dir_fd=self._fd), entry)
        except OSError as err:
            _refuse(shown, err)

    def sync(self) -> None:
        """Have the disk know its names."""
        os.fsync(self._fd)

    def remove(self, entry: str, fd: int, first: Callable[[], object] = bool) -> bool:
        """Take a name away that is this file's; False where it is another's, or gone.

        ``first`` is done before.
        """
        with self.locked():
            stands = self.leads_to(entry, fd)
            if stands:
                first()
                os.unlink(entry, dir_fd=self._fd)
            return stands

    def entries(self) -> list[str]:
        """The names that there are, in order."""
        return sorted(entry for entry in os.listdir(self._fd) if entry[0] != ".")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else takes names away meanwhile."""
        with importing:
            from filelock import FileLock  # It takes longer to load than a share to open.

        if self._locks != self.path:
            private = Folder.private(self._locks, create=True)
            assert private is not None
            private.close()
        with FileLock(os.path.join(self._locks, _LOCK), mode=0o600):
            yield

    def _clear(self, found: os.stat_result) -> None:
        """Remove the first name of a file whose maker was killed; for who has `locked` it."""
        for entry in os.listdir(self._fd):
            if entry.startswith(_NEW):
                one = self._look(entry)
                if one is not None and _same(one, found):
                    os.unlink(entry, dir_fd=self._fd)

    def _look(self, entry: str) -> os.stat_result | None:
        try:
            return os.stat(entry, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as err:
            _refuse(entry[:80], err)


class NewFile:
    """A file on its way to its name; ``close`` ends that, and lets go of the descriptor."""

    def __init__(self, folder: Folder, fd: int, entry: str | None) -> None:
        self._folder = folder
        self.fd = fd
        self._entry = entry

    @property
    def path(self) -> str:
        """Where it is for now, if anywhere."""
        return os.path.join(self._folder.path, self._entry or "")

    def give_name(self, entry: str) -> bool:
        """Put it there; False where that name is taken."""
        at, folder_fd = self._entry, self._folder._fd
        try:
            if at is None:
                path = f"{_proc.PROC}/self/fd/{self.fd}"
                os.link(path, entry, dst_dir_fd=folder_fd, follow_symlinks=True)
            else:
                with self._folder.locked():
                    os.link(at, entry, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
                    self._forget()
        except FileExistsError:
            return False
        return True

    def close(self) -> None:
        self._forget()
        os.close(self.fd)

    def _forget(self) -> None:
        if self._entry is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._entry, dir_fd=self._folder._fd)
            self._entry = None


def _check(found: os.stat_result, shown: str) -> None:
    """UnsafePathError unless that is a plain file of this user's, closed to others."""
    if not stat.S_ISREG(found.st_mode):
        what = _KINDS.get(stat.S_IFMT(found.st_mode), "no plain file")
        raise UnsafePathError(f"{shown} is {what}, and no share's file: remove it")
    if found.st_uid != os.geteuid():
        raise UnsafePathError(
            f"{shown} belongs to user {found.st_uid}, and this process's user is {os.geteuid()}: "
            "who owns the file decides what runs when its value is loaded"
        )
    if found.st_mode & 0o077:
        raise UnsafePathError(
            f"{shown} is open to other users (mode {stat.S_IMODE(found.st_mode):o}): chmod 600 it, "
            "if you know that nobody has changed it"
        )


def _refuse(shown: str, err: OSError) -> NoReturn:
    """Say why a file cannot be opened or made; a lack of descriptors is no fault of the file's."""
    if err.errno in _proc.LACKS:
        raise err
    raise OpenError(
        f"{shown} cannot be opened or made here: {err.strerror}. (Who reads a share takes part in "
        "its lock, and so must be able to write to its file)"
    ) from err


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def is_memory(fd: int) -> bool:
    """Whether a file lies in memory, and no disk has it."""
    return _file_system(os.fstat(fd).st_dev) in {"tmpfs", "ramfs"}


def refuse_several_hosts(fd: int, shown: str) -> None:
    """UnsafePathError where a file lies on a file system of several hosts."""
    kind = _file_system(os.fstat(fd).st_dev)
    if kind in _OF_SEVERAL_HOSTS or kind.startswith("fuse"):
        raise UnsafePathError(
            f"{shown} lies on {kind}, where processes do not see one memory: use a folder of this "
            "machine's own"
        )


def _file_system(device: int) -> str:
    """The type of a device's file system; "" where that is not to be told."""
    number = b"%d:%d" % (os.major(device), os.minor(device))
    with (
        contextlib.suppress(OSError),
        open(f"{_proc.PROC}/self/mountinfo", "rb", buffering=0) as mounts,
    ):
        # Of its first mount; a lone "-" ends what there may be before the type.
        found = re.search(rb"^\d+ \d+ %s .*? - (\S+)" % number, mounts.read(), re.MULTILINE)
        if found is not None:
            return found[1].decode(errors="replace")
    return ""


_ANOTHER: Final = "let $MMAPSHARE_DIR name another"
