"""A share that was found, not yet looked at."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import attrs

from .._store import address, named, outside
from ..errors import UnsafePathError
from .facts import Facts, facts_of

File = tuple[int, int]
"""A file by its device and its number there."""


@attrs.define
class Found:
    """One in a file, or in memory.

    Attributes:
        where: what a person says for it: a name, a path, or the begin of its region's id.
        kind: "name", "path", "memfd" or "file".
        path: through what it can be opened now.
        users: processes of this user's that have it open.
        has_name: others find it by ``where``; else it ends with its users.
    """

    where: str
    kind: str
    path: str
    file: File
    has_name: bool
    users: list[int] = attrs.field(factory=list)

    is_remote: ClassVar[bool] = False
    """It is on a server, which knows no files, and not who has it open or waits for it."""

    def open(self) -> AbstractContextManager[Any]:
        """The share itself, for as long as it is looked at."""
        return outside.Outside.open(self.path)

    def facts(self, region: Any) -> Facts:
        """How it stands now."""
        return facts_of(region)

    def check_trust(self, region: Any) -> None:
        """Who could write the file decides what runs where it is loaded."""
        stat = region.status()
        if stat.st_uid != os.geteuid() or stat.st_mode & 0o077:
            raise UnsafePathError(
                f"{self.where} is another user's, or open to others (user {stat.st_uid}, mode "
                f"{stat.st_mode & 0o777:o}): what they wrote would run here. It is shown without "
                "--load"
            )

    def remove(self) -> None:
        """Take its name away."""
        segment, _ = named.find_or_make(address.address_of(self.where), False, _Never)
        assert segment is not None
        try:
            named.unlink(segment)
        finally:
            segment.close()


class _Never:
    """What would be made where there is nothing."""

    def __init__(self, memory: object) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
