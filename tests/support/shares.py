"""What is done to a share behind its back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from . import inside
from .children import in_child


def opened_again(share: Any) -> Any:
    """The same region as another process has it, in this one."""
    return adopted(type(share), os.dup(inside.segment_of(share).fd))


def adopted(cls: type, fd: int) -> Any:
    """A share or dict of the region that a descriptor leads to, which is its own from then on."""
    twin = cls.__new__(cls)
    inside.bind(twin, inside.Segment.adopt(fd))
    return twin


def forget(share: Any) -> None:
    """Let the next read look at the region, whatever this process has seen of it."""
    inside.commit_of.set(inside.region_of(share), inside.EMPTY_COMMIT)
    inside.seen_of.set(inside.region_of(share), inside.NOTHING_SEEN)


def interrupt_releases(share: Any, times: int) -> None:
    """Interrupt that many attempts to let go of the lock, each before it has done so."""
    lock = inside.lock_of(share)
    real, left = inside.flock_of(lock), iter(range(times))

    def flock(fd: int, operation: int) -> Any:
        if operation == inside.RELEASE:
            for _ in left:
                raise KeyboardInterrupt
        return real(fd, operation)

    inside.flock_of.set(lock, flock)


def is_free(share: Any) -> bool:
    """Whether nobody has the lock, in this process or any other."""
    return inside.token_of(share) is None and in_child(lambda: share.lock(timeout=0)) is None


@contextlib.contextmanager
def locked(share: Any) -> Iterator[Any]:
    """The lock of a share, for who publishes frames that are no value's."""
    share.lock()
    try:
        yield inside.region_of(share)
    finally:
        share.unlock()
