"""A region: memory, lock and layout together. It knows versions, frames and bytes, never objects.

A commit writes its record aside, then its slot, then the version word: that one 8-byte store
is the commit. What the version before names is never touched meanwhile, so a writer killed
anywhere leaves the old value or the new one, and recovery is reading.

Records are laid one behind the other in one of two areas; when the next does not fit into the
area's window, writing moves to the begin of the other area. Small values therefore rotate
through a window of many versions and readers almost never meet a writer; large ones, from a
window's size on, alternate between two extents.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Sequence
from typing import Final, Self

from . import _layout as layout
from ._closed import CLOSED, let_go
from ._late import importing
from ._layout import (
    ALLOCATED,
    FLOOR,
    HEADER_BYTES,
    IDENTITY_BYTES,
    SLOTS,
    VALUE_KIND,
    VERSION,
    Head,
    Identity,
)
from ._lock import Lock
from ._memory import Segment, private_copy
from ._owner import claim_by, current_owner, inner_of
from .errors import CorruptRegionError, RegionFullError

Frame = bytes | bytearray | memoryview


def _machine() -> str:
    if hasattr(os, "uname"):
        return os.uname().machine.lower()
    with importing:
        import platform

    return platform.machine().lower()


ORDERED_STORES: Final = _machine() in {"x86_64", "amd64", "i686", "i386"}
"""Whether stores become visible in program order, so that readers need no lock."""

_WINDOW_RECORDS: Final = 16
_WINDOW_LEAST: Final = 64 << 10
_WINDOW_MOST: Final = 4 << 20
_KEEP_BYTES: Final = 8 << 20
"""Memory that an area keeps though nothing lives there."""
_CACHED_BYTES: Final = 64 << 10
"""Frames up to this size are kept in the process until the version changes."""
_COMPARED_BYTES: Final = 256 << 10
_ATTEMPTS_BEFORE_LOCK: Final = 16

assert _WINDOW_MOST <= _KEEP_BYTES


Commit = tuple[int, Sequence[Frame], int, int, int, int]
"""One committed version, as a plain tuple, since one is made for each commit:

- its version, 0 for none;
- private copies of its frames (none, where only its extent was asked for);
- start and end of its record, and its run (see `_layout`);
- up to where the next record may reach without a look at area, window or memory.
"""
V: Final = 0
START: Final = 2
END: Final = 3
RUN: Final = 4

_EMPTY: Final[Commit] = (0, (), 0, 0, 0, 0)
_UNREAD: Final[Commit] = (-1, (), 0, 0, 0, 0)
"""Stands where this process has seen none yet, not even that there is none."""

Seen = tuple[int, Sequence[tuple[int, int]], tuple[int, int, int, int]]
"""Where a version lies: its number, begin and end of each frame, and what a Commit ends with."""
_NOTHING: Final[Seen] = (-1, (), (0, 0, 0, 0))

_pack_head_words = layout.pack_head_words


class Region:
    """Shared memory that holds one committed version of some frames at a time.

    `read` may be called from any thread or process at any time and takes no lock. `current`,
    `extent` and `publish` want the lock. Usable in forked children as it stands. Once closed, it
    must not be used.

    Without the GIL: ``_commit`` and ``_seen`` are tuples that never change, each swapped whole by
    one store; which of two threads swapped last does not matter, as each names its own version.
    """

    __slots__ = (
        "__weakref__",
        "_area_bytes",
        "_commit",
        "_easy_most",
        "_map",
        "_seen",
        "_words",
        "identity",
        "lock",
        "segment",
    )

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._map = segment.map
        self.identity = Identity.unpack(segment.map[:IDENTITY_BYTES])
        if self.identity.region_bytes != segment.size_bytes:
            raise CorruptRegionError("the region's size is not what its header says")
        self._area_bytes = self.identity.area_bytes
        # No record that fits in the window can be too large; if one could, none is easy.
        self._easy_most = _WINDOW_MOST if self.identity.max_size >= _WINDOW_MOST else 0
        self._words = memoryview(segment.map)[:HEADER_BYTES].cast("Q")
        self._seen: Seen = _NOTHING
        self._commit = _UNREAD
        """The last commit seen, kept while it is small and its frames are nobody's memory."""
        self.lock = Lock(
            segment.door,
            self._words[layout.LOCK_WORDS],
            VERSION * 8,
            self._words[layout.REGION_ID_WORD],
        )
        _live.add(self)

    @classmethod
    def create(cls, kind: str, max_size: int, content: int = VALUE_KIND) -> Self:
        """A new, empty region; RegionFullError where the machine cannot map its ceiling."""
        # A record needs a head and a table beside the value, and a small area some window. A log
        # has what is dead beside what lives.
        spare = _WINDOW_MOST + (max_size // 32 if content == VALUE_KIND else 3 * max_size // 2)
        area_bytes = -(-(max_size + spare) // HEADER_BYTES) * HEADER_BYTES
        identity = Identity(os.urandom(16), max_size, area_bytes, content)
        segment = Segment.create(kind, identity.region_bytes)
        segment.allocate(0, HEADER_BYTES)
        segment.map[:IDENTITY_BYTES] = identity.pack()
        region = cls(segment)
        for area in (0, 1):
            region._words[ALLOCATED[area]] = region._area_start(area)
        return region

    # --- Reading ---------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """The newest committed version; 0 while nothing was published."""
        return self._words[VERSION]

    def sleep(self, version: int, until_ns: int, timeout_s: float) -> bool:
        """Sleep while that is the version, at most so long; False where the system has no sleep.

        Until ``until_ns`` commits look for sleepers; see `_wait`.
        """
        with importing:
            from ._futex import FUTEX, sleep

        if FUTEX is None:
            return False
        self.lock.take_lease(until_ns)
        sleep(self._words, VERSION * 8, version & 0xFFFFFFFF, timeout_s)
        return True

    def read(self) -> Commit:
        """The newest commit, its frames copied; waits for nobody."""
        commit = self._commit
        return commit if self._words[VERSION] == commit[V] else self._read_shared()

    def _read_shared(self) -> Commit:
        if not ORDERED_STORES:
            return self._read_locked()
        for _ in range(_ATTEMPTS_BEFORE_LOCK):
            commit = self.try_read()
            if commit is not None:
                return commit
        # A writer without pause overtakes every copy. It lets go between its commits; while it
        # does not, it commits nothing and the next attempt succeeds.
        while (commit := self.try_read()) is None:
            claim = claim_by(current_owner())
            try:
                if self.lock.try_acquire(claim):
                    return self._copy_current()
            finally:
                self.lock.abandon(claim)
        return commit

    def _read_locked(self) -> Commit:
        claim = claim_by(current_owner())
        try:
            self.lock.acquire(claim, None)  # Or the caller has it already.
            return self._copy_current()
        finally:
            self.lock.abandon(claim)

    def _copy_current(self) -> Commit:
        commit = self.try_read()
        if commit is None:
            raise CorruptRegionError("the region's FLOOR word is ahead of its version")
        return commit

    def try_read(self) -> Commit | None:
        """One attempt at copying the newest commit; None where a writer overtook it."""
        seen = self._seen
        if seen[0] != self._words[VERSION]:
            head = self._load_head()
            if head is None:
                return None if self._words[VERSION] else _EMPTY
            found = self._extents(head)
            if found is None:
                return None
            # Where a version lies does not change: large ones are copied without asking again.
            self._seen = seen = (head.version, found, self._extent(head))
        version, extents, extent = seen
        frames = self._copy(extents)
        floor = self._words[FLOOR]
        if floor > version:
            if floor > self._words[VERSION]:
                raise CorruptRegionError("the region's FLOOR word is ahead of its version")
            return None
        commit = (version, frames, *extent)
        if _cacheable(len(extents), extent[1] - extent[0]):
            self._commit = commit
        return commit

    def _extent(self, head: Head) -> tuple[int, int, int, int]:
        easy = self._easy(head.start, head.end)
        return head.start, head.end, head.run, easy

    def _easy(self, start: int, end: int) -> int:
        area = layout.area_of(start, self._area_bytes)
        window = min(_window(end - start), self._easy_most)
        return min(self._area_start(area) + window, self._words[ALLOCATED[area]])

    def _load_head(self) -> Head | None:
        """The head that the version word names; None while empty, or where a writer was faster."""
        version = self._words[VERSION]
        if version == 0:
            self._check_empty()
            return None
        raw = self._map[SLOTS[version & 1]]
        if self._words[VERSION] != version:
            return None  # From then on a writer may change the slot.
        head = layout.unpack_head(raw, version, self._area_bytes)
        if head is None:
            raise CorruptRegionError(f"the slot of version {version} fails its check")
        return head

    def _check_empty(self) -> None:
        """CorruptRegionError where the version is 0 although something was committed.

        The slot of version 1 proves nothing: its writer may have been killed before the commit.
        """
        even, odd = (self._words[slot.start // 8] for slot in SLOTS)
        committed = even > 0 or odd > 1 or self._commit[V] > 0 or self._seen[V] > 0
        if committed and self._words[VERSION] == 0:
            raise CorruptRegionError("the region's version is 0, but something was committed")

    def _copy(self, extents: Sequence[tuple[int, int]]) -> Sequence[Frame]:
        begin, end = extents[0]
        if len(extents) == 1:
            return (self._map[begin:end],)
        # Nobody may take memory that belongs to user objects for what was committed: as a list
        # it equals no frames that `publish` is given.
        with memoryview(self._map) as view:
            return [
                self._map[begin:end],
                *[private_copy(view[begin:end]) for begin, end in extents[1:]],
            ]

    def _extents(self, head: Head) -> list[tuple[int, int]] | None:
        table = self._map[head.start : head.start + layout.table_bytes(head.frames)]
        try:
            return layout.frame_extents(head, table)
        except CorruptRegionError:
            if self._words[FLOOR] > head.version:
                return None
            raise

    # --- Writing: the caller holds the lock ------------------------------------------------

    def current(self) -> Commit:
        """The newest commit, frames copied; nobody can overtake the lock's holder."""
        commit = self._commit
        return commit if self._words[VERSION] == commit[V] else self._copy_current()

    def extent(self) -> Commit:
        """The newest commit, perhaps without its frames."""
        commit = self._commit
        if self._words[VERSION] == commit[V]:
            return commit
        if self._words[VERSION] == self._seen[V]:
            return (self._seen[V], (), *self._seen[2])
        head = self._load_head()
        if head is None:
            return _EMPTY
        return (head.version, (), *self._extent(head))

    def _holds(self, frames: Sequence[Frame]) -> bool:
        """Whether the newest commit's frames are these, byte by byte; keeps no copy."""
        head = self._load_head()
        if head is None or head.frames != len(frames):
            return False
        extents = self._extents(head)
        with memoryview(self._map) as view:
            return extents is not None and all(
                same_bytes(view[begin:end], frame)
                for (begin, end), frame in zip(extents, frames, strict=True)
            )

    def publish(self, frames: Sequence[Frame], commit: Commit, unless_same: bool = False) -> int:
        """Commit ``frames`` as the version after ``commit``, the current one; returns it.

        Frames are flat bytes-like objects, the first one bytes. ``unless_same``: what cannot be
        told from copies, since they became user objects, is compared with the region first, and
        the same frames are not published again. RegionFullError, with nothing changed, where
        they do not fit.
        """
        version, _, start, end, run, easy = commit
        version += 1
        if len(frames) == 1:
            (frame,) = frames
            start = end + 63 & -64
            end = start + len(frame)
            if end <= easy:
                where = self._map
                where[start:end] = frame
                where[SLOTS[version & 1]] = _pack_head_words(
                    version, start, end, run, 1, 3 * version + 5 * start + 7 * end + 11 * run + 13
                )
                self._words[VERSION] = version  # The commit.
                self._commit = (version, frames, start, end, run, easy)
                return version
        elif unless_same and self._holds(frames):
            return commit[V]
        return self._publish_with_care(frames, commit)

    def make_room(self, frames: Sequence[Frame], commit: Commit) -> None:
        """See to it that `publish` of the same finds room; RegionFullError where it would not."""
        lengths = [len(frame) for frame in frames]
        size = layout.table_bytes(len(frames)) + sum(map(layout.align, lengths[:-1])) + lengths[-1]
        self._check_fits(size, sum(lengths), len(frames))
        self._place(commit, size)

    def _publish_with_care(self, frames: Sequence[Frame], commit: Commit) -> int:
        version, lengths = commit[V] + 1, [len(frame) for frame in frames]
        table, parts = layout.pack_table(lengths) if len(frames) > 1 else (b"", 1)
        size = len(table) + sum(map(layout.align, lengths[:-1])) + lengths[-1]
        self._check_fits(size, sum(lengths), len(frames))
        start, run = self._place(commit, size)
        begin = start + len(table)
        if table:
            self._map[start:begin] = table
        extents = []
        for frame, length in zip(frames, lengths, strict=True):
            self._map[begin : begin + length] = frame
            extents.append((begin, begin + length))
            begin = layout.align(begin + length)
        end = start + size
        self._map[SLOTS[version & 1]] = layout.pack_head(version, start, end, run, parts)
        self._words[VERSION] = version  # The commit.
        extent = (start, end, run, self._easy(start, end))
        self._seen = (version, extents, extent)
        if _cacheable(len(frames), size):
            self._commit = (version, frames, *extent)
        if run == version:
            self._trim(version, start, end)
        return version

    def _check_fits(self, size: int, payload: int, count: int) -> None:
        max_size = self.identity.max_size
        if payload > max_size:
            why = f"the value takes {payload:,} bytes, the ceiling is {max_size:,} bytes"
        elif size > self._area_bytes:
            why = f"the value's {count:,} parts, aligned, take {size:,} bytes"
        else:
            return
        raise RegionFullError(
            f"{why}; make the share with a larger max_size. The stored value is as it was",
            needed_bytes=payload,
            max_size_bytes=max_size,
        )

    def _place(self, commit: Commit, size: int) -> tuple[int, int]:
        """Where the next record goes: (start, run). It has memory, and no reader's claim."""
        area, start, run = 0, HEADER_BYTES, 1
        if commit[V]:
            area = layout.area_of(commit[START], self._area_bytes)
            start, run = layout.align(commit[END]), commit[RUN]
            if start + size > self._area_start(area) + _window(size):
                # The other area's versions end here; those of this area's run stay whole.
                self._words[FLOOR] = run
                area = 1 - area
                start, run = self._area_start(area), commit[V] + 1
        has = self._allocated(area)
        if start + size > has:
            # Memory first, then the word: a kill between the two allocates twice, never too little.
            most = self._area_start(area) + self._area_bytes
            self._words[ALLOCATED[area]] = min(self.segment.allocate(has, start + size), most)
        return start, run

    def _allocated(self, area: int) -> int:
        """Up to where an area has memory; its begin where the word says what cannot be."""
        begin, word = self._area_start(area), self._words[ALLOCATED[area]]
        return word if begin <= word <= begin + self._area_bytes else begin

    def _trim(self, version: int, start: int, end: int) -> None:
        """After coming to an area: give back what both hold far above the need."""
        keep = max(_KEEP_BYTES, 2 * (end - start))
        here = layout.area_of(start, self._area_bytes)
        for area in (0, 1):
            limit = self._area_start(area) + keep
            allocated = self._allocated(area)  # Never the other one's memory.
            if allocated > limit:
                if area != here:
                    self._words[FLOOR] = version
                self._words[ALLOCATED[area]] = limit
                self.segment.give_back(limit, allocated)

    def _area_start(self, area: int) -> int:
        return HEADER_BYTES + area * self._area_bytes

    # --- Life ------------------------------------------------------------------------------

    def used_bytes(self) -> int:
        """Bytes of the newest commit's frames."""
        head = self._load_head()
        return 0 if head is None else head.end - head.start

    def glimpse(self, most: int) -> bytes:
        """The first bytes of the newest commit's first frame; unchecked, for people to look at."""
        head = self._load_head()
        if head is None:
            return b""
        begin = head.start + layout.table_bytes(head.frames)
        return self._map[begin : min(begin + most, head.end)]

    def close(self) -> None:
        """Let go of the memory in this process; the region must not be used any more."""
        _live.discard(self)
        self.lock.close()
        words, self._words, self._map = self._words, CLOSED, CLOSED
        let_go(words)
        self.segment.close()

    def after_fork_in_child(self) -> None:
        """Make anew what must not be shared with the parent; what it holds is void here."""
        inherited = self.lock.after_fork_in_child()
        if inherited is not None:
            inner = inner_of(inherited)
            if inner is not None:
                inner._owner = None
            inherited._owner = None
        # Last: without a descriptor to spare, or a folder, the region works on until it is left.
        with contextlib.suppress(OSError):
            self.segment.after_fork_in_child()


def _window(size: int) -> int:
    """How far records of this size go into an area before they move to the other one."""
    return min(max(_WINDOW_RECORDS * size, _WINDOW_LEAST), _WINDOW_MOST)


def _cacheable(count: int, size: int) -> bool:
    # Later frames are the memory of somebody's objects: they change under our hands.
    return count == 1 and size <= _CACHED_BYTES


def same_bytes(stored: memoryview, frame: Frame) -> bool:
    """Whether a piece of a region and a frame are equal; without a copy of either."""
    # A bytearray is compared by memcmp, a memoryview item by item: copy piece by piece.
    with memoryview(frame) as given:
        return stored.nbytes == given.nbytes and all(
            bytearray(stored[at : at + _COMPARED_BYTES]) == given[at : at + _COMPARED_BYTES]
            for at in range(0, stored.nbytes, _COMPARED_BYTES)
        )


# --- Fork: one hook for all regions, made anew in the child -------------------------------

_live: weakref.WeakSet[Region] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for region in list(_live):
        region.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # only with fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
