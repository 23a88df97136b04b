"""Which shares there are: by name, in files, and in the hands of live processes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

import attrs

from .. import _proc
from .._lock import descriptor
from .._store import address, folder, outside
from ..errors import CorruptRegionError, OpenError, ShareNotFoundError
from . import servers
from .found import File, Found

_MEMFD: Final = "/memfd:mmapshare"
_PRIVATE: Final = re.compile(r"/mmapshare-[^/]*/(region|users)( \(deleted\))?$")
"""The files of a share of kind "file"."""
_ID: Final = re.compile(r"[0-9a-f]{4,32}")
_BLOCKED: Final = re.compile(r"^\d+: +->.* FLOCK .* (\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.M)


@attrs.frozen
class Others:
    """What is there and belongs to others, or may not be looked into.

    ``names``: why there are no names to be seen, if that is because something is wrong.
    """

    shares: int
    processes: int
    names: str | None = None


def everything() -> tuple[list[Found], Others]:
    """The named shares, and all that live processes have open."""
    found, others = live()
    try:
        for one in named():
            if one.file in found:
                one.users = found[one.file].users
            found[one.file] = one
    except OpenError as err:
        others = attrs.evolve(others, names=str(err))
    order = {"name": 0, "path": 1}
    return sorted(found.values(), key=lambda one: (order.get(one.kind, 2), one.where)), others


def shares_of(where: str) -> list[Found]:
    """Those of an address: of a folder or a server all its shares, else the one share.

    ShareNotFoundError where there is none.
    """
    if "://" in where:
        return list(servers.shares_of(where))
    if os.sep in where and os.path.isdir(where):
        files = sorted(os.scandir(where), key=lambda entry: entry.name)
        return [_by_path(entry.path) for entry in files if _is_share(entry)]
    return [one(where)]


def one(where: str) -> Found:
    """That of a name, a path, a URL, or of a region's id, of which the begin is enough."""
    if "://" in where:
        return servers.one(where)
    if os.sep in where:
        if not os.path.exists(where):
            raise ShareNotFoundError(f"there is no file {where}")
        return _by_path(where)
    try:
        found = _by_name(where)
    except ValueError as err:
        raise ShareNotFoundError(str(err)) from None
    if found is not None:
        return found
    if _ID.fullmatch(where):
        like = [each for each in live()[0].values() if _id_of(each).startswith(where)]
        if len(like) > 1:
            raise OpenError(f"{len(like)} shares begin with {where}: give more of the id")
        if like:
            return like[0]
    raise ShareNotFoundError(f"there is no share {where}; what there is, `mmapshare ls` lists")


def users_of(found: Found) -> list[int]:
    """This user's processes that have a share open; of a server's nobody knows."""
    if found.is_remote:
        return []
    opened = again(found)
    return opened.users if opened is not None else []


def again(found: Found) -> Found | None:
    """A share as live processes have it open now; None where none does."""
    return live()[0].get(found.file)


# --- By name and by path ---------------------------------------------------------------------


def named() -> Iterator[Found]:
    """This user's named shares; what its processes cannot open any more is left out."""
    names = folder.Folder.private(address.folder_of_names(), create=False)
    if names is None:
        return
    with names:
        entries = names.entries()
    for entry in entries:
        if entry.endswith(address.SUFFIX):
            found = _by_name(entry.removesuffix(address.SUFFIX))
            if found is not None:
                yield found


def _by_name(name: str) -> Found | None:
    place = address.address_of(name)
    try:
        stat = os.stat(place.path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    try:
        with outside.Outside.open(place.path) as region:
            if region.is_over(is_name=True):
                return None
    except CorruptRegionError:
        pass  # It has the name all the same, and is said to be damaged where it is looked at.
    return Found(name, "name", place.path, (stat.st_dev, stat.st_ino), has_name=True)


def _by_path(path: str) -> Found:
    stat = os.stat(path)
    return Found(path, "path", path, (stat.st_dev, stat.st_ino), has_name=True)


def _is_share(entry: os.DirEntry[str]) -> bool:
    if not entry.is_file(follow_symlinks=False):
        return False
    try:
        with outside.Outside.open(entry.path):
            return True
    except (OSError, CorruptRegionError):
        return False


def _id_of(found: Found) -> str:
    try:
        with outside.Outside.open(found.path) as region:
            return region.identity.region_id.hex()
    except (OSError, CorruptRegionError):  # Gone meanwhile, or damaged.
        return ""


# --- Of live processes -----------------------------------------------------------------------


def live() -> tuple[dict[File, Found], Others]:
    """The shares that processes have open, by their files; this user's own."""
    found: dict[File, Found] = {}
    strange: set[File] = set()
    closed = 0
    for pid in _numbers(_proc.PROC):
        if pid == os.getpid():  # It looks, and uses nothing.
            continue
        try:
            descriptors = list(_descriptors(pid))
        except PermissionError:
            closed += 1
            continue
        except OSError:  # It has ended.
            continue
        for path, target in descriptors:
            try:
                stat = os.stat(path)
            except OSError:
                continue
            file = stat.st_dev, stat.st_ino
            if stat.st_uid != os.geteuid():
                strange.add(file)
                continue
            one = found.get(file) or _opened(path, target, file)
            if one is not None:
                found[file] = one
                if pid not in one.users:
                    one.users.append(pid)
    return found, Others(len(strange), closed)


def _descriptors(pid: int) -> Iterator[tuple[str, str]]:
    """Each descriptor of a process's that is a share's, and where it leads to."""
    for fd in os.listdir(f"{_proc.PROC}/{pid}/fd"):
        path = f"{_proc.PROC}/{pid}/fd/{fd}"
        try:
            # Its name first: asking for what lies on a dead network file system would hang.
            target = os.readlink(path)
            if target.startswith(_MEMFD) or (target[0] == "/" and _is_marked(pid, fd)):
                yield path, target
        except OSError:  # It was closed meanwhile.
            continue


def _is_marked(pid: int, fd: str) -> bool:
    """Whether that is a descriptor of ours (see `_lock.descriptor`), without a look at its file."""
    with open(f"{_proc.PROC}/{pid}/fdinfo/{fd}", "rb") as info:
        head = info.readline().split()
    return head[0] == b"pos:" and descriptor.is_mark(int(head[1]))


def _opened(path: str, target: str, file: File) -> Found | None:
    private = _PRIVATE.search(target)
    if private is not None and private[1] == "users":
        return None
    try:
        with outside.Outside.open(path) as region:
            name = region.identity.region_id.hex()[:8]
    except (OSError, CorruptRegionError):  # As who looks at it is told.
        name = f"?{file[1]}"
    if target.startswith(_MEMFD):
        return Found(name, "memfd", path, file, has_name=False)
    if private is not None:
        return Found(name, "file", path, file, has_name=False)
    home = os.path.dirname(target)
    kind = "name" if home == address.folder_of_names() else "path"
    entry = _entry_of(home, file)
    if entry is None:  # Unlinked, or in a folder that is not to be seen from here.
        return Found(name, kind, path, file, has_name=False)
    whole = os.path.join(home, entry)
    where = entry.removesuffix(address.SUFFIX) if kind == "name" else whole
    return Found(where, kind, whole, file, has_name=True)


def _entry_of(home: str, file: File) -> str | None:
    """By what name a folder has a file, if it does.

    To the process that has made it, its descriptor leads to a file without a name.
    """
    try:
        with os.scandir(home) as entries:
            for entry in entries:
                if entry.inode() == file[1] and entry.stat(follow_symlinks=False).st_dev == file[0]:
                    return entry.name
    except OSError:
        pass
    return None


def _numbers(folder: str) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdecimal())
    except OSError:
        return []


def blocked() -> dict[File, list[int]] | None:
    """Which processes the system has asleep for a file's lock; None where it does not say."""
    try:
        with open(f"{_proc.PROC}/locks", encoding="utf-8") as locks:
            listed = locks.read()
    except OSError:
        return None
    found: dict[File, list[int]] = {}
    for pid, major, minor, inode in _BLOCKED.findall(listed):
        file = os.makedev(int(major, 16), int(minor, 16)), int(inode)
        found.setdefault(file, []).append(int(pid))
    return found
