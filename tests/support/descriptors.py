"""This process's descriptors and mappings."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from .children import Child


def open_fds() -> dict[int, str]:
    """This process's descriptors and what they lead to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return found


def close_all(child: Child) -> None:
    """What python-daemon does; only this child's way to its parent stays."""
    sys.stdout = sys.stderr = sys.__stderr__  # pytest's files are gone too.
    for fd in open_fds():
        if fd > 2 and fd not in (child.reads, child.writes):
            with contextlib.suppress(OSError):
                os.close(fd)


@contextlib.contextmanager
def no_more_descriptors(free: int = 0) -> Iterator[None]:
    """This process may have so many more descriptors than it has."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(free + 1)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    for fd in fds:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(fds), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def region_mappings() -> list[str]:
    """The mappings of this process that belong to regions."""
    return [
        line for line in Path("/proc/self/maps").read_text().splitlines() if "mmapshare" in line
    ]
