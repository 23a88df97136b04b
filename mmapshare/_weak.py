"""Looking at a weak set while other threads add to it, and drop what is in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def members(of: Iterable[T]) -> list[T]:
    """Those of now."""
    while True:
        with contextlib.suppress(RuntimeError):  # "Set changed size during iteration".
            return list(of)
