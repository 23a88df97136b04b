"""The naive answer: pickle into an anonymous mmap, under lockf.

It cannot grow, a kill tears it, a reader waits for the holder, and only forked children have it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import pickle
from collections.abc import Callable
from typing import Any


class NaiveShare:
    """What one writes first. `add_one` is its transaction."""

    def __init__(self, value: Any, size_bytes: int = 1 << 16) -> None:
        self._map = mmap.mmap(-1, size_bytes)
        self._fd = os.memfd_create("naive")
        self.set(value)

    def get(self) -> Any:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            return pickle.loads(self._map)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def set(self, value: Any) -> None:
        stream = pickle.dumps(value, 5)
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            self._map[: len(stream)] = stream
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def add_one(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            value = pickle.loads(self._map)
            value["hits"] += 1
            stream = pickle.dumps(value, 5)
            self._map[: len(stream)] = stream
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def change(self, func: Callable[[Any], None]) -> None:
        """`add_one` for any change."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            value = pickle.loads(self._map)
            func(value)
            stream = pickle.dumps(value, 5)
            self._map[: len(stream)] = stream
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        self._map.close()
        os.close(self._fd)
