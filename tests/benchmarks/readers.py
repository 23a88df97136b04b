"""Readers beside a holder of the lock, and beside a writer that never pauses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from timeit import Timer
from typing import Any

from mmapshare import Share
from tests.benchmarks.forking import Line, forked, on_core
from tests.benchmarks.small_values import VALUE
from tests.benchmarks.table import Row, duration, ratio_row
from tests.benchmarks.timing import Times, loop_length
from tests.support import inside

AS_FAST = 1.1
"""What noise may make of "as fast"."""
ATTEMPTS_MOST = 1.3
SIZES = {"100 bytes": 48, "64 KiB": 64 << 10, "1 MiB": 1 << 20}
READ_S = 5e-3
"""How long one round of reading beside a writer takes."""
PATTERNS = 64
SETS_BETWEEN_LOOKS = 64


# --- While another process holds the lock ------------------------------------------------------


def get_while_held(rounds: int) -> list[Row]:
    """`get()` with the lock held by another process, beside `get()` with the lock free."""
    return [
        _while_held("a small dict", VALUE, rounds),
        _while_held("1 MiB", bytes(1 << 20), rounds),
    ]


def _while_held(what: str, value: Any, rounds: int) -> Row:
    share = Share(value)

    def hold(line: Line) -> None:
        while True:
            line.receive()
            with share.locked():
                line.send("held")
                line.receive()
            line.send("left")

    times, timer = Times(), Timer("share.get()", globals={"share": share})
    number = loop_length(timer)
    with on_core(0), forked(hold, 1) as holder:
        for _ in range(rounds):
            times.take("free", timer, number)
            _tell(holder, "hold")
            times.take("held", timer, number)
            _tell(holder, "leave")
    title = f"`get()` of {what} while another process holds the lock"
    return ratio_row(title, times, "held", "free", AS_FAST, "`get()` with the lock free")


def _tell(holder: Line, message: str) -> None:
    holder.send(message)
    holder.receive()


# --- Beside a writer that never pauses ---------------------------------------------------------


def get_beside_writer(rounds: int) -> list[Row]:
    """Attempts that a read takes while another process does nothing but `set()`."""
    rows = [_beside_writer(name, size, bytes, rounds) for name, size in SIZES.items()]
    return [*rows, _beside_writer("a bytearray of 1 MiB", 1 << 20, bytearray, rounds)]


def _beside_writer(what: str, size: int, kind: type[bytes | bytearray], rounds: int) -> Row:
    values = [_pattern(n, size, kind) for n in range(PATTERNS)]
    share = Share(values[0])

    def write(line: Line) -> None:
        line.send("writing")
        while not line.has_news():
            for n in range(SETS_BETWEEN_LOOKS):
                share.set(values[n % PATTERNS])

    torn = reads = copies = 0
    with on_core(0), forked(write, 1) as writer, _attempts_counted() as attempts:
        writer.receive()
        begin, first = perf_counter(), share.version
        while perf_counter() < begin + rounds * READ_S:
            before = attempts[0]
            value = share.get()
            reads += 1
            copies += attempts[0] > before
            torn += not _is_whole(value, size)
        pace = (perf_counter() - begin) / max(1, share.version - first)
    each = attempts[0] / max(1, copies)
    return Row(
        f"`get()` of {what} beside a writer that never pauses (one `set` in {duration(pace)})",
        f"{torn} torn of {reads:,}; {each:.2f} attempts a read of a new version ({copies:,})",
        f"0 torn, at most {ATTEMPTS_MOST:g} x",
        torn == 0 and copies > 0 and each <= ATTEMPTS_MOST,
    )


def _pattern(n: int, size: int, kind: type[bytes | bytearray]) -> dict[str, Any]:
    """A value whose parts agree: the number before, in every byte, and behind."""
    return {"before": n, "body": kind(bytes([n]) * size), "behind": n}


def _is_whole(value: dict[str, Any], size: int) -> bool:
    n, body = value["before"], value["body"]
    return bool(n == value["behind"] and len(body) == size == body.count(n))


@contextmanager
def _attempts_counted() -> Iterator[list[int]]:
    """Count this process's attempts at copying a version, in the list's only item."""
    attempts, try_read = [0], inside.region_try_read

    def counting(self: Any) -> Any:
        attempts[0] += 1
        return try_read(self)

    inside.put("region_try_read", counting)
    try:
        yield attempts
    finally:
        inside.put("region_try_read", try_read)
