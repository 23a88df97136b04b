"""Where shares are found by processes that know nothing of one another: names and paths.

A name is one user's, on one machine, until it is unlinked or the machine starts again, unless the
system clears its folder before (logind's RemoveIPC; see `_lock.process_lock.NamedLock`). Its file
lies in ``$MMAPSHARE_DIR``, else in ``/dev/shm/mmapshare-UID``, or where there is no ``/dev/shm`` in
``/tmp``. (Not in ``$XDG_RUNTIME_DIR``, which cron jobs and services lack: they would not meet the
notebook.) A path leads to a file that is there until it is removed.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final

import attrs

from .folder import Folder

_MEMORY: Final = "/dev/shm"
SUFFIX: Final = ".mmapshare"
"""With what the file of a name ends."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,127}")


@attrs.frozen
class Address:
    """A file by its folder and the name that it has there; ``str`` is how a person calls it."""

    folder: str
    entry: str
    is_name: bool

    def __str__(self) -> str:
        return self.entry.removesuffix(SUFFIX) if self.is_name else self.path

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.entry)

    @property
    def is_in_memory(self) -> bool:
        """Whether it lies where names do by default: in the machine's shared memory."""
        return self.folder == _default_folder(_MEMORY)

    def open_folder(self, create: bool) -> Folder | None:
        """The folder; None where there is none, and none is to be made."""
        if self.is_name:
            return Folder.private(self.folder, create)
        return Folder.anybodys(self.folder, create, folder_of_names())


def address_of(where: object) -> Address:
    """The address of a name or a path; TypeError or ValueError where it cannot be one."""
    if isinstance(where, os.PathLike) or (isinstance(where, str) and os.sep in where):
        path: Any = os.fspath(where)
        if not isinstance(path, str):
            raise TypeError(f"a share's path is a str, not {type(path).__name__}")
        if "\0" in path or path.endswith(os.sep):
            raise ValueError(f"{path!r} is no path of a file")
        folder, entry = os.path.split(os.path.abspath(path))
        return Address(folder, entry, is_name=False)
    if not isinstance(where, str):
        raise TypeError(f"a share is opened by a name or a path, not by {type(where).__name__}")
    if not _NAME.fullmatch(where):
        raise ValueError(
            f"{where!r} is no name for a share: it has 1 to 128 letters, digits and . _ @ + -, and "
            "begins with a letter, a digit or _; for a file give a path with a slash, or a Path"
        )
    return Address(folder_of_names(), where + SUFFIX, is_name=True)


def folder_of_names() -> str:
    """Where the files of names are."""
    given = os.environ.get("MMAPSHARE_DIR")
    if given:
        return os.path.abspath(given)
    # Each process must find the same.
    return _default_folder(_MEMORY if os.path.isdir(_MEMORY) else "/tmp")


def _default_folder(base: str) -> str:
    return f"{base}/mmapshare-{os.geteuid()}"
