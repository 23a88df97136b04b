"""The methods that record what happens to shares on a server, beside those of `hooks`.

A lock that is taken there is recorded as any lock. What is committed in one step, which takes no
lock of its own, is recorded as a hold for as long as the server was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import Any

from .._late import importing
from ..errors import VersionConflict
from .recorder import CONFLICT, FOUND_DEAD, HOLD, SLEEP


def swapped(once: Callable[..., None], noting: Callable[[Any], Any]) -> dict[tuple[Any, str], Any]:
    """By where they belong. ``once`` and ``noting``: of `Hooks`."""
    with importing:
        from .._store.redis import keyed, lease, remote, value

    sleeping_ = remote.RemoteStore.sleeping

    def sleeping(self: Any, version: int, timeout_s: float, backend: Any) -> Iterator[Any]:
        begun = monotonic_ns()
        yield from sleeping_(self, version, timeout_s, backend)
        once(SLEEP, self.lock, begun, version, self.seen_version)

    report_dead_ = lease.Lease._report_dead

    def report_dead(self: Any, holder: Any) -> None:
        report_dead_(self, holder)
        once(FOUND_DEAD, self._store.lock, 0, holder.pid)

    def at_once(put_: Any) -> Any:
        def put(self: Any, changes: Any, expect: Any) -> int | None:
            begun, seen = monotonic_ns(), self.seen_version
            try:
                version: int | None = put_(self, changes, expect)
            except VersionConflict:
                once(CONFLICT, self.lock, 0)
                raise
            if version is not None:
                # A key whose value is there already is not stored again.
                before = version - 1 if version > seen else version
                once(HOLD, self.lock, begun, before, version, begun)
            return version

        return put

    values, keys = value.RemoteValueStore, keyed.RemoteKeyedStore
    return {
        (remote.RemoteStore, "sleeping"): sleeping,
        (lease.Lease, "_report_dead"): report_dead,
        (values, "_put_at_once"): at_once(values._put_at_once),
        (keys, "_put_at_once"): at_once(keys._put_at_once),
        (values, "check"): noting(values.check),
    }


class Versions:
    """In the place of a header's words: the version that a lock's holder has read, or made."""

    __slots__ = ("_store",)

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getitem__(self, word: int) -> int:
        try:
            version: int = self._store.base_version
            return version
        except ReferenceError:  # It goes as garbage.
            return 0
