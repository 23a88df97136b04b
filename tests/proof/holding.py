"""Holds against writers: overtaken at each bytecode, on either side, and killed at each.

What is held stays what it was, and is one version; what is stored is the old value or the new one.
"""

from __future__ import annotations

import itertools
import os
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

from lean import Events
from support import Child, inside, kill_self, trap
from support.inside import OLDEST_READABLE

from mmapshare import Share, SharedDict

SIZE = 20_000
LARGE_BYTES = 16 << 10
_NUMBERS = 251


class Blob:
    """Some bytes that travel out of band."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Blob, (pickle.PickleBuffer(self.raw),)


def blob(version: int) -> Blob:
    return Blob(bytearray([version % _NUMBERS]) * SIZE)


def version_of(found: Blob) -> int:
    """Of which version a value is, if it is all of one."""
    raw = bytes(found.raw)
    assert raw == raw[:1] * SIZE, f"torn: {sorted(set(raw))}"
    return raw[0]


class OnShare:
    """What is done to a share whose value tells its version."""

    def make(self) -> Any:
        return Share(blob(1), max_size="1M")

    def commit(self, share: Any) -> None:
        share.set(blob(share.version + 1))

    def hold(self, share: Any) -> Blob:
        found = share.snapshot(copy=False)
        assert version_of(found.value) == found.version % _NUMBERS
        return found.value

    def newest(self, share: Any) -> int:
        return version_of(share.get())


class OnDict:
    """The same to one key of a dict that has others, too."""

    def make(self) -> Any:
        return SharedDict({"a": blob(1), "b": "b", "n": 1}, max_size="1M")

    def commit(self, shared: Any) -> None:
        shared.update(a=blob(shared.version + 1), n=shared.version + 1)

    def hold(self, shared: Any) -> Blob:
        return shared.get("a", copy=False)

    def newest(self, shared: Any) -> int:
        found = shared.copy()
        assert version_of(found["a"]) == found["n"] % _NUMBERS and found["b"] == "b"
        return version_of(found["a"])


class OnCompacting(OnDict):
    """The same to a dict that writes everything anew each time."""

    def make(self) -> Any:
        inside.put("SPARE_BYTES", -(1 << 30))
        return super().make()


class OnSnapshot(OnDict):
    """The same to a snapshot."""

    def hold(self, shared: Any) -> Blob:
        snapshot = shared.snapshot(copy=False)
        assert version_of(snapshot["a"]) == snapshot["n"] % _NUMBERS
        return snapshot["a"]


SUBJECTS: dict[str, Any] = {
    "share": OnShare(),
    "dict": OnDict(),
    "compacting": OnCompacting(),
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
        version = version_of(found)
        for _ in range(4):
            commit(1)
            assert version_of(found) == version, "a held value changed"
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
        version = version_of(found)
        child.say()
        child.hear()
        assert version_of(found) == version, "a held value changed"
        del found
        child.say()


def writer_overtaken(events: Events, name: str, planted: str | None = None) -> int:
    """A writer, before each of whose bytecodes somebody holds what he has seen long ago."""
    subject, share = _begin(name, planted)
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
        for _ in range(2):
            found = subject.hold(share)
            kept.append((found, version_of(found)))
            subject.commit(share)
        del found
        before = share.version
        killed = _killed_at(step, lambda: subject.commit(share))
        assert subject.newest(share) == share.version % _NUMBERS, "torn"
        left[{before: "old", before + 1: "new"}[share.version]] += 1
        for _ in range(3):
            for held, version in kept:
                assert version_of(held) == version, "a held value changed"
            subject.commit(share)
            assert subject.newest(share) == share.version % _NUMBERS
        kept.clear()
        del held
        segment = inside.segment_of(share)
        assert not list(inside.all_held(segment.fd, 0, segment.size_bytes))
        if not killed:
            break
    return left


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


# --- Planted bugs ------------------------------------------------------------------------------


class _OldestUnseen:
    """The header's words, as one sees them who does not ask what is still readable."""

    def __init__(self, words: Any) -> None:
        self._words = words

    def __getitem__(self, word: Any) -> Any:
        return 0 if word == OLDEST_READABLE else self._words[word]

    def __setitem__(self, word: Any, value: Any) -> None:
        self._words[word] = value


def _no_second_look(share: Any) -> None:
    """Whoever holds something does not ask whether it still stands."""
    store = inside.store_of(share)
    inside.words_of.set(store, _OldestUnseen(inside.words_of(store)))


def _holds_not_asked_for(share: Any) -> None:
    """Writers take any place."""
    inside.put("held", lambda fd, start, end: None)


def _asked_too_early(share: Any) -> None:
    """A writer asks for holds before it has raised OLDEST_READABLE."""
    real, words = inside.held, inside.region_words_of(inside.store_of(share).region)
    last = [words[OLDEST_READABLE]]

    def late(fd: int, start: int, end: int) -> Any:
        raised, words[OLDEST_READABLE] = words[OLDEST_READABLE], last[0]
        found = real(fd, start, end)
        _step_of_its_own()
        words[OLDEST_READABLE] = last[0] = raised
        return found

    inside.put("held", late)


def _step_of_its_own() -> None:
    """Something may come between, at a bytecode of the package."""
    inside.align(1)


def _newest_not_spared(share: Any) -> None:
    """A place is free though the newest version lies there."""
    real = inside.free_place

    def free_place(areas: Any, size: int, newest: int, begin: int, end: int, *more: int) -> Any:
        other = inside.start_of_area(areas, 1 - inside.number_of_area(areas, begin))
        return real(areas, size, newest, other, other, *more)

    inside.put("free_place", free_place)


PLANTED: dict[str, Callable[[Any], None]] = {
    "no second look": _no_second_look,
    "holds not asked for": _holds_not_asked_for,
    "asked too early": _asked_too_early,
    "newest not spared": _newest_not_spared,
}
