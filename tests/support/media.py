"""The media on which the contract of shares and dicts is tested: `tests/public` runs on each.

Another one is a class here and a line in `MEDIA`. What it does not promise, it says; a test that
needs a promise asks for it with ``@pytest.mark.needs("crosses_fork")`` and is not run without.
"""

from __future__ import annotations

import weakref
from typing import Any

from mmapshare import Share, SharedDict

from . import in_process, inside

PROMISES = (
    "crosses_fork",
    "crosses_spawn",
    "reads_wait_for_nobody",
    "free_at_once_after_kill",
    "is_memory",
)


class Medium:
    """Makes shares and dicts in one kind of place, and closes them when the test is over."""

    name: str

    crosses_fork = True
    """Forked children have what was made before."""
    crosses_spawn = True
    """A handle leads there from any process of this user's."""
    reads_wait_for_nobody = True
    """Not for a holder of the lock, dead or alive."""
    free_at_once_after_kill = True
    """The lock of a holder that was killed is the next one's without any wait."""

    is_memory = True
    """It is a region: `info` tells its sizes, and it ends with its last user."""

    def __init__(self) -> None:
        self._made: list[weakref.ref[Any]] = []

    def make_share(self, *args: Any, **options: Any) -> Share[Any]:
        raise NotImplementedError

    def make_dict(self, *args: Any, **options: Any) -> SharedDict[Any, Any]:
        raise NotImplementedError

    def share(self, *args: Any, **options: Any) -> Share[Any]:
        """A new one, as `Share` makes it."""
        return self._closed_later(self.make_share(*args, **options))

    def dict(self, *args: Any, **options: Any) -> SharedDict[Any, Any]:
        """A new one, as `SharedDict` makes it."""
        return self._closed_later(self.make_dict(*args, **options))

    def _closed_later(self, made: Any) -> Any:
        self._made.append(weakref.ref(made))  # A test may let go of it, and look what is left.
        return made

    def close(self) -> None:
        for ref in self._made:
            made = ref()
            if made is not None:
                made.close()


class Anonymous(Medium):
    """Memory without a name, on Linux."""

    name = "memfd"

    def make_share(self, *args: Any, **options: Any) -> Share[Any]:
        return Share(*args, kind="memfd", **options)

    def make_dict(self, *args: Any, **options: Any) -> SharedDict[Any, Any]:
        return SharedDict(*args, kind="memfd", **options)


class PrivateFile(Medium):
    """A file in a folder of its own, wherever there are files."""

    name = "file"

    def make_share(self, *args: Any, **options: Any) -> Share[Any]:
        return Share(*args, kind="file", **options)

    def make_dict(self, *args: Any, **options: Any) -> SharedDict[Any, Any]:
        return SharedDict(*args, kind="file", **options)


class OneProcess(Medium):
    """A value, or a dict, of this process under its own lock; see `in_process`."""

    name = "process"
    crosses_fork = crosses_spawn = is_memory = False

    def make_share(self, *args: Any, **options: Any) -> Share[Any]:
        made = Share(*args, **options)
        inside.move_to(made, in_process.Value(made.info().max_size))
        return made

    def make_dict(self, *args: Any, **options: Any) -> SharedDict[Any, Any]:
        made = SharedDict(*args, **options)
        inside.move_to(made, in_process.Keyed(made.info().max_size))
        return made


MEDIA: list[type[Medium]] = [Anonymous, PrivateFile, OneProcess]


def fitting(needs: set[str], slow: bool, media: list[type[Medium]] = MEDIA) -> list[type[Medium]]:
    """The media that promise all that; only the first of them for what is slow."""
    assert needs <= set(PROMISES), f"no medium promises {needs - set(PROMISES)}"
    found = [medium for medium in media if all(getattr(medium, promise) for promise in needs)]
    return found[:1] if slow else found
