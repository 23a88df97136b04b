"""Regions that processes find by a name or a path: made, found, listed, and taken away.

The identity is read, and compared with the file's size, before anything is mapped: a file that is
shorter than its mapping kills who looks at it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeVar

import attrs

from .. import _proc
from .._late import importing
from .._lock import HOLDER, LOCK_WORDS, alive, shut
from ..errors import (
    CorruptRegionError,
    OpenError,
    ShareExistsError,
    ShareNotFoundError,
    UnsafePathError,
)
from .address import SUFFIX, Address, folder_of_names
from .folder import Folder, NewFile, refuse_several_hosts
from .format import (
    BOOT,
    CONTENTS,
    DURABLE,
    FLAGS,
    FORMAT,
    HEADER_BYTES,
    INODE,
    UNLINKED,
    VERSION,
    Identity,
)
from .segment import Segment
from .sound import make_sound

_ATTEMPTS: Final = 1000
_HEADER: Final = struct.Struct(f"<{LOCK_WORDS.stop}Q")
_NO_LOCKS: Final = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
_BOOT_ID: Final = "sys/kernel/random/boot_id"


class Made(Protocol):
    """What `find_or_make` makes: something with a segment, that can be closed."""

    def close(self) -> object: ...


M = TypeVar("M", bound=Made)


@attrs.frozen
class ListedShare:
    """A named share, as `mmapshare.list_shares` found it.

    Attributes:
        name: what `Share.open` or `SharedDict.open` takes.
        kind: "Share" or "SharedDict".
        version: its newest committed version; 0 while it is empty.
        resident_bytes: memory that it takes from the machine now.
        max_size: ceiling of one value, or of a dict's values together, in bytes.
        holder_pid: process that holds the lock, None where it is free.
    """

    name: str
    kind: str
    version: int
    resident_bytes: int
    max_size: int
    holder_pid: int | None


def find(address: Address) -> Segment | None:
    """The region of that name; None where there is none.

    UnsafePathError where something else has the name, CorruptRegionError where the file is damaged.
    """
    folder = address.open_folder(create=False)
    if folder is None:
        return None
    with folder:
        return _find(folder, address)


def find_or_make(
    address: Address,
    create: bool | None,
    make: Callable[[Callable[[int], Segment]], M],
    durable: bool = False,
) -> tuple[Segment | None, M | None]:
    """The region of that name, or what ``make`` has made, which has got that name by then.

    ``make`` is given what makes new memory of a size. With ``create`` True there must be none
    (ShareExistsError), with False there must be one (ShareNotFoundError). What is made is whole
    before anybody can find it, and the first one counts. ``durable``: the name itself is on the
    disk when this returns.
    """
    folder = address.open_folder(create is not False)
    if folder is None:
        raise _not_found(address, [])
    made: M | None = None
    with folder:
        try:
            for _ in range(_ATTEMPTS):
                found = _find(folder, address)
                if found is not None:
                    if create:
                        found.close()
                        raise ShareExistsError(
                            f"there is a share {address} already; open it without create=True, or "
                            "unlink() it first"
                        )
                    if durable:
                        folder.sync()
                    return found, None
                if create is False:
                    raise _not_found(address, folder.entries())
                if made is None:
                    file, segment, made = _make(folder, address, make)
                if file.give_name(address.entry):
                    segment.has_name()
                    new, made = made, None
                    file.close()
                    if durable:
                        folder.sync()
                    return None, new
            raise OpenError(f"share {address} is made and removed all the time")
        finally:
            if made is not None:
                made.close()
                file.close()


def unlink(segment: Segment) -> None:
    """Take the name of a region away; ShareNotFoundError where it has it no more."""
    address = segment.address
    folder = address.open_folder(create=False)
    if folder is not None:
        with folder:
            # The mark first. Killed in between: who finds it takes the name away.
            if folder.remove(address.entry, segment.fd, functools.partial(_mark, segment)):
                if segment.map[8 * FLAGS] & DURABLE:
                    folder.sync()
                return
    raise ShareNotFoundError(f"share {address} has been unlinked already, or its file was removed")


def _mark(segment: Segment) -> None:
    segment.map[8 * UNLINKED : 8 * UNLINKED + 8] = (1).to_bytes(8, "little")


def listing() -> list[ListedShare]:
    """This user's named shares, in the order of their names; what is no share is left out."""
    folder = Folder.private(folder_of_names(), create=False)
    if folder is None:
        return []
    with folder:
        found = []
        for entry in folder.entries():
            if entry.endswith(SUFFIX):
                try:
                    one = _listed(folder, entry)
                except (OpenError, CorruptRegionError):
                    continue
                if one is not None:
                    found.append(one)
        return found


def _listed(folder: Folder, entry: str) -> ListedShare | None:
    address = Address(folder.path, entry, is_name=True)
    fd = folder.open(entry, str(address))
    if fd is None:
        return None
    try:
        identity, words, found = _header(fd, address)
        if is_over(words, address.is_name):
            return None
        holder = words[LOCK_WORDS][HOLDER]
        return ListedShare(
            name=str(address),
            kind=CONTENTS[identity.kind],
            version=words[VERSION],
            resident_bytes=found.st_blocks * 512,
            max_size=identity.max_size,
            holder_pid=holder if holder and alive(holder) else None,
        )
    finally:
        shut(fd)


# --- Finding ---------------------------------------------------------------------------------


def _find(folder: Folder, address: Address) -> Segment | None:
    for _ in range(_ATTEMPTS):
        fd = folder.open(address.entry, str(address))
        if fd is None:
            return None
        try:
            identity, words, found = _header(fd, address)
            if is_over(words, address.is_name):
                folder.remove(address.entry, fd)
                continue
            _refuse_several_hosts(fd, address)
            if not _is_at_home(words, found.st_ino):
                _settle(fd, address)
            segment = Segment.named(fd, identity.region_bytes, address)
            try:
                # Where there is no /proc the lock's description was opened by the name, too.
                fds = [fd] if segment.process_lock.is_open_through_proc else [fd, segment.fd]
                if folder.leads_to(address.entry, *fds):
                    segment.has_name()
                    return segment
            except BaseException:
                segment.close()
                raise
            segment.close()
        finally:
            shut(fd)
    raise OpenError(f"share {address} is made and removed all the time")


def _header(fd: int, address: Address) -> tuple[Identity, tuple[int, ...], os.stat_result]:
    raw = os.pread(fd, _HEADER.size, 0)
    found = os.fstat(fd)
    size = found.st_size
    if len(raw) < _HEADER.size:
        raise CorruptRegionError(f"{address.path} is no share's file: it has {size} bytes")
    try:
        identity = Identity.unpack(raw)
    except CorruptRegionError as err:
        raise CorruptRegionError(f"the file of share {address}: {err}") from None
    if identity.region_bytes != size:
        raise CorruptRegionError(
            f"the file of share {address} has {size:,} bytes, and was made with "
            f"{identity.region_bytes:,}: something has cut it off, or added to it"
        )
    if (identity.format == FORMAT) != address.is_name:
        raise OpenError(
            f"{address.path} was made by a {'path' if address.is_name else 'name'}, and is opened "
            "by that alone"
        )
    return identity, _HEADER.unpack(raw), found


def is_over(words: Sequence[int], is_name: bool) -> bool:
    """Whether it was unlinked; of a name also, whether it is from before this boot."""
    return bool(words[UNLINKED]) or (is_name and not _is_of_this_boot(words))


def _is_of_this_boot(words: Sequence[int]) -> bool:
    made, now = tuple(words[BOOT[0] : BOOT[1] + 1]), _boot()
    return made == now or not any(now) or not any(made)


def _is_at_home(words: tuple[int, ...], inode: int) -> bool:
    """Whether the header is true: of this very file, and of what this boot has written."""
    return words[INODE] == inode and _is_of_this_boot(words)


def _settle(fd: int, address: Address) -> None:
    """Make the header true, and give a copied file an id of its own.

    By that nobody takes it for the one it was copied from. Under the lock, for who looks at it at
    the same time. Killed in between, the next one does it again.
    """
    with _flocked(fd, address):
        identity, words, found = _header(fd, address)
        inode = found.st_ino
        if _is_at_home(words, inode):
            return
        if words[INODE] != inode:
            os.pwrite(fd, identity._replace(region_id=os.urandom(16)).pack(), 0)
        if identity.format != FORMAT:
            make_sound(fd, identity, _boot())
            return
        os.pwrite(fd, bytes(8 * (LOCK_WORDS.stop - LOCK_WORDS.start)), 8 * LOCK_WORDS.start)
        os.pwrite(fd, inode.to_bytes(8, "little"), 8 * INODE)


@contextlib.contextmanager
def _flocked(fd: int, address: Address) -> Iterator[None]:
    """With the lock among processes; UnsafePathError where the file system has none."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as err:
        if err.errno not in _NO_LOCKS:
            raise
        raise UnsafePathError(
            f"{address} lies on a file system that has no locks ({err.strerror}): use another one"
        ) from err
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # The description may live on, in a mapping.


@functools.cache
def _boot() -> tuple[int, ...]:
    """The id of this machine's boot, as two words; zeros where that is not to be told."""
    try:
        with open(f"{_proc.PROC}/{_BOOT_ID}", encoding="ascii") as file:
            return struct.unpack("<2Q", bytes.fromhex(file.read().strip().replace("-", "")))
    except (OSError, ValueError):
        return 0, 0


def _refuse_several_hosts(fd: int, address: Address) -> None:
    if not address.is_in_memory:
        refuse_several_hosts(fd, str(address))


# --- Making ----------------------------------------------------------------------------------


def _make(
    folder: Folder, address: Address, make: Callable[[Callable[[int], Segment]], M]
) -> tuple[NewFile, Segment, M]:
    file = folder.new(str(address))
    segments: list[Segment] = []

    def memory(size_bytes: int) -> Segment:
        _refuse_several_hosts(file.fd, address)
        if not address.is_in_memory:
            with _flocked(file.fd, address):
                pass
        segment = Segment.new_named(file.fd, size_bytes, address, file.path)
        segments.append(segment)
        segment.allocate(0, HEADER_BYTES)  # A store where the disk has no room is a SIGBUS.
        words = struct.pack("<3Q", os.fstat(file.fd).st_ino, *_boot())
        segment.map[8 * INODE : 8 * INODE + len(words)] = words
        return segment

    try:
        made = make(memory)
        return file, segments[0], made
    except BaseException:
        for segment in segments:
            segment.close()
        file.close()
        raise


def _not_found(address: Address, entries: list[str]) -> ShareNotFoundError:
    with importing:
        import difflib

    like = [entry for entry in entries if _may_be(entry, address)]
    there = [str(attrs.evolve(address, entry=entry)) for entry in like]
    near: Any = difflib.get_close_matches(str(address), there, n=5, cutoff=0.5) or there[:5]
    says = f"there are {', '.join(near)}" if near else f"there is none in {address.folder}"
    return ShareNotFoundError(f"there is no share {address}; {says}")


def _may_be(entry: str, address: Address) -> bool:
    """Whether a share may be called so; of a path nobody says how it ends."""
    return entry.endswith(SUFFIX if address.is_name else os.path.splitext(address.entry)[1])
