"""The media on which the contract of shares and dicts is tested: `tests/public` runs on each.

Another one is a class here and a line in `MEDIA`. What it does not promise, it says; a test that
needs a promise asks for it with ``@pytest.mark.needs("crosses_fork")`` and is not run without.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

from mmapshare import Share, SharedDict, list_shares

from . import in_process, inside, redis_server

PROMISES = (
    "crosses_fork",
    "crosses_spawn",
    "reads_wait_for_nobody",
    "free_at_once_after_kill",
    "is_memory",
    "sleeps_to_wait",
)


class Medium:
    """Makes shares and dicts in one kind of place, and closes them when the test is over."""

    name: str

    @property
    def kind(self) -> str:
        """What `info` says."""
        return self.name

    crosses_fork = True
    """Forked children have what was made before."""
    crosses_spawn = True
    """A handle leads there from any process of this user's."""
    reads_wait_for_nobody = True
    """Not for a holder of the lock, dead or alive."""
    free_at_once_after_kill = True
    """The lock of a holder that was killed is the next one's without any wait."""

    sleeps_to_wait = True
    """Who sleeps, waits for another: not for an answer to what it has asked."""

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


class Named(Medium):
    """A name among the processes of this user."""

    name = "name"

    def make_share(self, *args: Any, **options: Any) -> Share[Any]:
        return Share.open(_new_name(), *args, create=True, **options)

    def make_dict(self, *args: Any, **options: Any) -> SharedDict[Any, Any]:
        return SharedDict.open(_new_name(), _items(args, options), create=True, **options)

    def close(self) -> None:
        super().close()
        unlink_all()


class Durable(Medium):
    """A file whose commits outlive a power cut."""

    name = "durable"
    kind = "path"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        inside.put("is_memory", lambda fd: False)  # The folder of temporary files may be.
        self._folder = tempfile.TemporaryDirectory()

    def make_share(self, *args: Any, **options: Any) -> Share[Any]:
        return Share.open(self._new(), *args, create=True, durable=True, **options)

    def make_dict(self, *args: Any, **options: Any) -> SharedDict[Any, Any]:
        return SharedDict.open(
            self._new(), _items(args, options), create=True, durable=True, **options
        )

    def _new(self) -> Path:
        return Path(self._folder.name, f"test-{next(_numbers)}")

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


class Redis(Medium):
    """A hash on a server, over a socket of this machine."""

    name = "redis"
    is_memory = sleeps_to_wait = False

    def make_share(self, *args: Any, **options: Any) -> Share[Any]:
        return Share.open(self._new(), *args, create=True, **options)

    def make_dict(self, *args: Any, **options: Any) -> SharedDict[Any, Any]:
        return SharedDict.open(self._new(), _items(args, options), create=True, **options)

    def _new(self) -> str:
        return f"{redis_server.of_tests().socket_url}/{_new_name()}"

    def close(self) -> None:
        super().close()
        redis_server.of_tests().command("FLUSHALL")


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


_OPTIONS = {"max_size", "timeout"}


def _items(args: Any, options: dict[str, Any]) -> dict[Any, Any]:
    """What `SharedDict` would begin with; what is left are options of `SharedDict.open`."""
    return dict(*args, **{key: options.pop(key) for key in [*options] if key not in _OPTIONS})


_numbers = itertools.count()


def _new_name() -> str:
    return f"test-{os.getpid()}-{next(_numbers)}"


def unlink_all() -> None:
    """Take away the names that are left, of shares and dicts that may be closed."""
    for listed in list_shares():
        kind: Any = {"Share": Share, "SharedDict": SharedDict}[listed.kind]
        kind.open(listed.name).unlink()


MEDIA: list[type[Medium]] = [Anonymous, PrivateFile, Named, Durable, OneProcess, Redis]
WITH_PLANTED: set[type[Medium]] = {Named, Durable}
"""Those on which the contract runs with ``--planted`` only: a disk takes its time."""


def fitting(needs: set[str], slow: bool, media: list[type[Medium]] = MEDIA) -> list[type[Medium]]:
    """The media that promise all that; only the first of them for what is slow."""
    assert needs <= set(PROMISES), f"no medium promises {needs - set(PROMISES)}"
    found = [medium for medium in media if all(getattr(medium, promise) for promise in needs)]
    return found[:1] if slow else found
