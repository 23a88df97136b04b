"""Peers with a bug, for `test_peers`: what the table is to show."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.peers.standard import Bare


class Losing(Bare):
    """Each tenth update of a process is lost."""

    _added = 0

    def add_one(self) -> None:
        self._added += 1
        if self._added % 10:
            super().add_one()


class Hanging(Bare):
    """Each process that attached waits for a lock that nobody frees."""

    _is_attached = False

    @classmethod
    def attach(cls, address: Any) -> Hanging:
        self = super().attach(address)
        self._is_attached = True
        return self

    def add_one(self) -> None:
        while self._is_attached:
            self._lock.acquire()
        super().add_one()


class Failing(Bare):
    def add_one(self) -> None:
        raise ValueError("an error of its own")
