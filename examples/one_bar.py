"""One progress bar for all workers of a pool: they count in a share, and only the parent draws.

    python examples/one_bar.py [--pool Pool|ProcessPoolExecutor]
        [--method fork|spawn|forkserver] [--workers N] [--tasks T] [--below B]

A worker that is done with a piece of its task adds it to ``progress``, which is one transaction.
The parent, whose terminal it is, sleeps in ``progress.wait`` until there is something new, and
draws it: no queue, no thread, no line of its own for each worker.

The tasks look for primes, and the bar counts the numbers that were looked at. The run fails unless
the bar ends exactly where the tasks do. (Where workers may be killed take a ProcessPoolExecutor,
which then raises: a Pool waits for ever for the task of the dead.)

Needs tqdm (``pip install mmapshare[examples]``).
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from tqdm import tqdm

from mmapshare import Share

PIECE = 500
"""Numbers from one sign of life to the next: some milliseconds of work."""

# --- A worker --------------------------------------------------------------------------------


def count_primes(numbers: range, progress: Share[int]) -> int:
    found = 0
    for start in range(0, len(numbers), PIECE):
        piece = numbers[start : start + PIECE]
        found += sum(map(is_prime, piece))
        with progress.locked() as view:
            view.value += len(piece)
    return found


def is_prime(n: int) -> bool:
    return n > 1 and all(n % divisor for divisor in range(2, int(n**0.5) + 1))


# --- The parent ------------------------------------------------------------------------------


def draw(progress: Share[int], total: int, is_over: Callable[[], bool]) -> None:
    """Follow the count until it is complete, or all is over without that."""
    with tqdm(total=total, unit="n") as bar:
        while bar.n < total:
            over = is_over()  # Asked first: what was counted until then is drawn still.
            progress.wait(lambda count: count > bar.n, timeout=0 if over else 0.5)
            bar.update(progress.get() - bar.n)
            if over:
                break


def run_in_pool(context: Any, workers: int, progress: Share[int], tasks: list[range]) -> int:
    with context.Pool(workers) as pool:
        calls = [(task, progress) for task in tasks]
        results = pool.starmap_async(count_primes, calls, chunksize=1)
        draw(progress, sum(map(len, tasks)), results.ready)
        return sum(results.get())


def run_in_executor(context: Any, workers: int, progress: Share[int], tasks: list[range]) -> int:
    with ProcessPoolExecutor(workers, context) as executor:
        results = [executor.submit(count_primes, task, progress) for task in tasks]
        draw(progress, sum(map(len, tasks)), lambda: all(result.done() for result in results))
        return sum(result.result() for result in results)


POOLS = {"Pool": run_in_pool, "ProcessPoolExecutor": run_in_executor}


def main() -> None:
    methods = multiprocessing.get_all_start_methods()
    parser = argparse.ArgumentParser(description="One progress bar for all workers of a pool.")
    parser.add_argument("--pool", choices=POOLS, default="Pool")
    parser.add_argument("--method", choices=methods, default=methods[0])
    parser.add_argument("--workers", metavar="N", type=int, default=4, help="default: 4")
    parser.add_argument("--tasks", metavar="T", type=int, default=40, help="default: 40")
    parser.add_argument("--below", metavar="B", type=int, default=400_000, help="default: 400000")
    args = parser.parse_args()
    if min(args.workers, args.tasks, args.below) < 1:
        parser.error("workers, tasks and below are at least 1")

    tqdm.monitor_interval = 0  # No thread of tqdm's: this process forks.
    tasks = [range(first, args.below, args.tasks) for first in range(args.tasks)]
    progress = Share(0)
    run = POOLS[args.pool]
    found = run(multiprocessing.get_context(args.method), args.workers, progress, tasks)

    print(f"{found} primes below {args.below}, by a {args.pool} of {args.workers} ({args.method})")
    print(f"{progress.version - 1} transactions counted {progress.get()} numbers")
    if progress.get() != args.below:
        sys.exit(f"check: NOT every number was counted: {progress.get()} of {args.below}")
    print("check: every number was counted, once")


if __name__ == "__main__":
    main()
