"""Holds against writers: overtaken at each bytecode, on either side, and killed at each.

What is held stays what it was, and is one version; what is stored is the old value or the new one.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from blobs import Blob
from holding_planted import PLANTED
from lean import Events
from support import Child, inside, kill_self, trap

from mmapshare import Share, SharedDict

SIZE = 20_000
LARGE_BYTES = 16 << 10
_NUMBERS = 250
"""Even, so that a version's number is odd where the version is."""


def blob(version: int) -> Blob:
    return Blob(bytearray([version % _NUMBERS]) * SIZE)


class OnShare:
    """What is done to a share whose value tells its version.

    ``beside``: how many versions somebody holds when a writer is killed.
    """

    beside = 2

    def version_of(self, found: Blob) -> int:
        """Of which version a value is, if it is all of one."""
        raw = bytes(found.raw)
        assert raw == raw[:1] * SIZE, f"torn: {sorted(set(raw))}"
        return raw[0]

    def make(self) -> Any:
        return Share(blob(1), max_size="1M")

    def commit(self, share: Any) -> None:
        share.set(blob(share.version + 1))

    def hold(self, share: Any) -> Blob:
        found = share.snapshot(copy=False)
        assert self.version_of(found.value) == found.version % _NUMBERS
        return found.value

    def newest(self, share: Any) -> int:
        return self.version_of(share.get())

    def commit_otherwise(self, share: Any) -> None:
        """A commit that changes more than others do."""
        self.commit(share)


class OnDrafts(OnShare):
    """The same by blocks that change some pages: three each time, another one at odd versions."""

    always, odd, stray = (100, 20_000, 59_999), 40_000, 90_000

    def make(self) -> Any:
        return Share(Blob(bytearray([1]) * 100_000), max_size="1M")

    def commit(self, share: Any, stray: int = 1) -> None:
        with share.locked() as view:
            raw, number = view.value.raw, (view.version + 1) % _NUMBERS
            raw[self.stray] = stray
            for at in (*self.always, *(self.odd,) * (number % 2)):
                raw[at] = number

    may_be_otherwise = 0

    def commit_otherwise(self, share: Any) -> None:
        self.commit(share, stray=77)

    def newest(self, share: Any) -> int:
        found = share.get()
        committed_otherwise = found.raw[self.stray] == 77
        assert not committed_otherwise or self.may_be_otherwise == share.version, "torn"
        return self.version_of(found)

    def version_of(self, found: Blob) -> int:
        number = found.raw[self.always[0]]
        assert {found.raw[at] for at in self.always} == {number}, "torn"
        assert found.raw[self.odd] == (number if number % 2 else (number - 1) % _NUMBERS), "torn"
        rest = bytearray(found.raw)
        rest[self.stray] = 1 if rest[self.stray] == 77 else rest[self.stray]
        for at in (*self.always, self.odd):
            rest[at] = 1
        assert rest == bytes([1]) * len(rest), "torn"
        return number


class OnDraftsAlone(OnDrafts):
    """The same where nobody holds anything, and the record before is written over."""

    beside = 0


class OnDict(OnShare):
    """The same to one key of a dict that has others, too."""

    def make(self) -> Any:
        return SharedDict({"a": blob(1), "b": "b", "n": 1}, max_size="1M")

    def commit(self, shared: Any) -> None:
        shared.update(a=blob(shared.version + 1), n=shared.version + 1)

    def hold(self, shared: Any) -> Blob:
        return shared.get("a", copy=False)

    def newest(self, shared: Any) -> int:
        found = shared.copy()
        assert self.version_of(found["a"]) == found["n"] % _NUMBERS and found["b"] == "b"
        return self.version_of(found["a"])


class OnCompacting(OnDict):
    """The same to a dict that writes everything anew each time."""

    def make(self) -> Any:
        inside.put("SPARE_BYTES", -(1 << 30))
        return super().make()


class OnPatches(OnDrafts):
    """The same as to drafts, to a key of a dict."""

    def make(self) -> Any:
        inside.put("SPARE_BYTES", 0)  # A few patches, then a snapshot.
        inside.put("SPENT_PART", 1)
        return SharedDict({"a": Blob(bytearray([1]) * 100_000), "n": 1}, max_size="1M")

    def commit(self, shared: Any, stray: int = 1) -> None:
        with shared.locked() as view:
            raw, number = view["a"].raw, (view.version + 1) % _NUMBERS
            raw[self.stray] = stray
            for at in (*self.always, *(self.odd,) * (number % 2)):
                raw[at] = number
            view["n"] = number

    def hold(self, shared: Any) -> Blob:
        return shared.get("a", copy=False)

    def newest(self, shared: Any) -> int:
        found = shared.copy()
        assert self.version_of(found["a"]) == found["n"], "torn"
        committed_otherwise = found["a"].raw[self.stray] == 77
        assert not committed_otherwise or self.may_be_otherwise == shared.version, "torn"
        return found["n"]


class OnPatchesAlone(OnPatches):
    """The same where nobody holds anything else."""

    beside = 0


class OnSnapshot(OnDict):
    """The same to a snapshot."""

    def hold(self, shared: Any) -> Blob:
        snapshot = shared.snapshot(copy=False)
        assert self.version_of(snapshot["a"]) == snapshot["n"] % _NUMBERS
        return snapshot["a"]


SUBJECTS: dict[str, Any] = {
    "share": OnShare(),
    "drafts": OnDrafts(),
    "drafts alone": OnDraftsAlone(),
    "dict": OnDict(),
    "compacting": OnCompacting(),
    "patches": OnPatches(),
    "patches alone": OnPatchesAlone(),
    "snapshot": OnSnapshot(),
}


def _begin(name: str, planted: str | None) -> tuple[Any, Any]:
    inside.put("LARGE_BYTES", LARGE_BYTES)
    inside.put("VALUE_KEEP_BYTES", 64 << 10)
    inside.put("LOG_KEEP_BYTES", 4096)
    subject = SUBJECTS[name]
    share = subject.make()
    if planted is not None:
        PLANTED[planted](share)
    return subject, share


def _writer(child: Child, subject: Any, share: Any) -> None:
    while (count := child.hear()) is not None:
        for _ in range(count):
            subject.commit(share)
        child.say()


def reader_overtaken(events: Events, name: str, commits: int, planted: str | None = None) -> int:
    """A reader, before each of whose bytecodes a writer commits so often."""
    subject, share = _begin(name, planted)
    writer = Child(_writer, subject, share)

    def commit(count: int) -> None:
        writer.say(count)
        writer.hear()

    for step in events(itertools.count(1)):
        hit: list[int] = []

        def spring() -> None:
            hit.append(1)
            commit(commits)

        with trap(step, spring):
            found = subject.hold(share)
        version = subject.version_of(found)
        for _ in range(4):
            commit(1)
            assert subject.version_of(found) == version, "a held value changed"
        del found
        if not hit:
            break
    writer.say(None)
    writer.result()
    return events.count


def _holder(child: Child, subject: Any, share: Any) -> None:
    real, stops = inside.hold, iter(())

    def slow(*args: Any) -> Any:
        for _ in stops:
            child.say()
            child.hear()
        return real(*args)

    inside.put("hold", slow)
    while child.hear():
        stops = iter((1,))
        found = subject.hold(share)
        version = subject.version_of(found)
        child.say()
        child.hear()
        assert subject.version_of(found) == version, "a held value changed"
        del found
        child.say()


def writer_overtaken(events: Events, name: str, planted: str | None = None) -> int:
    """A writer, before each of whose bytecodes somebody holds what he has seen long ago."""
    subject, share = _begin(name, planted)
    inside.put("VALUE_KEEP_BYTES", 1 << 20)  # To give memory back ends older versions, too.
    holder = Child(_holder, subject, share)

    def let_hold() -> None:
        holder.say()
        holder.hear()

    for step in events(itertools.count(1)):
        holder.say(True)
        holder.hear()  # It has read where the newest version is.
        subject.commit(share)
        hit: list[int] = []

        def spring() -> None:
            hit.append(1)
            let_hold()

        with trap(step, spring):
            subject.commit(share)
        if not hit:
            let_hold()
        for _ in range(3):
            subject.commit(share)
        holder.say()
        message = holder.hear()
        if message is not None:
            raise message[1]
        if not hit:
            break
    holder.say(False)
    holder.result()
    return events.count


def kills(events: Events, name: str, planted: str | None = None) -> Counter[str]:
    """A writer that is killed at each bytecode of a commit beside what others hold."""
    subject, share = _begin(name, planted)
    left = Counter[str]()
    for step in events(itertools.count(1)):
        kept: list[tuple[Blob, int]] = []
        for _ in range(subject.beside):
            found = subject.hold(share)
            kept.append((found, subject.version_of(found)))
            subject.commit(share)
        found = None
        for _ in range(2 - subject.beside):
            subject.commit(share)
        before = share.version
        killed = _killed_at(step, lambda: subject.commit_otherwise(share))
        subject.may_be_otherwise = before + 1 if share.version > before else 0
        assert subject.newest(share) == share.version % _NUMBERS, "torn"
        left[{before: "old", before + 1: "new"}[share.version]] += 1
        for _ in range(3):
            for held, version in kept:
                assert subject.version_of(held) == version, "a held value changed"
            subject.commit(share)
            assert subject.newest(share) == share.version % _NUMBERS
        kept.clear()
        held = None
        segment = inside.segment_of(share)
        assert not list(inside.all_held(segment.fd, 0, segment.size_bytes))
        if not killed:
            break
    return left


def soak(events: Events, seconds: float) -> Counter[str]:
    """Blocks, readers that hold what they have seen, and all of them killed at any time."""
    subject, share = _begin("drafts alone", None)
    done = Counter[str]()

    def write() -> None:
        while True:
            subject.commit(share)

    def read() -> None:
        rng = random.Random(os.getpid())
        while True:
            found = subject.hold(share)
            version = subject.version_of(found)
            time.sleep(0.02 * rng.random())
            assert subject.version_of(found) == version, "a held value changed"

    for _ in events(range(1)):
        rng, acts = events.rng(), [write, write, read, read, read]
        pids, end = [_forked(act) for act in acts], time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.1 * rng.random())
            number = rng.randrange(len(acts))
            _kill(pids[number])
            done["kills"] += 1
            pids[number] = _forked(acts[number])
        for pid in pids:
            _kill(pid)
        done["versions"] += share.version
        subject.commit(share)
        assert subject.newest(share) == share.version % _NUMBERS
        segment = inside.segment_of(share)
        assert not list(inside.all_held(segment.fd, 0, segment.size_bytes))
    return done


def _forked(act: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def _kill(pid: int) -> None:
    """Kill one that still runs: by itself none ends, but by a failure."""
    assert os.waitpid(pid, os.WNOHANG) == (0, 0), "a process failed; see what it printed"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _killed_at(step: int, act: Callable[[], object]) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            with trap(step, kill_self):
                act()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)
