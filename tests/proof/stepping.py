"""Processes that stop at each load and store of a region, so that another one says who goes on.

In a stepped process (`Actor`) the region's words, its mapping and its lock are replaced by ones
that say where they are and wait to be let on. `Stage` lets one actor go at a time, in an order
that it is given, and remembers where there was a choice.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
from support import inside
from support.inside import RELEASE

MOST_STEPS: Final = 400
"""No schedule takes longer, but those that would never end."""

# What an actor says: it is about to load or store, or to take the lock; it has let go of that; an
# operation begins; it ends, with a result; the turn is over; it failed.
_POINT, _WANTS, _FREE, _BEGINS, _ENDS, _OVER, _FAILED = b"pwfbeox"
_place = struct.Struct("<QQ?")

Step = tuple[int, int, bool]
"""What an actor is about to do: begin and end of the bytes it touches, and whether it stores."""
EVERYTHING: Final[Step] = (0, 1 << 63, True)
_VERSION_WORD: Final = (8 * inside.VERSION, 8 * inside.VERSION + 8)


def independent(one: Step, other: Step) -> bool:
    """Whether the order of two actors' steps makes no difference."""
    apart = one[1] <= other[0] or other[1] <= one[0]
    return apart or not (one[2] or other[2])


@attrs.define
class Points:
    """Where actors stop: which of the loads and stores take part, and which come in two halves.

    What only the lock's holder touches does not take part: there nobody can tell an order.
    """

    words: frozenset[int] = frozenset({inside.VERSION, inside.OLDEST_READABLE})
    slot: int = 1
    record: int = 1
    lock: bool = False
    holds: bool = False


class Map(mmap.mmap):
    """A mapping that stops before each piece of a load or store."""

    step: Callable[[int, int, bool], None] | None = None
    loads = False
    points = Points()

    def _pieces(self, where: slice) -> list[slice]:
        first = where.start < inside.HEADER_BYTES
        count = self.points.slot if first else self.points.record
        if count < 2:
            return [where] * count
        middle = (where.start + where.stop) // 2
        return [slice(where.start, middle), slice(middle, where.stop)]

    def __getitem__(self, where: Any) -> Any:
        if self.step is None or not self.loads:
            return super().__getitem__(where)
        found = b""
        for piece in self._pieces(where):
            self.step(piece.start, piece.stop, False)
            found += super().__getitem__(piece)
        return found or super().__getitem__(where)

    def __setitem__(self, where: Any, raw: Any) -> None:
        pieces = self._pieces(where) if self.step is not None else []
        if not pieces:
            super().__setitem__(where, raw)
        for piece in pieces:
            self.step(piece.start, piece.stop, True)
            super().__setitem__(piece, raw[piece.start - where.start : piece.stop - where.start])

    def madvise(self, *how: Any) -> None:
        if self.step is not None:
            self.step(*EVERYTHING)
        super().madvise(*how)


class Words:
    """The header's words, likewise."""

    def __init__(self, words: memoryview, loads: bool, points: Points, step: Any) -> None:
        self._words, self._loads, self._points, self._step = words, loads, points, step

    def __getitem__(self, word: int) -> int:
        if self._loads and word in self._points.words:
            self._step(8 * word, 8 * word + 8, False)
        return self._words[word]

    def __setitem__(self, word: int, value: int) -> None:
        if word in self._points.words:
            self._step(8 * word, 8 * word + 8, True)
        self._words[word] = value


class Actor:
    """A forked process that does ``act(actor, share)`` whenever the stage begins a schedule.

    Args:
        others: those that are there already; their pipes are no business of this one.
        forget: puts what the process knows of the share as it is in the beginning.
        loads: whether it stops at what it reads; else only at what it writes.
    """

    def __init__(
        self,
        share: Any,
        act: Callable[[Actor, Any], object],
        others: Sequence[Actor],
        forget: Callable[[Any], None],
        points: Points,
        loads: bool,
    ) -> None:
        to_child, to_parent = os.pipe(), os.pipe()
        self.pid = os.fork()
        self._raw = b""
        if self.pid:
            os.close(to_child[0])
            os.close(to_parent[1])
            self._in, self._out = to_parent[0], to_child[1]
            return
        os.close(to_child[1])
        os.close(to_parent[0])
        self._in, self._out = to_child[0], to_parent[1]
        for other in others:
            other.close()
        try:
            _step_through(self, share, points, loads)
            while os.read(self._in, 1):
                inside.map_of(inside.store_of(share)).step = None
                forget(share)
                inside.map_of(inside.store_of(share)).step = self.stop
                act(self, share)
                self.say(_OVER)
        except BaseException:
            self.say(_FAILED, traceback.format_exc())
        finally:
            os._exit(0)

    # --- In the child ----------------------------------------------------------------------

    def say(self, kind: int, what: Any = None) -> None:
        raw = pickle.dumps(what) if kind in {_ENDS, _FAILED} else b""
        head = bytes([kind]) + (len(raw).to_bytes(4, "little") if raw else b"")
        os.write(self._out, head + raw)

    def stop(self, begin: int, end: int, stores: bool, kind: int = _POINT) -> None:
        os.write(self._out, bytes([kind]) + _place.pack(begin, end, stores))
        os.read(self._in, 1)

    def observe(self, read: Callable[[], Any]) -> None:
        """Read something and tell it to the stage, which knows which versions it may be of."""
        self.say(_BEGINS)
        found = read()
        # A step of its own: whether it comes before a commit makes a difference to the stage.
        self.stop(*_VERSION_WORD, False)
        self.say(_ENDS, found)

    # --- On the stage ----------------------------------------------------------------------

    def go(self) -> None:
        os.write(self._out, b"g")

    def hear(self) -> tuple[int, Any]:
        """What it says next: the kind, and what goes with it."""
        kind = self._take(1)[0]
        if kind in {_POINT, _WANTS}:
            return kind, _place.unpack(self._take(_place.size))
        if kind not in {_ENDS, _FAILED}:
            return kind, None
        return kind, pickle.loads(self._take(int.from_bytes(self._take(4), "little")))

    def _take(self, size: int) -> bytes:
        while len(self._raw) < size:
            piece = os.read(self._in, 65536)
            assert piece, f"process {self.pid} is gone"
            self._raw += piece
        taken, self._raw = self._raw[:size], self._raw[size:]
        return taken

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)

    def leave(self) -> None:
        self.close()
        os.waitpid(self.pid, 0)


def _step_through(actor: Actor, share: Any, points: Points, loads: bool) -> None:
    store = inside.store_of(share)
    inside.map_of(store).points, inside.map_of(store).loads = points, loads
    inside.replace_words(store, Words(inside.words_of(store), loads, points, actor.stop))
    real = inside.flock_of(store.lock)

    def flock(fd: int, operation: int) -> None:
        if operation != RELEASE:
            actor.stop(*EVERYTHING, _WANTS)
        real(fd, operation)
        if operation == RELEASE:
            actor.say(_FREE)

    if points.lock:
        inside.flock_of.set(store.lock, flock)

    def stepping(act: Callable[..., Any], stores: bool) -> Callable[..., Any]:
        def stops(where: Any, begin: int, end: int) -> Any:
            if inside.map_of(store).step is not None:
                actor.stop(begin, end, stores)
            return act(where, begin, end)

        return stops

    if points.holds:
        inside.put("hold", stepping(inside.hold, True))
        inside.put("held", stepping(inside.held, False))


def patch_mappings() -> None:
    """From now on regions are mapped by `Map`."""
    mmap.mmap = Map  # type: ignore[misc]


@attrs.define
class Seen:
    """A read that an actor made: between which versions, and what it found."""

    first: int
    last: int
    found: Any


class Stage:
    """Lets actors play schedules: orders in which they take their steps."""

    def __init__(self, share: Any, actors: Sequence[Actor], image_bytes: int) -> None:
        self._store = inside.store_of(share)
        self._actors = actors
        areas = [inside.area_start(self._store, area) for area in (0, 1)]
        where = [slice(0, inside.HEADER_BYTES), *(slice(at, at + image_bytes) for at in areas)]
        self._image = [(piece, inside.map_of(self._store)[piece]) for piece in where]

    def play(self, choose: Callable[[int, list[int], list[Step]], int]) -> list[Seen]:
        """Play a schedule: ``choose(depth, ready, steps)`` says who goes on. What was read."""
        for piece, raw in self._image:
            inside.map_of(self._store)[piece] = raw
        self._at: list[int] = []
        self._steps: list[Step] = []
        self._since: dict[int, int] = {}
        self._seen: list[Seen] = []
        self._holder: int | None = None
        for number, actor in enumerate(self._actors):
            self._at.append(0)
            self._steps.append(EVERYTHING)
            self._let(number, actor)
        depth = 0
        while ready := [n for n in range(len(self._actors)) if self._may_go(n)]:
            assert depth < MOST_STEPS, "this never ends"
            chosen = choose(depth, ready, list(self._steps))
            if self._at[chosen] == _WANTS:
                self._holder = chosen
            self._let(chosen, self._actors[chosen])
            depth += 1
        assert all(at == _OVER for at in self._at), "all wait for one another"
        return self._seen

    def _may_go(self, number: int) -> bool:
        at = self._at[number]
        return at == _POINT or (at == _WANTS and self._holder is None)

    def _let(self, number: int, actor: Actor) -> None:
        """Let one go on to its next step."""
        # An operation begins with its first step.
        self._since.setdefault(number, self._store.version)
        actor.go()
        while True:
            kind, what = actor.hear()
            if kind == _FAILED:
                raise AssertionError(what)
            if kind == _BEGINS:
                self._since.pop(number, None)
            elif kind == _FREE:
                self._holder = None if self._holder == number else self._holder
            elif kind == _ENDS:
                self._seen.append(Seen(self._since[number], self._store.version, what))
            else:
                self._at[number] = kind
                if what is not None:
                    self._steps[number] = what
                return
