"""Who holds a lock, as the server keeps it, and whether that one is gone.

A process beside us is known by its number, its start time, its pid namespace and the machine's
boot: nobody else ever has the same. What is on another machine is gone when the server has its
connection no more, which it notices at once if the process was killed.
"""

from __future__ import annotations

import functools
import os
import socket
from typing import Final

import attrs

from ... import _proc

_SEPARATOR: Final = b"\0"
_BOOT: Final = "sys/kernel/random/boot_id"


@attrs.frozen
class Holder:
    """A process that holds a lock: where, and which one."""

    host: str
    pid: int
    boot: str
    namespace: int
    started: int

    def packed(self) -> bytes:
        """As it stands in the hash."""
        facts = (self.host, self.pid, self.boot, self.namespace, self.started)
        return _SEPARATOR.join(str(fact).encode("utf-8", "replace") for fact in facts)

    @classmethod
    def unpacked(cls, raw: bytes) -> Holder:
        """That again; some process of nowhere where it says nothing of the kind."""
        try:
            host, pid, boot, namespace, started = raw.decode("utf-8", "replace").split("\0")
            return cls(host, int(pid), boot, int(namespace), int(started))
        except ValueError:
            return cls("", 0, "", 0, 0)

    def is_beside_us(self) -> bool:
        """Whether it can be looked at from here."""
        return bool(self.boot) and (self.boot, self.namespace) == (_boot(), _proc.own_namespace())

    def has_ended(self) -> bool:
        """Of one beside us: whether it runs no more."""
        started = _proc.start_of(self.pid)
        if started is None:  # Killed, and nobody has waited for it yet; or /proc is not there.
            return _proc.start_of(os.getpid()) is not None
        return started != self.started

    def watch(self) -> int:
        """A descriptor that can be read from once it has ended; -1 where there is none."""
        if not self.is_beside_us() or not hasattr(os, "pidfd_open"):
            return -1
        try:
            return os.pidfd_open(self.pid)
        except OSError:
            return -1

    def __str__(self) -> str:
        return f"pid {self.pid}" if self.is_beside_us() else f"pid {self.pid} on {self.host}"


def this_process() -> Holder:
    """The one that asks."""
    pid = os.getpid()
    started = _proc.start_of(pid) or 0
    return Holder(socket.gethostname(), pid, _boot(), _proc.own_namespace(), started)


@functools.cache
def _boot() -> str:
    """The id of this machine's boot; empty where that is not to be told."""
    try:
        with open(f"{_proc.PROC}/{_BOOT}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
