"""Power cuts while names are given and taken away: what a disk has of a folder.

Of a file a disk has what it was told to keep, and of a folder the names that stood there when it
was told so; no more is to be relied upon.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from lean import Events
from support import inside

from mmapshare import Share, SharedDict


class Disk:
    """What a disk has of a folder: the names, and of each file what it was told to keep."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, int] = {}
        self._files: dict[int, bytes] = {}
        """By inode, which a name leads to."""

    def sync(self, fd: int) -> None:
        found = os.fstat(fd)
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            self._names = {entry.name: entry.inode() for entry in os.scandir(self._folder)}
        else:
            self._files[found.st_ino] = os.pread(fd, 16384, 0)

    def versions(self) -> dict[str, int]:
        """After a power cut: what there is, and its version; 0 where nothing of it is there."""
        return {name: self._version(self._files.get(ino, b"")) for name, ino in self._names.items()}

    def _version(self, raw: bytes) -> int:
        if len(raw) < inside.IDENTITY_BYTES:
            return 0
        identity = inside.Identity.unpack(raw[: inside.IDENTITY_BYTES])
        slot = inside.newest_sound(lambda begin, end: raw[begin:end], identity, True)
        return slot.version if slot else 0


def names(events: Events, planted: bool = False) -> int:
    """What is made, opened or unlinked durably is so when the call returns."""
    inside.put("is_memory", lambda fd: False)
    if planted:
        inside.put("folder_sync", lambda folder: None)
    for _ in events(range(1)):
        folder = Path(tempfile.mkdtemp())
        disk = Disk(folder)
        real = os.fdatasync, os.fsync
        os.fdatasync = os.fsync = disk.sync  # type: ignore[assignment]
        try:
            made = Share.open(folder / "made", 1, durable=True)
            assert disk.versions() == {"made": 1}
            others = SharedDict.open(folder / "others", {"a": 1})
            assert disk.versions() == {"made": 1}
            others.close()
            del others
            again = SharedDict.open(folder / "others", durable=True)
            assert disk.versions() == {"made": 1, "others": 1}
            made.unlink()
            assert disk.versions() == {"others": 1}
            made.close()
            again.close()
        finally:
            os.fdatasync, os.fsync = real
            shutil.rmtree(folder)
    return events.count
