"""Power cuts: which version a durable file has, whatever part of the writes has reached the disk.

A scene is done with an eye on the file's memory: what it is after each bytecode, and when the disk
was waited for. At the moment of a power cut the disk has of each sector of 512 bytes what it had at
the last barrier, or anything that the sector has been since. Of these images all are looked at
where there are few, else so many at random. The version that is found in one must be one that was
whole, and none older than what somebody has seen at that moment.
"""

from __future__ import annotations

import itertools
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
from lean import Events
from support import PACKAGE, inside

from mmapshare import CorruptRegionError, Share, SharedDict

SECTOR = 512
ALL_UP_TO = 2**11
AT_RANDOM, SAMPLED = 2000, 200
_SEEN = struct.Struct("<Q")


@attrs.define
class Span:
    """What was written from one barrier to the next: the memory at its begin, and ever since."""

    states: list[bytes]


class Watch:
    """The memory of a durable share's file, as far as a scene writes to it."""

    def __init__(self, share: Any, most: int) -> None:
        self.region = inside.store_of(share).region
        areas = self.region.areas
        self.places = [0, areas.start(0), areas.start(1)]
        self.sizes = [4096, most, most]
        self.spans: list[Span] = []
        self.whole: dict[int, set[bytes]] = {}
        """The contents that each version has had, by its number."""

    def look(self) -> bytes:
        pieces = zip(self.places, self.sizes, strict=True)
        return b"".join(self.region.map[at : at + size] for at, size in pieces)

    def note(self) -> None:
        """One more state, if anything has changed."""
        state, states = self.look(), self.spans[-1].states
        if state == states[-1]:
            return
        for slot in inside.SLOTS:  # The kernel may write a page while it is changed.
            if state[slot.start : slot.start + 64] != states[-1][slot.start : slot.start + 64]:
                before = states[-1]
                for at in range(slot.start + 8, slot.start + 64, 8):
                    states.append(before[: slot.start] + state[slot.start : at] + before[at:])
        states.append(state)
        self._note_content(state)

    def _note_content(self, state: bytes) -> None:
        for slot in inside.SLOTS:
            raw = state[slot.start : slot.start + 64]
            head = raw[:48]
            (version,) = _SEEN.unpack_from(raw)
            if version and inside.checked_slot(head, int.from_bytes(raw[48:56], "little")) == raw:
                content = self.content(
                    self.reader(state), inside.unpack_slot(head, version, self.area)
                )
                self.whole.setdefault(version, set()).add(content)

    @property
    def area(self) -> int:
        return int(self.region.identity.area_bytes)

    def content(self, read: Any, head: Any) -> bytes:
        begin = head.start
        if self.region.identity.kind:
            begin = self.places[1 + (begin >= self.places[2])]
        return bytes(read(begin, head.end))

    def reader(self, state: bytes) -> Callable[[int, int], bytes]:
        def read(begin: int, end: int) -> bytes:
            for at, size, place in zip(self.places, self.sizes, self._offsets(), strict=True):
                if at <= begin and end <= at + size:
                    return state[place + begin - at : place + end - at]
            raise AssertionError(f"nobody looks at {begin} to {end}: let the scene take less")

        return read

    def _offsets(self) -> Iterator[int]:
        return itertools.accumulate(self.sizes[:-1], initial=0)

    def run(self, act: Callable[[], object]) -> None:
        """Do that, and note all that becomes of the memory."""
        self.spans = [Span([self.look()])]
        self._note_content(self.spans[0].states[0])
        real = os.fdatasync, os.fsync

        def barrier(fd: int) -> None:  # What a disk does is told here.
            self.note()
            self.spans.append(Span([self.spans[-1].states[-1]]))

        os.fdatasync = os.fsync = barrier  # type: ignore[assignment]
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            act()
        finally:
            sys.settrace(before)
            os.fdatasync, os.fsync = real
        self.note()

    def _trace(self, frame: Any, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.note()
        return self._trace

    def images(self, rng: Any, most: int) -> Iterator[tuple[bytes, int]]:
        """What the disk may have, and the version that somebody has seen by then."""
        for span in self.spans:
            seen = [_SEEN.unpack_from(state, 8 * inside.VERSION)[0] for state in span.states]
            for last in range(len(span.states)):
                if last + 1 == len(span.states) or seen[last] != seen[last + 1]:
                    for image in _images(span.states[: last + 1], rng, most):
                        yield image, seen[last]

    def check(self, image: bytes, seen: int) -> None:
        read = self.reader(image)
        try:
            head = inside.newest_sound(read, self.region.identity, True)
        except CorruptRegionError as err:
            raise AssertionError(f"after version {seen}: {err}") from err
        version = head.version if head else 0
        assert version >= seen, f"version {version} after {seen} was seen"
        if head is not None:
            assert self.content(read, head) in self.whole[version], f"version {version} is torn"


def _images(states: list[bytes], rng: Any, most: int) -> Iterator[bytes]:
    first = states[0]
    sectors = []
    for at in range(0, len(first), SECTOR):
        found = list(dict.fromkeys(state[at : at + SECTOR] for state in states))
        if len(found) > 1:
            sectors.append((at, found))
    number = 1
    for _, found in sectors:
        number *= len(found)

    def image(chosen: Any) -> bytes:
        raw = bytearray(first)
        for (at, _), piece in zip(sectors, chosen, strict=True):
            raw[at : at + SECTOR] = piece
        return bytes(raw)

    options = [found for _, found in sectors]
    if number <= min(ALL_UP_TO, most):
        yield from map(image, itertools.product(*options))
    else:
        for _ in range(most):
            yield image([rng.choice(found) for found in options])


# --- Scenes ------------------------------------------------------------------------------------


def _share(value: Any, most: int = 8192) -> tuple[Any, Watch]:
    share: Any = Share.open(_new(), value, durable=True, max_size="1M")
    return share, Watch(share, most)


def _dict(items: Any, most: int = 16384) -> tuple[Any, Watch]:
    shared: Any = SharedDict.open(_new(), items, durable=True, max_size="1M")
    return shared, Watch(shared, most)


_folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
_numbers = itertools.count()


def _new() -> Path:
    return Path(_folder.name, str(next(_numbers)))


def _block(share: Any) -> None:
    with share.locked() as view:
        view["n"] += 1


def _sets(share: Any) -> None:
    for size in (10, 600, 3):
        share.set(os.urandom(size))


def _cut_short(share: Any) -> None:
    """A writer that is killed anywhere, and one that comes after it."""
    for step in range(20, 1500, 97):
        _killed(lambda: share.set(os.urandom(300)), step)
        share.set(os.urandom(200))


def _killed(act: Callable[[], object], step: int) -> None:
    """Leave the memory as a kill at that bytecode does."""
    count = 0
    outer = sys.gettrace()

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        outer(frame, event, arg)
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "opcode":
            count += 1
            if count == step:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(outer)


def _keys(shared: Any) -> None:
    shared["a"] = 5
    with shared.locked() as view:
        view["b"] = os.urandom(700)
        del view["a"]
        view["c"] = [1]
    shared["d"] = 1


def _compacting(shared: Any) -> None:
    for number in range(4):
        shared["a"] = os.urandom(900)
        with shared.locked() as view:
            view["b"] = number
            view["c"] = os.urandom(300)


def compaction() -> tuple[Any, Watch]:
    inside.put("SPARE_BYTES", -(1 << 30))
    inside.put("LOG_KEEP_BYTES", 4096)
    return _dict({f"padding {number}": bytes(1500) for number in range(3)})


def _sets_alike(share: Any) -> None:
    for _ in range(4):
        share.set(os.urandom(600))


def growth() -> tuple[Any, Watch]:
    inside.put("WINDOW_LEAST", 64)
    inside.put("WINDOW_RECORDS", 1)
    return _share(b"first")


def first() -> tuple[Any, Watch]:
    share: Any = Share.open(_new(), durable=True, max_size="1M")
    return share, Watch(share, 8192)


SCENES: dict[str, tuple[Callable[[], tuple[Any, Watch]], Callable[[Any], object]]] = {
    "blocks": (lambda: _share({"n": 1}), _block),
    "first value": (first, lambda share: share.set({"n": 1})),
    "sets": (lambda: _share(b"first"), _sets),
    "killed writers": (lambda: _share(b"first"), _cut_short),
    "other area": (growth, _sets_alike),
    "keys": (lambda: _dict({"a": 1, "b": 2}), _keys),
    "compaction": (compaction, _compacting),
}


def look(events: Events, name: str, planted: str | None = None, most: int | None = None) -> int:
    """Look at the images of a scene; how many there were."""
    make, act = SCENES[name]
    inside.put("is_memory", lambda fd: False)  # The folder of temporary files may be.
    looked = 0
    for number in events(itertools.count()):
        share, watch = make()
        if planted is not None and not number // events.shards:
            PLANTED[planted]()
        watch.run(lambda share=share: act(share))
        for image, seen in watch.images(events.rng(), SAMPLED if most is None else AT_RANDOM):
            watch.check(image, seen)
            looked += 1
        share.close()
        if most is None or looked >= most:
            break
    events.count = looked
    return looked


# --- Planted bugs ------------------------------------------------------------------------------


def _no_barrier() -> None:
    inside.put("file_barrier", lambda region: None)


def _no_check() -> None:
    """Whatever the newest slot names is taken for whole."""
    real = inside.sound_slot

    def sound(read: Any, header: bytes, identity: Any, slot: slice) -> Any:
        raw = header[slot.start : slot.start + 48]
        (version,) = _SEEN.unpack_from(raw)
        return inside.unpack_slot(raw, version, identity.area_bytes) if version else None

    assert real is not sound
    inside.put("sound_slot", sound)


def _check_without_head() -> None:
    """A check of the content alone: a new head with the check of the one before passes."""
    from zlib import crc32

    inside.put(
        "checked_slot_of_file", lambda head, content: head + struct.pack("<2Q", content, content)
    )

    def check(raw: bytes, *begin: Any) -> int:
        return int.from_bytes(raw[48:56], "little") if len(raw) == 56 else crc32(raw, *begin)

    inside.put("crc32_of_sound", check)


def _early_version() -> None:
    """VERSION before the barrier."""
    real = inside.file_barrier

    def barrier(region: Any) -> None:
        slots = [_SEEN.unpack_from(region.map, slot.start)[0] for slot in inside.SLOTS]
        region.words[inside.VERSION] = max(slots)
        real(region)

    inside.put("file_barrier", barrier)


PLANTED: dict[str, Callable[[], None]] = {
    "no barrier": _no_barrier,
    "no check": _no_check,
    "check without head": _check_without_head,
    "early version": _early_version,
}
