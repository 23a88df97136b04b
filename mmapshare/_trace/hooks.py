"""The methods that stand in the place of the lock's and the stores' while something is recorded.

They are put into the classes for that time, and taken out again: while nothing is recorded there
is nothing of them. Each does what it stands for, and records it. An exception goes where it would
have gone; what it leaves undone is only in the record. Meanwhile Python's core works, as the
compiled one calls none of these.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from threading import get_ident
from time import monotonic_ns
from types import CodeType, FrameType
from typing import Any, Final

from .. import _cores
from .._lock import HOLDER, Lock, deadlock, is_ours, status
from .._store import base, format, region
from .._transaction import Conflict, ReadSet
from ..errors import DeadlockError, LockTimeout, VersionConflict
from . import servers
from .recorder import (
    CONFLICT,
    END_AT,
    FOUND_DEAD,
    GAVE_UP,
    HOLD,
    SLEEP,
    Recorder,
    pack_begin,
    pack_end,
)

_VERSION: Final = format.VERSION
_NO_WORDS: Final[Any] = [0] * (_VERSION + 1)
"""In the place of a header, where there is none."""
_SWAPPED: Final = (
    (Lock, "acquire"),
    (Lock, "acquire_async"),
    (Lock, "_steps"),
    (Lock, "release"),
    (Lock, "_let_go"),
    (Lock, "_report_dead"),
    (region.Region, "sleep"),
    (base.ValueStore, "check"),
    (base.KeyedStore, "check"),
    (ReadSet, "_look"),
)


class Known:
    """A lock that records are about.

    Attributes:
        number: the share's, in records; ``kind``: the word that ends the begin of a hold's record.
        words: the header's, where its version stands.
        code, at, site: the place in the program that took it last, and its number.
        begun: when its holder had begun to wait for it; 0 where it got it at once.
        page, place: where the end of its hold's record belongs; None where it is not held.
    """

    __slots__ = ("at", "begun", "code", "kind", "number", "page", "place", "site", "words")

    def __init__(self, number: int, words: Any) -> None:
        self.number = number
        self.kind = HOLD | number << 8
        self.words = words
        self.code: CodeType | None = None
        self.at = self.site = self.place = self.begun = 0
        self.page: Any = None


class Hooks:
    """What records a process's locks; put in by `begin`, taken out by `end`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._core = _cores.used
        self._made = self._make()
        self._real = {(owner, name): owner.__dict__[name] for owner, name in self._made}

    def begin(self) -> None:
        """From now on each lock's use is recorded; a hold that runs is not."""
        forget_all()
        self._core = _cores.used
        _cores.use("python")
        for (owner, name), made in self._made.items():
            setattr(owner, name, made)

    def end(self) -> None:
        """Have all as it was; a hold that runs stays without an end."""
        for (owner, name), real in self._real.items():
            setattr(owner, name, real)
        _cores.use(self._core)
        forget_all()

    def _introduce(self, lock: Any) -> Known:
        """A lock that is met for the first time."""
        address, words = None, _NO_WORDS
        for found in region.all_regions():
            if found.lock is lock:
                address, words = found.segment.address, found.words
        store = getattr(lock, "store", None)
        if store is not None:
            address, words = store.address, servers.Versions(store)
        share = deadlock.name_of(lock.region_id)
        said = {"share": share, "name": None if address is None else str(address)}
        known = lock.known = Known(self._recorder.number_of(("share", share), said), words)
        return known

    def _site(self, frame: FrameType) -> int:
        """The place in the program that called this package."""
        while is_ours(frame) and frame.f_back is not None:
            frame = frame.f_back
        file, line = frame.f_code.co_filename, frame.f_lineno
        said = {"file": file, "line": line, "function": frame.f_code.co_name}
        return self._recorder.number_of((file, line), said)

    def _hold(self, lock: Any, frame: FrameType) -> None:
        """Record that a lock was got."""
        known = lock.known or self._introduce(lock)
        found = self._recorder.take()
        if found is None:
            return
        page, place = found
        site = self._site(frame)
        if not is_ours(frame):
            known.code, known.at, known.site = frame.f_code, frame.f_lasti, site
        pack_begin(
            page.map, place,
            get_ident(), known.begun, lock.words[status.SINCE], site, known.words[_VERSION],
            known.kind,
        )  # fmt: skip
        known.place, known.page = place + END_AT, page

    def _once(
        self, kind: int, lock: Any, begun: int, before: int = 0, after: int = 0, got: int = 0
    ) -> None:
        """Record what is over by now."""
        known = lock.known or self._introduce(lock)
        found = self._recorder.take()
        if found is None:
            return
        page, place = found
        site, now = self._site(sys._getframe(2)), monotonic_ns()
        pack_end(page.map, place + END_AT, after, now)
        pack_begin(
            page.map, place,
            get_ident(), begun or now, got, site, before, kind | known.number << 8,
        )  # fmt: skip

    def _make(self) -> dict[Any, Any]:  # noqa: PLR0915  # What is hot has all at hand here.
        real = [owner.__dict__[name] for owner, name in _SWAPPED]
        acquire_, acquire_async_, steps_, *others = real
        release_, let_go_, report_, sleep_, *refusing = others
        recorder, record_hold, once = self._recorder, self._hold, self._once
        now, getframe, ident, pack = monotonic_ns, sys._getframe, get_ident, pack_begin
        version_at, since, most, after = _VERSION, status.SINCE, recorder.page_bytes, END_AT
        introduce = self._introduce

        def acquire(self: Any, token: Any, timeout_s: float | None) -> bool:
            if not acquire_(self, token, timeout_s):
                return False
            # As `_hold`, without a call: each block comes here, one call below the program.
            frame, known, page = getframe(2), self.known, recorder.page
            if (
                known is not None
                and known.code is frame.f_code
                and known.at == frame.f_lasti
                and page is not None
            ):
                place = page.take()
                if place < most:
                    pack(
                        page.map, place,
                        ident(), known.begun, self.words[since], known.site,
                        known.words[version_at], known.kind,
                    )  # fmt: skip
                    known.place, known.page = place + after, page
                    return True
            record_hold(self, frame)
            return True

        async def acquire_async(self: Any, token: Any, timeout_s: float | None) -> bool:
            got: bool = await acquire_async_(self, token, timeout_s)
            if got:
                record_hold(self, getframe(1))
            return got

        def steps(self: Any, token: Any, timeout_s: Any, backend: Any) -> Iterator[Any]:
            """Where the lock is not to be had at once."""
            begun = now()
            known = self.known or introduce(self)
            try:
                yield from steps_(self, token, timeout_s, backend)
                if self.thread_lock.get(0) is token:
                    known.begun = begun
            except (LockTimeout, DeadlockError):
                if timeout_s != 0:  # Else it was only asked whether it is free.
                    once(GAVE_UP, self, begun)
                raise

        def release(self: Any) -> None:
            known = self.known
            if known is None or known.page is None:
                release_(self)
                return
            page, place, version = known.page, known.place, known.words[version_at]
            known.page, known.begun = None, 0
            pack_end(page.map, place, version, now())  # First, so that no two seem to hold it.
            release_(self)

        def let_go(self: Any) -> None:
            known = self.known
            if known is None or known.page is None:
                let_go_(self)
                return
            page, place, version = known.page, known.place, 0
            known.page, known.begun = None, 0
            with contextlib.suppress(ValueError):  # It is closed, and goes as garbage.
                version = known.words[version_at]
            pack_end(page.map, place, version, now())
            let_go_(self)

        def report_dead(self: Any) -> None:
            pid = self.words[HOLDER]
            report_(self)
            once(FOUND_DEAD, self, 0, pid)

        def sleep(self: Any, version: int, until_ns: int, timeout_s: float) -> bool:
            begun = now()
            slept: bool = sleep_(self, version, until_ns, timeout_s)
            once(SLEEP, self.lock, begun, version, self.words[_VERSION])
            return slept

        def noting(refusing: Any) -> Any:
            """The same for what may find a conflict: of a store, or of what was read of one."""

            def look(self: Any, expected: Any) -> Any:
                try:
                    return refusing(self, expected)
                except (VersionConflict, Conflict):
                    once(CONFLICT, getattr(self, "_store", self).lock, 0)
                    raise

            return look

        made = (
            acquire, acquire_async, steps, release, let_go, report_dead, sleep,
            *map(noting, refusing),
        )  # fmt: skip
        return dict(zip(_SWAPPED, made, strict=True)) | servers.swapped(once, noting)


def forget_all() -> None:
    """No lock is known any more."""
    for lock in deadlock.all_locks():
        lock.known = None
