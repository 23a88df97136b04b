"""What is paid without a value being moved: the import, the ceiling, memory no longer needed."""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median
from tempfile import TemporaryDirectory
from timeit import Timer

from mmapshare import Share
from tests.benchmarks.table import Row, duration

IMPORT_MOST_S = 0.030
CEILING_MOST_S, CEILING_MOST_BYTES = 1e-3, 100_000
CEILINGS = 16
STAY_MOST_BYTES = 32 << 20

_IMPORT = """
from time import perf_counter
import attrs, cloudpickle
begin = perf_counter()
import mmapshare
print(perf_counter() - begin)
"""


def import_(rounds: int) -> list[Row]:
    """What the import adds, in a fresh process each time; the first one writes the bytecode."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with TemporaryDirectory() as folder:
        environment["PYTHONPYCACHEPREFIX"] = folder
        times = [_import_s(environment) for _ in range(rounds + 1)][1:]
    return [
        Row(
            "`import mmapshare`",
            f"{duration(median(times))} on top of `import attrs, cloudpickle`",
            f"at most {duration(IMPORT_MOST_S)}",
            median(times) <= IMPORT_MOST_S,
        )
    ]


def _import_s(environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", _IMPORT]
    ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    return float(ran.stdout)


def ceiling(rounds: int) -> list[Row]:
    """Time and memory of a share that may grow to 1 TiB and does not."""
    kept: list[Share[None]] = []
    timer = Timer("kept.append(Share(max_size='1T'))", globals={"kept": kept, "Share": Share})
    times, sizes = [], []
    for _ in range(rounds + 1):
        before = _memory_bytes()
        times.append(timer.timeit(CEILINGS) / CEILINGS)
        sizes.append((_memory_bytes() - before) / CEILINGS)
        kept.clear()
    took, size = median(times[1:]), median(sizes[1:])
    return [
        Row(
            "`Share(max_size='1T')`, unused",
            f"{duration(took)}, {size / 1000:.1f} kB with its page tables",
            f"under {duration(CEILING_MOST_S)}, {CEILING_MOST_BYTES // 1000} kB",
            took < CEILING_MOST_S and size < CEILING_MOST_BYTES,
        )
    ]


def _memory_bytes() -> int:
    """This process's resident memory and page tables; the counters of `statm` lag behind."""
    return _kilobytes("/proc/self/smaps_rollup", "Rss:") + _kilobytes("/proc/self/status", "VmPTE:")


def _kilobytes(path: str, name: str) -> int:
    with open(path, encoding="ascii") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def shrink(rounds: int) -> list[Row]:
    """What stays resident of a region whose large value was replaced by a small one."""
    share: Share[bytes | bytearray] = Share(b"")
    large = bytearray(512 << 20)
    for _ in range(2):  # Both places that a large value can lie in.
        share.set(large)
    held = share.info().resident_bytes
    share.set(b"small")
    stays = share.info().resident_bytes
    return [
        Row(
            "512 MiB stored, twice, then a small value",
            f"{stays / 2**20:.1f} MiB stay resident, of {held / 2**20:,.0f} MiB",
            f"under {STAY_MOST_BYTES >> 20} MiB",
            stays < STAY_MOST_BYTES,
        )
    ]
