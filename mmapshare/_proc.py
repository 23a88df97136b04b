"""Processes: who has a memfd open, by a look through /proc, for when its maker is gone."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from typing import Final

PROC = "/proc"
"""Where the kernel shows its processes."""
LACKS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What says nothing about the one who had the share."""
_LINK: Final = "/memfd:mmapshare"
_ENDED: Final = b"ZX"


def holders(device: int, inode: int) -> Iterator[tuple[int, int]]:
    """Process and descriptor of each that has this memfd, among those that one may look into.

    Takes a system call for each descriptor of this user's processes.
    """
    for pid in _numbers(PROC):
        for fd in _numbers(f"{PROC}/{pid}/fd"):
            path = f"{PROC}/{pid}/fd/{fd}"
            try:
                # Its name first: asking for what lies on a dead network file system would hang.
                if not os.readlink(path).startswith(_LINK):
                    continue
                found = os.stat(path)
            except OSError:  # It was closed meanwhile.
                continue
            if (found.st_dev, found.st_ino) == (device, inode):
                yield pid, fd


def private_mappers(device: int, inode: int) -> int:
    """How many processes map a file privately, among those that one may look into."""
    wanted = f" {os.major(device):02x}:{os.minor(device):02x} {inode} ".encode()
    count = 0
    for pid in _numbers(PROC):
        try:
            with open(f"{PROC}/{pid}/maps", "rb") as maps:
                count += any(wanted in line and line.split(None, 2)[1][3:] == b"p" for line in maps)
        except OSError:  # It has ended, or is another user's.
            continue
    return count


def _numbers(folder: str) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder) if name.isdecimal()]
    except OSError as err:
        if err.errno in LACKS:
            raise
        return []  # Another user's, or gone.


def own_pid() -> int:
    """This process's number as /proc counts, which may be that of an outer pid namespace."""
    try:
        return int(os.readlink(f"{PROC}/self"))
    except OSError:
        return os.getpid()


def own_namespace() -> int:
    """The pid namespace of this process, 0 where it cannot be told."""
    try:
        return os.stat(f"{PROC}/self/ns/pid").st_ino
    except OSError:
        return 0


def start_of(pid: int) -> int | None:
    """When a process began, in the kernel's ticks; None where it has ended."""
    try:
        with open(f"{PROC}/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        return None if fields[0] in _ENDED else int(fields[19])
    except (OSError, IndexError):
        return None


def why_not(pid: int, started: int | None, namespace: int, err: OSError) -> str:
    """Why what a process had cannot be opened, and the way out."""
    if not os.path.isdir(f"{PROC}/self/fd"):
        return (
            f"this process sees no {PROC}, through which shares are found. Mount it, inherit the "
            'share by fork, or make it with kind="file"'
        )
    if 0 != namespace != own_namespace():
        return (
            f"process {pid}, which had it, is one of another pid namespace (a container's), and "
            "nobody who has it can be seen from here. Let both see the same processes (docker run "
            '--pid), inherit it by fork, or make it with kind="file" in a folder that both have'
        )
    if isinstance(err, PermissionError) and start_of(pid) == started:
        return (
            f"this process's user ({os.geteuid()}) may not look into process {pid}, which "
            "has it. Load the share before giving up privileges, or inherit it by fork"
        )
    return (
        f"process {pid}, which had it, is gone or has closed it, and no other that has it can be "
        "found. Keep a reference to the share in a process that lives for as long as others may "
        "load it"
    )


def called(pid: int) -> str:
    """A process with its command's name, where that can be told: "pid 4242 (python)"."""
    try:
        with open(f"{PROC}/{pid}/comm", encoding="utf-8", errors="replace") as name:
            return f"pid {pid} ({name.read().strip()})"
    except OSError:
        return f"pid {pid}"


def in_worker() -> bool:
    """Whether multiprocessing started this process, for another one's work."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None
