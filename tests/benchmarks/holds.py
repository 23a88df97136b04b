"""Large values without copies: beside a bare view of SharedMemory, and beside a copy each time.

CPU time, not the clock's: these take milliseconds, and memory that others use at the time shows.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from statistics import median
from time import process_time
from typing import Any

from mmapshare import Share, SharedDict
from tests.benchmarks.table import Row, duration

GET_MOST_S, SUM_MOST, BLOCK_MOST_S, SMALLER_BLOCK_MOST_S, PAGES_MOST_S = 1e-4, 1.6, 3e-4, 2e-4, 2e-2
ALL_FIRST_MOST, ALL_LATER_MOST, READERS_CPU_MOST, READERS_MEMORY_MOST = 2.5, 1.1, 1 / 2, 1 / 3
KEY_BLOCK_MOST_S, KEYS_BLOCKS_MOST, KEYS_PAGES_MOST = 5e-4, 1 / 20, 1 / 4
MIB = 1 << 20
READERS, VERSIONS = 4, 6


def holds(rounds: int) -> list[Row]:
    """`get(copy=False)`, and blocks on large values."""
    try:
        import numpy as np
    except ImportError:
        return [Row("holds", "not measured: numpy is not installed")]
    share, copied = Share(np.zeros(256 << 17)), Share(np.zeros(256 << 17))
    memory = SharedMemory(create=True, size=256 * MIB)
    try:
        return [
            *_reads(np, share, memory, rounds),
            *_blocks(np, share, copied, rounds),
            *_keys(np, rounds),
            *_readers(np),
        ]
    finally:
        memory.unlink()


def _cpu(act: Callable[[], object], rounds: int, before: Callable[[], object] = int) -> float:
    times = []
    for _ in range(rounds):
        before()
        begin = process_time()
        act()
        times.append(process_time() - begin)
    return median(times)


def _limit(what: str, took: float, most: float, beside: str) -> Row:
    figure = f"{duration(took)} ({beside})"
    return Row(what, figure, f"at most {duration(most)}", took <= most)


def _ratio(what: str, took: float, base: float, most: float, called: str) -> Row:
    figure = f"{took / base:.2f} x {called} ({duration(took)} : {duration(base)})"
    return Row(what, figure, f"at most {most:.2g} x", took <= most * base)


def _reads(np: Any, share: Share[Any], memory: SharedMemory, rounds: int) -> list[Row]:
    def view() -> Any:
        return np.frombuffer(memory.buf, "f8")

    view()[:] = 0
    share.get(copy=False)
    held = _cpu(lambda: share.get(copy=False)[5], 20 * rounds)
    copied = _cpu(lambda: share.get()[5], rounds)
    bare = _cpu(lambda: view()[5], 20 * rounds)
    sums = _cpu(lambda: share.get(copy=False).sum(), rounds)
    bare_sums = _cpu(lambda: view().sum(), rounds)
    copied_sums = _cpu(lambda: share.get().sum(), rounds)
    return [
        _limit(
            "`get(copy=False)` of 256 MiB, one element",
            held,
            GET_MOST_S,
            f"`get()` {duration(copied)}, SharedMemory's torn view {duration(bare)}",
        ),
        _ratio(
            f"the same, and its sum (`get()`: {duration(copied_sums)})",
            sums,
            bare_sums,
            SUM_MOST,
            "that of a bare view of SharedMemory",
        ),
    ]


def _blocks(np: Any, share: Share[Any], copied: Share[Any], rounds: int) -> list[Row]:
    numbers = iter(range(1, 1 << 30))
    size = 256 << 17
    scattered = np.arange(1000) * 33_000 % size
    smaller = Share(np.zeros(6 << 17))

    def block(target: Share[Any], where: Any) -> None:
        with target.locked() as view:
            view.value[where] = next(numbers)

    def whole(target: Share[Any]) -> None:
        """As it was before: copied out, changed, compared and written."""
        value = target.get()
        value[5] = next(numbers)
        target.set(value)

    def settle() -> None:
        for _ in range(2):
            block(share, 7)

    settle()
    block(smaller, 7)
    one = _cpu(lambda: block(share, 5), 10 * rounds)
    copy = _cpu(lambda: whole(copied), rounds)
    six = _cpu(lambda: block(smaller, 5), 20 * rounds)
    pages = _cpu(lambda: block(share, scattered), rounds)
    settle()
    first = _cpu(lambda: block(share, slice(None)), 1)
    later = _cpu(lambda: block(share, slice(None)), 7)

    def everything() -> None:
        value = copied.get()
        value[:] = next(numbers)
        copied.set(value)

    base = _cpu(everything, rounds)
    return [
        _limit("block, one element of 256 MiB", one, BLOCK_MOST_S, f"whole: {duration(copy)}"),
        _limit("block, one element of 6 MiB", six, SMALLER_BLOCK_MOST_S, ""),
        _limit("block, 1 000 scattered pages of 256 MiB", pages, PAGES_MOST_S, ""),
        _ratio("block, all of 256 MiB, the first time", first, base, ALL_FIRST_MOST, "get and set"),
        _ratio("the same afterwards", later, base, ALL_LATER_MOST, "get and set"),
    ]


def _keys(np: Any, rounds: int) -> list[Row]:
    """The same of values in a dict."""
    numbers = iter(range(1, 1 << 30))
    shared = SharedDict({"a": np.zeros(256 << 17), "b": np.zeros(6 << 17)})
    scattered = np.arange(1000) * 33_000 % (256 << 17)
    anywhere = np.random.default_rng(1).integers(0, 256 << 17, 100_000)

    def block(key: str, where: Any) -> None:
        with shared.locked() as view:
            view[key][where] = next(numbers)

    def whole(key: str) -> None:
        value = shared[key]
        value[5] = next(numbers)
        shared[key] = value

    copy = _cpu(lambda: whole("a"), rounds)
    get = _cpu(lambda: shared.get("a", copy=False)[5], 20 * rounds)
    for key in "ab":
        block(key, 5)
    one = _cpu(lambda: block("a", 5), 10 * rounds)
    six = _cpu(lambda: block("b", 5), 20 * rounds)
    pages = _cpu(lambda: block("a", scattered), rounds)
    spread = process_time()
    count = 200 * rounds  # As many as it takes to have the whole value written on the way.
    for where in anywhere[:count]:
        block("a", where)
    spread = (process_time() - spread) / count
    later = _cpu(lambda: shared.get("a", copy=False)[5], 20 * rounds)
    return [
        _limit(
            "dict: `get(copy=False)` of 256 MiB", get, GET_MOST_S, f"patched: {duration(later)}"
        ),
        _limit(
            "dict: block, one element of 256 MiB", one, KEY_BLOCK_MOST_S, f"whole: {duration(copy)}"
        ),
        _limit("dict: block, one element of 6 MiB", six, KEY_BLOCK_MOST_S, ""),
        _ratio(
            "dict: block, 1 000 scattered pages of 256 MiB",
            pages,
            copy,
            KEYS_PAGES_MOST,
            "get and set",
        ),
        _ratio(
            "dict: block, another element of 256 MiB each time",
            spread,
            copy,
            KEYS_BLOCKS_MOST,
            "get and set",
        ),
    ]


def _readers(np: Any) -> list[Row]:
    """What four readers of each version of 64 MiB take, all of them together."""
    cpu, memory = zip(*[_read_by_many(np, copy) for copy in (True, False)], strict=True)
    called = "that of copies"
    title = f"{READERS} readers of each of {VERSIONS} versions of 64 MiB: "
    return [
        _ratio(f"{title}CPU", cpu[1], cpu[0], READERS_CPU_MOST, called),
        Row(
            f"{title}memory",
            f"{memory[1] / memory[0]:.2f} x {called} ({memory[1] >> 20} : {memory[0] >> 20} MiB)",
            "at most 0.33 x",
            memory[1] <= READERS_MEMORY_MOST * memory[0],
        ),
    ]


def _read_by_many(np: Any, copy: bool) -> tuple[float, int]:
    """Their CPU time, and the most memory that they and the region had, but for what is shared."""
    share = Share(np.zeros(64 << 17))
    lines = [(*os.pipe(), *os.pipe()) for _ in range(READERS)]
    for ours, _, _, back in lines:
        if os.fork() == 0:
            most, value = 0, None
            for _ in range(VERSIONS):
                os.read(ours, 1)
                newer = share.get(copy=copy)
                newer.sum()
                most = max(most, _own_bytes())  # Who replaces a value has both for a moment.
                value = newer
                os.write(back, b"r")
            del value
            used = resource.getrusage(resource.RUSAGE_SELF)
            os.write(back, f"{used.ru_utime + used.ru_stime} {most}".encode())
            os._exit(0)
    resident = 0
    for number in range(VERSIONS):
        share.set(np.full(64 << 17, float(number)))
        for _, go, _, _ in lines:
            os.write(go, b"g")
        for _, _, answer, _ in lines:
            os.read(answer, 1)
        resident = max(resident, share.info().resident_bytes)
    said = [os.read(answer, 100).split() for _, _, answer, _ in lines]
    for line in lines:
        os.wait()
        for fd in line:
            os.close(fd)
    return sum(float(cpu) for cpu, _ in said), resident + sum(int(most) for _, most in said)


def _own_bytes() -> int:
    """Memory of this process's own: what no other has too."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        kib = [int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")]
    return sum(kib) << 10
