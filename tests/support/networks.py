"""Other hosts, played by network namespaces: an address of one's own, and a link to be cut."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import ipaddress
import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from typing import Any, Final, Self

from . import inside
from .children import Child

WHY_NOT: Final = "no network namespaces can be made here"
_NEW_NETWORK: Final = 0x4000_0000
_NET: Final = ipaddress.ip_network("198.18.0.0/15")
"""Kept for tests of networks: nobody else's."""
_PAIRS: Final = 1 << 15
_numbers = itertools.count()


@functools.cache
def why_not() -> str:
    """Why there are none here; empty where there are."""
    if shutil.which("ip") is None or not hasattr(os, "fork"):
        return WHY_NOT
    try:
        with Host():
            return ""
    except (OSError, subprocess.CalledProcessError):
        return WHY_NOT


class Host:
    """A host with one link, which leads here; it is gone when it is closed.

    Attributes:
        here: the address of this end of the link: by that the host finds what listens here.
    """

    def __init__(self) -> None:
        number = next(_numbers)
        pair = 4 * ((64 * os.getpid() + number) % _PAIRS)
        self.here, self._there = str(_NET[pair + 1]), str(_NET[pair + 2])
        self._link = f"mm{os.getpid()}-{number}"
        self._keeper = Child(_keep, self._there)
        try:
            refused = self._keeper.hear()
            if refused:
                raise refused
            end = ("name", "uplink", "netns", str(self._keeper.pid))
            _ip("link", "add", self._link, "type", "veth", "peer", *end)
            _ip("addr", "add", f"{self.here}/30", "dev", self._link)
            self._keeper.say()
            self._keeper.hear()
            self.join()
        except BaseException:
            self.close()
            raise

    def cut_off(self) -> None:
        """Nothing comes through any more, and nobody is told."""
        _ip("link", "set", self._link, "down")

    def join(self) -> None:
        """Everything comes through, as soon as this returns."""
        _ip("link", "set", self._link, "up")
        while True:
            with contextlib.suppress(OSError):
                try:
                    socket.create_connection((self._there, 1), timeout=0.05).close()
                except ConnectionRefusedError:  # By the host itself: nothing listens there.
                    return

    def start(self, func: Callable[..., Any], *args: Any) -> Child:
        """A child on that host; see `Child`. It outlives its host, as if that were cut off."""
        return Child(_on, self._keeper.pid, func, *args)

    def close(self) -> None:
        self._keeper.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def _keep(child: Child, address: str) -> None:
    """Be what a network namespace stands and falls with."""
    try:
        _call("unshare", _NEW_NETWORK)
    except OSError as err:
        child.say(err)
        return
    child.say()
    child.hear()
    _ip("addr", "add", f"{address}/30", "dev", "uplink")
    _ip("link", "set", "uplink", "up")
    child.say()
    child.hear()


def _on(child: Child, keeper: int, func: Callable[..., Any], *args: Any) -> Any:
    fd = os.open(f"/proc/{keeper}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _call("setns", fd, _NEW_NETWORK)
    os.close(fd)
    inside.put("boot_of_holder", lambda: f"boot of host {keeper}")  # Each has its own.
    inside.open_here.clear()
    return func(child, *args)


def _call(name: str, *args: int) -> None:
    """A call of libc's that Python has from 3.12 on."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*args):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
