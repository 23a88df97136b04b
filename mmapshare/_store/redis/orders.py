"""Commits as they are sent to a server, and what tells them apart."""

from __future__ import annotations

import os
from typing import Any

import attrs


@attrs.frozen
class Order:
    """A commit by who has the lock, as it is to be sent."""

    changes: Any
    base: int
    """The version that it follows."""
    last: bool
    """Whether the lock is let go with it."""
    arguments: list[bytes]
    """What of it is to be stored, as the script wants it."""


class Writer:
    """Numbers the commits of one who makes one after the other, so that they are told apart."""

    __slots__ = ("_id", "_number")

    def __init__(self) -> None:
        self._id = os.urandom(8)
        self._number = 0

    def next(self) -> bytes:
        """The tag of the next one."""
        self._number += 1
        return self._id + self._number.to_bytes(8, "little")
