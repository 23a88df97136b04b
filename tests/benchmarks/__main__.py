"""Speed and memory as ratios to what cannot be avoided, printed as one table.

    python tests/benchmarks              all of it, in about five minutes
    python tests/benchmarks get block    what has "get" or "block" in its name
    python -m tests.benchmarks --check   exit with 1 where a figure is missed

Every figure is a median over rounds in which all that is compared takes turns, so that it holds
on a busy machine too. None of them is a test: a test that times fails for other people's load.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])
if not __package__:
    sys.path.insert(0, ROOT)
# What runs in a process of its own finds the same packages.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))

from tests.benchmarks import (  # noqa: E402
    arrays,
    contention,
    cores,
    crowds,
    decorated,
    dict_processes,
    dicts,
    footprint,
    holds,
    main_classes,
    named,
    optimistic,
    queues,
    readers,
    remote,
    small_values,
    tracing,
    waiting,
)
from tests.benchmarks.table import Row, machine, markdown  # noqa: E402

# Each by its name, with the share of --rounds that it takes: the longer the statement, the
# fewer. Those with numpy come last, since it starts threads, and others fork.
BENCHMARKS = {
    "get": (small_values.get, 1.0),
    "set": (small_values.set_, 1.0),
    "block": (small_values.block, 1.0),
    "block-recorded": (tracing.block, 1.0),
    "cores": (cores.small_values, 1.0),
    "cores-dict": (cores.dicts, 0.3),
    "decorated-call": (decorated.decorated_call, 1.0),
    "children": (contention.children, 0.04),
    "get-while-held": (readers.get_while_held, 0.5),
    "get-beside-writer": (readers.get_beside_writer, 1.0),
    "main-class-block": (main_classes.main_classes, 1.0),
    "wait": (waiting.wait, 1.0),
    "optimistic-throughput": (optimistic.throughput, 0.03),
    "optimistic-short-blocks": (optimistic.short_blocks, 0.03),
    "dict-get": (dicts.get, 1.0),
    "dict-update": (dicts.update, 40 / 300),
    "dict-read-changed": (dict_processes.read_changed, 1.0),
    "dict-late": (dict_processes.late, 0.04),
    "dict-children": (crowds.children, 0.02),
    "dict-get-beside-writer": (crowds.get_beside_writer, 0.1),
    "dict-ends": (queues.ends, 0.1),
    "dict-queue": (queues.queue, 0.02),
    "dict-memory": (dicts.memory, 100 / 300),
    "named-open": (named.open_, 3.0),
    "named-use": (named.use, 1.0),
    "named-durable": (named.durable, 0.1),
    "named-durable-processes": (named.durable_processes, 0.02),
    "redis-use": (remote.use, 0.1),
    "redis-wait": (remote.wait, 0.3),
    "redis-dict": (remote.dict_, 0.1),
    "redis-children": (remote.children, 0.5),
    "import": (footprint.import_, 0.1),
    "ceiling": (footprint.ceiling, 0.1),
    "shrink": (footprint.shrink, 1.0),
    "array-1MiB": (arrays.array_1_mib, 0.3),
    "array-256MiB": (arrays.array_256_mib, 0.03),
    "holds": (holds.holds, 0.03),
}
LEAST_ROUNDS = 3


def main() -> int:
    """Run what was asked for; 1 where that is to be checked and a figure is missed."""
    parser = argparse.ArgumentParser(
        prog="tests/benchmarks", description="Print mmapshare's speed as a table of ratios."
    )
    parser.add_argument("names", nargs="*", help=f"parts of names: {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=300, help="of the shortest ones; default 300")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a figure is missed")
    options = parser.parse_args()
    chosen = [name for name in BENCHMARKS if _is_chosen(name, options.names)]
    if not chosen:
        parser.error(f"no benchmark has that in its name: {', '.join(BENCHMARKS)}")
    rows: list[Row] = []
    for name in chosen:
        print(f"{name} ...", file=sys.stderr)
        run, part = BENCHMARKS[name]
        rows += run(max(LEAST_ROUNDS, round(options.rounds * part)))
    print(f"{markdown(rows)}\n\n{machine()}")
    return int(options.check and any(row.ok is False for row in rows))


def _is_chosen(name: str, parts: list[str]) -> bool:
    return not parts or any(part in name for part in parts)


if __name__ == "__main__":
    sys.exit(main())
