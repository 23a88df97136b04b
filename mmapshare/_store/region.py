"""A region: a segment's header, its lock and its areas, and the one place where a version is made.

A commit writes its record aside, then its slot, then the version word: that one 8-byte store
*is* the commit (`Region.publish`). What the version before names is never touched meanwhile, so a
writer killed anywhere leaves the old value or the new one, and recovery is reading.

What the records are is the business of the stores over it: `_store.value` and `_store.keyed`.
`MemoryStore` is what these two have in common.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Final, TypeVar

from .._closed import CLOSED, let_go
from .._late import importing
from .._lock import LEASE, LOCK_WORDS, REGION_ID_WORD, Lock
from .._weak import members
from ..errors import CorruptRegionError
from . import format as layout
from .areas import Areas, in_order
from .format import (
    HEADER_BYTES,
    IDENTITY_BYTES,
    SLOTS,
    VERSION,
    Identity,
    Slot,
)
from .segment import Segment

T = TypeVar("T")


def _machine() -> str:
    if hasattr(os, "uname"):
        return os.uname().machine.lower()
    with importing:
        import platform

    return platform.machine().lower()


ORDERED_STORES: Final = _machine() in {"x86_64", "amd64", "i686", "i386"}
"""Whether stores become visible in program order, so that readers need no lock."""

_WORD_MASK: Final = 2**64 - 1

_pack_slot = layout.pack_slot_words


class Region:
    """Shared memory with versions. Usable in forked children as it stands; once closed, nowhere.

    `load_slot` may be called from any thread or process at any time; `publish` wants the lock.
    """

    __slots__ = ("__weakref__", "areas", "identity", "lock", "map", "segment", "words")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.map = segment.map
        self.identity = Identity.unpack(segment.map[:IDENTITY_BYTES])
        if self.identity.region_bytes != segment.size_bytes:
            raise CorruptRegionError("the region's size is not what its header says")
        self.words = memoryview(segment.map)[:HEADER_BYTES].cast("Q")
        self.areas = Areas(segment, self.words, self.identity)
        self.lock = Lock(
            segment.process_lock,
            self.words[LOCK_WORDS],
            VERSION * 8,
            self.words[REGION_ID_WORD],
        )
        _live.add(self)

    def load_slot(self, known: int = 0) -> Slot | None:
        """The slot that the version word names; None while empty, or where a writer was faster.

        ``known``: a version that this process has seen. CorruptRegionError where a slot is
        damaged, or the version is 0 although something was committed.
        """
        version = self.words[VERSION]
        if version == 0:
            # The slot of version 1 proves nothing: its writer may have been killed before.
            even, odd = (self.words[slot.start // 8] for slot in SLOTS)
            committed = even > 0 or odd > 1 or known > 0
            if committed and self._is_still(0):
                raise CorruptRegionError("the region's version is 0, but something was committed")
            return None
        raw = self.map[SLOTS[version & 1]]
        if self.words[VERSION] != version:
            return None  # From then on a writer may change the slot.
        slot = layout.unpack_slot(raw, version, self.areas.bytes)
        if slot is None and self._is_still(version):
            raise CorruptRegionError(f"the slot of version {version} fails its check")
        return slot

    def _is_still(self, version: int) -> bool:
        # Without ordered stores a look behind a copy may have come before it, but for this one.
        in_order()
        return bool(self.words[VERSION] == version)

    def publish(self, version: int, start: int, end: int, epoch: int, parts: int = 1) -> None:
        """Make the record that has been written the newest version: the commit.

        Only here slots and the version word are stored.
        """
        check = 3 * version + 5 * start + 7 * end + 11 * epoch + 13 * parts
        self.map[SLOTS[version & 1]] = _pack_slot(
            version, start, end, epoch, parts, check if parts == 1 else check & _WORD_MASK
        )
        self.words[VERSION] = version  # The commit.

    def be_durable(self) -> None:
        """From now on a commit waits for the disk; only where the region is in a file."""
        raise NotImplementedError

    def sleep(self, version: int, until_ns: int, timeout_s: float) -> bool:
        """Sleep while that is the version, at most so long; False where the system has no sleep.

        Until ``until_ns`` commits look for sleepers; see `_shared.wait`.
        """
        with importing:
            from .._lock.futex import FUTEX, sleep

        if FUTEX is None:
            return False
        self.lock.words[LEASE] = until_ns
        sleep(self.words, VERSION * 8, version & 0xFFFFFFFF, timeout_s)
        return True

    def close(self) -> None:
        """Let go of the memory in this process; the region must not be used any more."""
        _live.discard(self)
        self.lock.close()
        self.areas.close()
        words, self.words, self.map = self.words, CLOSED, CLOSED
        let_go(words)
        self.segment.close()

    def after_fork_in_child(self) -> None:
        """Make anew what must not be shared with the parent; what it holds is void here."""
        self.lock.after_fork_in_child()
        # Last: without a descriptor to spare, or a folder, the region works on until it is left.
        with contextlib.suppress(OSError):
            self.segment.after_fork_in_child()


def all_regions() -> list[Region]:
    """Those that this process has open; other threads may open and close some meanwhile."""
    return members(_live)


def _publish_in_order(
    self: Region, version: int, start: int, end: int, epoch: int, parts: int = 1
) -> None:
    """As `Region.publish`, for who reads without the lock, as the compiled core does anywhere."""
    in_order()
    self.map[SLOTS[version & 1]] = layout.pack_slot(version, start, end, epoch, parts)
    in_order()
    self.words[VERSION] = version


if not ORDERED_STORES:  # only without ordered stores
    Region.publish = _publish_in_order  # type: ignore[method-assign]


def oldest_ahead() -> CorruptRegionError:
    return CorruptRegionError("the region's OLDEST_READABLE word is ahead of its version")


# --- Fork: one hook for all regions, made anew in the child -------------------------------

_live: weakref.WeakSet[Region] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for region in list(_live):
        region.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # only with fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
