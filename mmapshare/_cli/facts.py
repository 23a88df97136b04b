"""How a share stands."""

from __future__ import annotations

import attrs

from .._lock import LOCK_WORDS, status
from .._store import format, outside


@attrs.frozen
class Facts:
    """What is known of a share without its value, as it was at one moment.

    Attributes:
        used_bytes: what the newest version takes; ``resident_bytes``: what the region takes now.
        holder_host: where that process is; None for this machine.
        waits_for: begin of the id of the region that the holder waits for, None for none.
        held_bytes: what ``get(copy=False)`` and the like hold; ``held_by``: so many processes.
        is_refused: the disk has refused a commit, and nothing more is written.
    """

    region_id: str
    what: str
    version: int
    used_bytes: int
    resident_bytes: int
    max_size: int
    holder_pid: int | None
    held_s: float | None
    contended_waits: int
    holders_found_dead: int
    holder_host: str | None = None
    waits_for: str | None = None
    held_bytes: int = 0
    held_by: int = 0
    is_durable: bool = False
    is_refused: bool = False


def facts_of(region: outside.Outside) -> Facts:
    """What a region's header says; CorruptRegionError where its newest slot is damaged."""
    words = region.words[: format.HEADER_BYTES]
    lock, identity = words[LOCK_WORDS], region.identity
    holder_pid, held_s = status.holder(lock) or (None, None)
    waits = lock[status.WAITS_ID] if holder_pid else 0
    held_bytes, held_by = region.held()
    return Facts(
        region_id=identity.region_id.hex(),
        what=format.CONTENTS[identity.kind],
        version=words[format.VERSION],
        used_bytes=region.store(None, 0).used_bytes(),
        resident_bytes=region.status().st_blocks * 512,
        max_size=identity.max_size,
        holder_pid=holder_pid,
        held_s=held_s,
        waits_for=waits.to_bytes(8, "little").hex()[:8] if waits else None,
        contended_waits=lock[status.CONTENDED],
        holders_found_dead=lock[status.FOUND_DEAD],
        held_bytes=held_bytes,
        held_by=held_by,
        is_durable=bool(words[format.FLAGS] & format.DURABLE),
        is_refused=bool(words[format.FLAGS] & format.POISONED),
    )
