"""Two processes, or three, in every order of their loads and stores.

An exhaustive search without memory, as Godefroid's VeriSoft does it: a schedule is played to its
end, then the last choice that has an alternative is taken differently. His sleep sets leave out
what only differs in the order of steps that do not touch the same bytes, or only load them. A
schedule's number is the sequence of its choices, so that it can be played again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import attrs
from holding_planted import PLANTED as PLANTED_IN_HOLDS
from lean import Events
from plays import PLAYS, Act, Play, Value
from scenes import forget
from stepping import Actor, Seen, Stage, Step, independent, patch_mappings
from support import inside

from mmapshare import SharedDict

_BASE = 4
_IMAGE_BYTES = 64 << 10


def every_order(events: Events, name: str, more: int = 0, planted: str | None = None) -> int:
    """Play all schedules of a play, with ``more`` of its readers than usual; how many."""
    patch_mappings()
    _stay_on_one_core(events.shard)
    for room in ("memory", "keyed"):  # The stage orders them, on any machine.
        inside.put(f"ORDERED_STORES_in_{room}", True)
    if planted in PLANTED:
        PLANTED[planted]()
    play = PLAYS[name]()
    share = play.make(play.value)
    if planted in PLANTED_IN_HOLDS:
        PLANTED_IN_HOLDS[planted](share)
    actors: list[Actor] = []
    try:
        for act in play.writers:
            _add(actors, play, share, _writer(act, play.value), play.aware)
        for act in (*play.readers, *play.readers[:1] * more):
            _add(actors, play, share, _reader(act, play.value), True)
        stage = Stage(share, actors, _IMAGE_BYTES)
        for seen in _schedules(events, stage):
            _check(share, play, seen)
    finally:
        for actor in actors:
            actor.leave()
    return events.count


def _stay_on_one_core(number: int) -> None:
    # One goes at a time: on one core it wakes the next up in a third of the time.
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})


def _add(actors: list[Actor], play: Play, share: Any, act: Any, loads: bool) -> None:
    begin = _warm if play.warm else forget
    actors.append(Actor(share, act, actors, begin, play.points, loads))


def _writer(act: Act, value: Value) -> Callable[[Actor, Any], object]:
    return lambda actor, share: act(share, value)


def _reader(act: Act, value: Value) -> Callable[[Actor, Any], object]:
    return lambda actor, share: actor.observe(lambda: act(share, value))


def _warm(share: Any) -> None:
    forget(share)
    if isinstance(share, SharedDict):
        dict(share)
    else:
        share.get()


def _schedules(events: Events, stage: Stage) -> Iterator[list[Seen]]:
    """What was seen in each schedule that is this shard's."""
    if events.only is not None:
        events.current, events.count = events.only, 1
        yield stage.play(_Again(events.only))
        return
    search = Search(events.shard, events.shards)
    while search.goes_on:
        events.current = search.number
        seen = stage.play(search)
        events.current = search.number
        if not search.pruned:
            events.count += 1
            yield seen
        search.turn_back()


class _Again:
    """The choices that a number stands for."""

    def __init__(self, number: int) -> None:
        self._choices: list[int] = []
        while number > 1:
            number, choice = divmod(number, _BASE)
            self._choices.insert(0, choice)

    def __call__(self, depth: int, ready: list[int], steps: list[Step]) -> int:
        return self._choices[depth] if depth < len(self._choices) else ready[0]


@attrs.define
class _Fork:
    """A point where one of several goes on: who may, what each would do, who need not any more."""

    ready: list[int]
    steps: list[Step]
    asleep: set[int]
    tried: set[int]
    chosen: int = -1

    def choose(self) -> bool:
        """Whether there is somebody left to be tried."""
        left = [n for n in self.ready if n not in self.asleep and n not in self.tried]
        self.chosen = left[0] if left else -1
        return bool(left)


class Search:
    """All schedules but those that differ from others in the order of independent steps only."""

    def __init__(self, shard: int, shards: int) -> None:
        self._shard, self._shards = shard, shards
        self._forks: list[_Fork] = []
        self.goes_on = True
        self.pruned = False
        """The schedule is one of those that are known already: what comes is not worth while."""

    def __call__(self, depth: int, ready: list[int], steps: list[Step]) -> int:
        if depth < len(self._forks):
            return self._forks[depth].chosen
        if self.pruned:
            return ready[0]
        asleep = self._asleep() if self._forks else set()
        others = set() if self._forks else set(ready) - set(ready[self._shard :: self._shards])
        fork = _Fork(ready, steps, asleep, others)
        self.pruned = not fork.choose()
        if self.pruned:
            return ready[0]
        self._forks.append(fork)
        return fork.chosen

    def _asleep(self) -> set[int]:
        """Who was tried before the last choice, and would find nothing else after it."""
        last = self._forks[-1]
        tried = last.asleep | last.tried
        if len(self._forks) == 1:  # Of those that the other shards try, some come later.
            tried = {n for n in tried if n < last.chosen}
        return {n for n in tried if independent(last.steps[n], last.steps[last.chosen])}

    def turn_back(self) -> None:
        """Choose differently at the last fork where that makes a difference."""
        self.pruned = False
        while self._forks:
            fork = self._forks[-1]
            fork.tried.add(fork.chosen)
            if fork.choose():
                return
            self._forks.pop()
        self.goes_on = False

    @property
    def number(self) -> int:
        """The choices up to now as one number."""
        number = 1
        for fork in self._forks:
            number = number * _BASE + fork.chosen
        return number


def _check(share: Any, play: Play, seen: list[Seen]) -> None:
    for read in seen:
        version, value = read.found
        assert read.first <= version <= read.last, read
        assert value == play.value(version), read
    forget(share)
    assert share.version == 1 + play.commits, share.version
    assert inside.lock_of(share).holder() is None
    value = dict(share) if isinstance(share, SharedDict) else share.get()
    assert value == play.value(1 + play.commits), value


# --- Planted bugs ------------------------------------------------------------------------------


def _early_version() -> None:
    """A writer stores the version before the slot that it names."""

    def broken(store: Any, frames: Any) -> int:
        base = store.newest()
        inside.words_of(store)[inside.VERSION] = base[inside.VALUE_V] + 1
        return int(inside.commit_with_care(store, frames, base))

    inside.put_commit(broken)


def _no_floor() -> None:
    """A writer goes to the other area without a word."""
    inside.put("areas_turn", lambda areas, offset, run: areas.start(1 - areas.of(offset)))


def _trusting_reader() -> None:
    """A reader does not ask afterwards whether it was overtaken."""

    def broken(store: Any) -> Any:
        head = inside.load_slot(store)
        if head is None:
            return None
        return (
            head.version,
            inside.copy_extents(store, inside.extents(store, head)),
            *inside.extent(store, head),
        )

    inside.put("region_try_read", broken)


def _trusting_index() -> None:
    """The same among the records of a shared dict."""
    inside.put("log_stands", lambda log, position: True)
    inside.put("index_stands", lambda store, state: True)


def _no_version_check() -> None:
    """Work without the lock is committed whatever was committed meanwhile."""
    inside.put("value_check", lambda store, expect: None)


def _no_lock() -> None:
    """Two blocks run at once."""
    inside.put(
        "lock_acquire",
        lambda lock, token, timeout_s: not inside.thread_lock_of(lock).update({0: token}),
    )


PLANTED: dict[str, Callable[[], None]] = {
    "early version": _early_version,
    "no floor": _no_floor,
    "trusting reader": _trusting_reader,
    "trusting index": _trusting_index,
    "no version check": _no_version_check,
    "no lock": _no_lock,
}
