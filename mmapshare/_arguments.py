"""Arguments as users write them, checked."""

from __future__ import annotations

import re
from typing import Final

_RUNS_LATER: Final = 0x20 | 0x80 | 0x200
"""Flags of the code of generators, coroutines and asynchronous generators."""
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


def plain_function(func: object, who: str) -> None:
    """TypeError unless ``func`` can be called by ``who`` and has done its work when it returns."""
    if not callable(func):
        raise TypeError(
            f"{who}() calls a function with the value, {type(func).__name__} is none; "
            "to change items write  with share.locked() as view: ..."
        )
    flags = getattr(getattr(func, "__code__", None), "co_flags", 0)
    if flags & _RUNS_LATER:
        raise TypeError(
            f"{who}() calls a plain function: a generator or coroutine would do its work when "
            "all is committed; write  async with share.locked() as view: ..."
        )


def retries_at_most(retries: int) -> int:
    """How often to try; TypeError or ValueError for anything but an int from 0 on."""
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(f"retries is a number of times, not {retries!r}")
    if retries < 0:
        raise ValueError(f"retries is 0 or more times, not {retries!r}")
    return retries


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
