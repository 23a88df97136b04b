"""Hours of everything: what a process and its regions take stays what it was."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import mmap
import os
import pickle
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
from lean import Events
from support import inside

from mmapshare import Share, SharedDict, locked, shared_state

KEYS = 400
LARGE_EACH = 5
"""Each so many rounds a value of some MiB comes and goes."""
LARGE_BYTES = 12 << 20


@attrs.frozen
class Taken:
    """What a process and its regions take from the machine."""

    memory_bytes: int
    descriptors: int
    mappings: int
    region_bytes: int


def soak(events: Events, rounds: int, seconds: float, planted: str | None = None) -> list[Taken]:
    """So many rounds, and so long; at least half of them come after the measure was taken."""
    if planted is not None:
        PLANTED[planted]()
    share: Share[Any] = Share({"n": 0})
    shared: SharedDict[Any, Any] = SharedDict({"n": 0})
    measured: list[Taken] = []
    for turn, _ in enumerate(events(_until(rounds, seconds))):
        _round(turn, events.rng(), share, shared)
        if turn % LARGE_EACH == LARGE_EACH - 1:
            measured.append(_taken(share, shared))
    if events.only is None:
        _is_flat(measured)
    return measured[-1:]


def _until(rounds: int, seconds: float) -> Iterator[int]:
    begin = time.monotonic()
    for number in itertools.count():
        if number >= rounds and time.monotonic() - begin > seconds:
            return
        yield number


def _is_flat(measured: list[Taken]) -> None:
    """The second half takes no more than the first did, but for what an allocator may hold."""
    half = len(measured) // 2
    assert half > 3, "too short to tell"
    first, second = measured[:half], measured[half:]
    for name, spare in (("memory_bytes", 3 << 20), ("descriptors", 0), ("mappings", 4),
                        ("region_bytes", 1 << 20)):  # fmt: skip
        before, after = (max(getattr(taken, name) for taken in part) for part in (first, second))
        assert after <= before + spare, f"{name} grew from {before:,} to {after:,}"


def _taken(*shares: Any) -> Taken:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    own = int(Path("/proc/self/statm").read_text().split()[2])  # Shared pages: the regions' own.
    return Taken(
        memory_bytes=(pages - own) * mmap.PAGESIZE,
        descriptors=len(os.listdir("/proc/self/fd")),
        mappings=len(Path("/proc/self/maps").read_text().splitlines()),
        region_bytes=sum(share.info().resident_bytes for share in shares),
    )


# --- One round ---------------------------------------------------------------------------------


def _round(number: int, rng: random.Random, share: Any, shared: Any) -> None:
    before = share.version, shared["n"]
    for act in (_values, _blocks, _items, _others, _functions, _waits):
        act(number, rng, share, shared)
    _kill_somebody(rng, share, shared)
    with shared.locked() as view:
        view["n"] = before[1] + 1
    assert share.version > before[0]
    assert shared["n"] == before[1] + 1


def _values(number: int, rng: random.Random, share: Any, shared: Any) -> None:
    if number % LARGE_EACH == LARGE_EACH - 2:
        share.set(bytes(LARGE_BYTES))
        shared["large"] = bytes(LARGE_BYTES)
    else:
        share.set({"n": number, "pad": rng.randbytes(rng.randrange(100_000))})
        shared.pop("large", None)
    share.get()
    share.snapshot()


def _blocks(number: int, rng: random.Random, share: Any, shared: Any) -> None:
    share.set({"n": number})
    with share.locked() as view, share.locked():
        view["n"] += 1
    with contextlib.suppress(KeyError), share.locked() as view:
        view.clear()
        raise KeyError
    with share.locked() as view:
        view["n"] = -1
        view.rollback()
    with locked(share, shared) as (one, other):
        one["n"] = other["n"]
    share.lock()
    share.set({"n": number}, if_version=share.version)
    share.unlock()
    asyncio.run(_async_block(share))


async def _async_block(share: Any) -> None:
    async with share.locked() as view:
        view["n"] += 1


def _items(number: int, rng: random.Random, share: Any, shared: Any) -> None:
    for _ in range(20):
        shared[rng.randrange(KEYS)] = rng.randbytes(rng.randrange(2000))
        shared.pop(rng.randrange(KEYS), None)
    shared.transact(lambda view: view.update({rng.randrange(KEYS): number}))
    list(shared.items())
    shared.snapshot()


def _others(number: int, rng: random.Random, share: Any, shared: Any) -> None:
    """Shares come and go, by hand and by themselves, some inside of others."""
    inner = Share([number])
    outer = SharedDict({"inner": inner, "share": share})
    assert pickle.loads(pickle.dumps(outer))["inner"].get() == [number]
    outer.close()
    Share(number, kind="file").close()


def _functions(number: int, rng: random.Random, share: Any, shared: Any) -> None:
    shared["rule"] = lambda n: n + number
    assert shared["rule"](1) == number + 1

    @shared_state(initial={"calls": 0})
    def tally(state: Any) -> int:
        state["calls"] += 1
        return int(state["calls"])

    assert tally() == 1


def _waits(number: int, rng: random.Random, share: Any, shared: Any) -> None:
    assert not share.wait(since=share.version, timeout=0)
    assert shared.wait(lambda found: found["n"] >= 0, timeout=0)


def _kill_somebody(rng: random.Random, share: Any, shared: Any) -> None:
    """A child is killed inside of its block."""
    target = rng.choice([share, shared])
    pid = os.fork()
    if pid == 0:
        with target.locked() as view:
            view["n"] = "torn"
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


# --- Planted bugs ------------------------------------------------------------------------------

_kept: list[object] = []


def _kept_descriptors() -> None:
    """A region that is left keeps its lock's descriptor."""
    inside.put("process_lock_close", lambda process_lock: setattr(process_lock, "fd", -1))


def _kept_copies() -> None:
    """Each mapping leaves some memory behind."""
    real = inside.segment_map.__func__  # type: ignore[attr-defined]

    def broken(cls: Any, *args: Any) -> Any:
        _kept.append(bytearray(os.urandom(1)) * 100_000)
        return real(cls, *args)

    inside.put("segment_map", classmethod(broken))


def _kept_mappings() -> None:
    """A region that is left stays mapped."""
    real = inside.segment_close

    def broken(segment: Any) -> None:
        _kept.append(memoryview(segment.map))
        real(segment)

    inside.put("segment_close", broken)


def _kept_blocks() -> None:
    """Memory is not given back, and each growth takes more."""
    real = inside.segment_allocate
    inside.put("segment_give_back", lambda segment, start, end: start)
    grown = itertools.count(1)

    def broken(segment: Any, start: int, end: int, *stored: int) -> int:
        if segment.size_bytes > LARGE_BYTES:
            real(segment, start, end + next(grown) * 10_000, *stored)
        return real(segment, start, end, *stored)

    inside.put("segment_allocate", broken)


PLANTED: dict[str, Callable[[], None]] = {
    "descriptors": _kept_descriptors,
    "copies": _kept_copies,
    "mappings": _kept_mappings,
    "blocks": _kept_blocks,
}
