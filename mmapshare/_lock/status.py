"""The lock's words in a region's header: who holds it, who waits. They inform, and exclude nobody.

What each of them means, and who writes it, is told where the format of a region is.
"""

from __future__ import annotations

from typing import Final

HOLDER, SINCE, CONTENDED, FOUND_DEAD, LEASE = range(5)
WAITS_ID, WAITS_PID, WAITS_FD = 5, 6, 7
QUEUED: Final = 8
"""Indices among the lock's words."""

REGION_ID_WORD: Final = 2
"""Where the first half of the region's id stands in the header; enough to tell two apart."""
LOCK_WORDS: Final = slice(16, 25)
"""Where the lock's words stand in it."""
