"""Histories of four processes on one share, killed and replaced on the way, are linearizable.

Each process writes down on a tape of its own what it is about to do and when, and then what it was
told and when. The tape outlives a killed process, whose last operation is then known to have
happened before the process was gone, or not at all. The clock is one for all processes.

The programs and the kills come from the seed, how the processes meet is chance: ``--event``
repeats a history many times.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from disturbed import disturbed
from lean import Events
from linearizable import Operation
from linearizable import check as check_linearizable
from planted import SELDOM, sometimes_no_lock
from subjects import REMOTE_SUBJECTS, SUBJECTS, Subject, spread
from support import inside

from mmapshare import StoreUnreachableError

PROCESSES = 4
AGAIN = 50
"""How often a history that failed is repeated."""

# A record of a tape, in words. The stamps are stored last: each seals what stands before it.
ACT, GIVEN, OUTCOME, COUNTS, INVOKED, RETURNED, RECORD = 0, 1, 5, 12, 13, 14, 16
UNKNOWN = 0xFF
"""In the place of how much one was told: whether the operation has happened is not known."""


def check(
    events: Events, name: str, count: int, length: int, planted: str | None = None
) -> Counter[str]:
    """So many histories of so many operations; what they were like."""
    if planted is not None:
        PLANTED[planted]()
    subject, met = (SUBJECTS | REMOTE_SUBJECTS)[name], Counter[str]()
    for _ in events(range(count)):
        for _ in range(1 if events.only is None else AGAIN):
            met += _checked(subject, events.rng(), length)
    return met


def check_disturbed(
    events: Events, name: str, count: int, length: int, planted: str | None = None
) -> Counter[str]:
    """The same on servers that are killed, and started again, and whose answers are late."""
    if planted is not None:
        PLANTED[planted]()
    met = Counter[str]()
    for _ in events(range(count)):
        rng = events.rng()
        with disturbed(rng) as restart:
            met += _checked(REMOTE_SUBJECTS[name], rng, length, restart)
    return met


def _checked(
    subject: Subject, rng: random.Random, length: int, restart: Callable[[], None] | None = None
) -> Counter[str]:
    spread(rng.choice([1, 30, 1000]))
    shared, initial = subject.make(rng)
    begin = monotonic_ns()
    run = _History(subject, shared, rng, length // PROCESSES, restart)
    history = run.recorded()
    made = monotonic_ns()
    check_linearizable(history, initial, subject.specified)
    shared.close()
    return Counter(
        operations=len(history),
        overlapping=_overlapping(history),
        killed=len(run.gone_ns),
        unknown=sum(each.outcome is None for each in history) - len(run.gone_ns),
        ns_made=made - begin,
        ns_checked=monotonic_ns() - made,
    )


def _overlapping(history: list[Operation]) -> int:
    """How many operations began while another ran."""
    latest = count = 0
    for each in sorted(history, key=lambda each: each.invoked_ns):
        count += each.invoked_ns < latest
        latest = max(latest, each.returned_ns)
    return count


class _History:
    """Four processes, and whoever takes the place of one that is killed."""

    def __init__(
        self,
        subject: Subject,
        shared: Any,
        rng: random.Random,
        each: int,
        restart: Callable[[], None] | None,
    ) -> None:
        self.subject, self.shared, self.rng, self.each = subject, shared, rng, each
        self.restart = restart
        self.names = list(subject.acts)
        self.bytes = each * RECORD * 8
        self.memory = mmap.mmap(-1, PROCESSES * self.bytes)
        self.gone_ns: dict[tuple[int, int], int] = {}
        self.pids: dict[int, int] = {}

    def recorded(self) -> list[Operation]:
        """All operations, when the last process has ended."""
        with memoryview(self.memory).cast("q") as words:
            self.words = words
            try:
                self._start()
                for _ in range(self.subject.kills):
                    time.sleep(self.rng.uniform(0, 1e-3))
                    if len(self.pids) > 1:
                        self._kill(self.rng.choice(list(self.pids)))
                    if self.restart is not None and self.rng.random() < 1 / 2:
                        time.sleep(self.rng.uniform(0, 0.1))
                        self.restart()
                for place in list(self.pids):
                    self._reap(place)
                found = self._operations()
            finally:
                for pid in self.pids.values():
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        self.memory.close()
        return found

    def _start(self) -> None:
        # They begin together, when the pipe is closed.
        wait, go = os.pipe()
        for place in range(PROCESSES):
            self._fork(place, lambda: (os.close(go), os.read(wait, 1)))
        os.close(go)
        os.close(wait)

    def _fork(self, place: int, begin: Callable[[], Any]) -> None:
        seed = self.rng.random()
        pid = os.fork()
        if pid:
            self.pids[place] = pid
            return
        code = 1
        try:
            begin()
            self._work(place, random.Random(seed))
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def _kill(self, place: int) -> None:
        os.kill(self.pids[place], signal.SIGKILL)
        if self._reap(place):
            self._fork(place, int)

    def _reap(self, place: int) -> bool:
        """Wait for a process; whether it was killed."""
        _, status = os.waitpid(self.pids.pop(place), 0)
        gone_ns = monotonic_ns()
        if os.WIFSIGNALED(status):
            at = self._next(place)
            if at and not self.words[self._at(place, at - 1) + RETURNED]:
                self.gone_ns[place, at - 1] = gone_ns + self.subject.lingers_ns
            return True
        assert status == 0, "a process failed, as it says above"
        return False

    def _at(self, place: int, index: int) -> int:
        return (place * self.each + index) * RECORD

    def _next(self, place: int) -> int:
        """The first record where nothing was invoked yet."""
        index = 0
        while index < self.each and self.words[self._at(place, index) + INVOKED]:
            index += 1
        return index

    def _work(self, place: int, rng: random.Random) -> None:
        words, shared, names = self.words, self.shared, self.names
        acts = list(self.subject.acts.values())
        for index in range(self._next(place), self.each):
            at, act = self._at(place, index), rng.randrange(len(names))
            n = 2 * (place * self.each + index + 1)
            given = _told(self.subject.drawn, shared, names[act], rng, n)
            words[at + ACT] = act
            for word, argument in enumerate(given, at + GIVEN):
                words[word] = argument
            words[at + COUNTS] = len(given)
            words[at + INVOKED] = monotonic_ns()
            try:
                outcome = acts[act](shared, *given)
                count = len(outcome)
            except StoreUnreachableError:
                outcome, count = (), UNKNOWN
                # What was sent to it before has happened by then, or never will.
                _told(getattr, shared, "version")
            returned = monotonic_ns()
            for word, told in enumerate(outcome, at + OUTCOME):
                words[word] = told
            words[at + COUNTS] = len(given) | count << 8
            words[at + RETURNED] = returned

    def _operations(self) -> list[Operation]:
        return [
            self._operation(place, index)
            for place in range(PROCESSES)
            for index in range(self._next(place))
        ]

    def _operation(self, place: int, index: int) -> Operation:
        at = self._at(place, index)
        record = self.words[at : at + RECORD].tolist()
        given, told = record[COUNTS] & 0xFF, record[COUNTS] >> 8
        returned_ns = record[RETURNED]
        is_known = returned_ns and told != UNKNOWN
        return Operation(
            place,
            (self.names[record[ACT]], *record[GIVEN : GIVEN + given]),
            tuple(record[OUTCOME : OUTCOME + told]) if is_known else None,
            record[INVOKED],
            returned_ns or self.gone_ns[place, index],
        )


def _told(ask: Callable[..., Any], *arguments: Any) -> Any:
    """What one is told, as soon as the server answers."""
    while True:
        with contextlib.suppress(StoreUnreachableError):
            return ask(*arguments)


# --- Planted bugs ----------------------------------------------------------------------------

OFTEN = 0.3


def _stale_read() -> None:
    """Now and then a reader takes what it saw last for the newest."""
    real = inside.region_read

    def broken(store: Any) -> Any:
        stale = inside.commit_of(store)[inside.VALUE_V] and random.random() < OFTEN
        return inside.commit_of(store) if stale else real(store)

    inside.put("region_read", broken)


def _stale_index() -> None:
    """The same of a dict."""
    real = inside.index_refresh

    def broken(store: Any) -> Any:
        stale = store.state.version and not store.state.changing and random.random() < OFTEN
        return store.state if stale and not store.lock.holds_own() else real(store)

    inside.put("index_refresh", broken)


def _any_version() -> None:
    """Now and then a compare-and-set compares nothing."""
    real = inside.value_check

    def broken(store: Any, expect: int) -> None:
        if random.random() > SELDOM:
            real(store, expect)

    inside.put("value_check", broken)


def _unseen_change() -> None:
    """A transaction without the lock does not look again whether what it read still stands."""
    inside.put("read_set_is_valid_at", lambda places, state: True)


def _made_twice() -> None:
    """A server takes what is sent to it once more for another commit."""
    real = inside.wire_run

    def broken(wire: Any, script: Any, *arguments: Any) -> Any:
        source = script.source.replace(b"if made then", b"if false then")
        return real(wire, type(script)(source.decode()), *arguments)

    inside.put("wire_run", broken)


PLANTED = {
    "no lock": sometimes_no_lock,
    "stale read": _stale_read,
    "stale index": _stale_index,
    "any version": _any_version,
    "unseen change": _unseen_change,
    "made twice": _made_twice,
}
