"""Arguments as users write them, checked."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def timeout_s(timeout: float | None) -> float | None:
    """Seconds to wait, None for ever; TypeError or ValueError for anything else."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout is a number of seconds, or None to wait on; not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout is 0 or more seconds, or None to wait on; not {timeout!r}")
    return float(timeout)


def size_bytes(size: int | str) -> int:
    """Bytes of ``12``, ``"64K"``, ``"64M"``, ``"1G"`` or ``"1T"``; TypeError or ValueError else."""
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+)\s*([KMGT]?)(?:i?B)?\s*", size, re.IGNORECASE)
        if match is None:
            raise ValueError(f'{size!r} is no size: write bytes, or "64K", "64M", "1G", "1T"')
        size = int(match[1]) * _UNITS[match[2].upper()]
    elif isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f'a size is an int of bytes or a string such as "64M", not {size!r}')
    if size <= 0:
        raise ValueError(f"a size is at least 1 byte, not {size!r}")
    return size
