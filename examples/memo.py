"""A cache of ten lines that all workers of a Pool share: what one computes, none computes again.

    python examples/memo.py [--method fork|spawn|forkserver] [--workers N] [--keys K] [--repeats R]

A call of a memoised function is one transaction: look into the cache, compute what is missing,
store it. So each key is computed once over all processes. It also means that calls wait for one
another: while one computes, every other call waits, also for another key, also for a key that is
in the cache. That suits results which many processes need and none should pay for twice.

The run counts the computations where they happen, in plain memory of each worker, and fails
unless each key was computed just once.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from mmapshare import SharedFunction, View, shared_state

P = ParamSpec("P")
R = TypeVar("R")


def memo(func: Callable[P, R]) -> SharedFunction[P, R]:
    """Remember for all processes what ``func`` returned. For functions, not methods.

    The arguments must be hashable, and what is returned must be picklable.
    """

    # What is returned is the shared function itself, under the name of ``func``: pickle finds it
    # by that name in a worker and takes the region along. A wrapper around it would hide that.
    @shared_state(initial={})
    @functools.wraps(func)
    def cached(cache: View[dict[Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        known, key = cache.value, (args, *sorted(kwargs.items()))
        if key not in known:
            # All other calls wait meanwhile. Computed before the transaction, after a look at
            # ``cached.share.get()``, keys would not wait for one another; but then processes
            # that miss the same key at the same time would each compute it.
            known[key] = func(*args, **kwargs)
        return known[key]

    return cached


computed_here: list[int] = []
"""What this process has computed. Not shared, so that a fault of the sharing cannot hide it."""


@memo
def count_primes(below: int) -> int:
    computed_here.append(below)
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, below))


def ask(function: Callable[[int], int], below: int) -> tuple[int, list[int]]:
    """Run in a worker: the answer, and what had to be computed for it."""
    computed_here.clear()
    return function(below), computed_here.copy()


def main() -> None:
    methods = multiprocessing.get_all_start_methods()
    parser = argparse.ArgumentParser(description="A cache that the workers of a Pool share.")
    parser.add_argument("--method", choices=methods, default=methods[0])
    parser.add_argument("--workers", metavar="N", type=int, default=4, help="default: 4")
    parser.add_argument("--keys", metavar="K", type=int, default=20, help="default: 20")
    parser.add_argument("--repeats", metavar="R", type=int, default=10, help="default: 10")
    args = parser.parse_args()
    if min(args.workers, args.keys, args.repeats) < 1:
        parser.error("workers, keys and repeats are at least 1")

    calls = [1000 + key for key in range(args.keys)] * args.repeats
    random.shuffle(calls)
    with multiprocessing.get_context(args.method).Pool(args.workers) as pool:
        # Spawned workers import this module anew, with an empty cache of their own. Handed on as
        # an argument, the function brings its region, and stands for itself from then on.
        answers = pool.map(functools.partial(ask, count_primes), calls, chunksize=1)

    computed = Counter(key for _, keys in answers for key in keys)
    print(f"{len(calls)} calls in {args.workers} workers ({args.method})")
    print(f"computed: {computed.total()}, for {len(set(calls))} keys")
    if computed != Counter(set(calls)):
        sys.exit(f"check: NOT once each: {dict(computed)}")
    print("check: each key was computed once")


if __name__ == "__main__":
    main()
