"""Limit a rate over all processes: one token bucket, asked by forked workers in real time.

    python examples/rate_limiter.py [--workers N] [--seconds S] [--rate R] [--burst B]

A bucket holds at most B tokens and earns R a second; each call that is allowed takes one. `take`
is that logic, for one process and a plain dict. `allow` makes each call of it one transaction on
a dict that all processes share, so that the workers together get what one process would get.

The run ends with the proof: a plain bucket is asked again at the very times at which the workers
asked, one after the other, and must give each of them the same answer and be left the same.

Needs a system that can fork.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from typing import NamedTuple

from mmapshare import View, shared_state

Bucket = dict[str, int]

TOKEN = 1_000_000_000
"""Levels are in billionths of a token. At one token a second a bucket earns one of these in each
nanosecond: all is in integers, and nothing is rounded."""


def full_bucket(rate: int, burst: int) -> Bucket:
    return {"rate": rate, "burst": burst, "level": burst * TOKEN, "at_ns": 0, "calls": 0}


def take(bucket: Bucket, now_ns: int) -> bool:
    """Take a token if there is one; knows nothing of processes."""
    earned = (now_ns - bucket["at_ns"]) * bucket["rate"]
    level = min(bucket["level"] + earned, bucket["burst"] * TOKEN)
    allowed = level >= TOKEN
    bucket.update(level=level - allowed * TOKEN, at_ns=now_ns, calls=bucket["calls"] + 1)
    return allowed


class Call(NamedTuple):
    """One call of `allow`: how many came before it, when it was, and the answer."""

    number: int
    at_ns: int
    allowed: bool


@shared_state(initial=full_bucket(rate=100, burst=20))
def allow(state: View[Bucket]) -> Call:
    """Ask the bucket that all processes share; the caller passes no state."""
    # Read before the transaction, clocks would come out of order: whoever waits longer is behind.
    now_ns = time.monotonic_ns()
    return Call(state["calls"], now_ns, take(state.value, now_ns))


def work(end_ns: int) -> list[Call]:
    """Ask without a pause until ``end_ns``, and at least once."""
    calls = [allow()]
    while calls[-1].at_ns < end_ns:
        calls.append(allow())
    return calls


def find_fault(calls: list[Call], bucket: Bucket, left: Bucket) -> str | None:
    """What one process would have done otherwise, from ``bucket`` to ``left``; None if nothing."""
    for call in sorted(calls):
        if call.number != bucket["calls"]:
            return f"call {bucket['calls']} is missing, or call {call.number} was made twice"
        if call.at_ns < bucket["at_ns"]:
            return f"call {call.number} came before the one that it followed"
        if take(bucket, call.at_ns) != call.allowed:
            return f"call {call.number} was {'allowed' if call.allowed else 'refused'} wrongly"
    return None if bucket == left else f"the bucket was left as {left}, not as {bucket}"


def main() -> None:
    parser = argparse.ArgumentParser(description="A token bucket that forked workers share.")
    parser.add_argument("--workers", metavar="N", type=int, default=8, help="default: 8")
    parser.add_argument("--seconds", metavar="S", type=float, default=1, help="default: 1")
    parser.add_argument("--rate", metavar="R", type=int, default=100, help="default: 100")
    parser.add_argument("--burst", metavar="B", type=int, default=20, help="default: 20")
    args = parser.parse_args()
    if min(args.workers, args.rate, args.burst) < 1:
        parser.error("workers, rate and burst are at least 1")

    allow.share.set(full_bucket(args.rate, args.burst))
    end_ns = time.monotonic_ns() + int(args.seconds * 1e9)  # One clock for the whole machine.
    with multiprocessing.get_context("fork").Pool(args.workers) as pool:
        answers = pool.map(work, [end_ns] * args.workers, chunksize=1)
    calls = [call for of_one_worker in answers for call in of_one_worker]

    took_s = (max(calls).at_ns - min(calls).at_ns) / 1e9
    most = args.burst + args.rate * took_s
    print(f"{args.workers} workers asked {len(calls)} times in {took_s:.3f} s")
    print(f"allowed: {sum(call.allowed for call in calls)}")
    print(f"a bucket of {args.burst} that earns {args.rate}/s gives at most {most:.3f}")
    fault = find_fault(calls, full_bucket(args.rate, args.burst), allow.share.get())
    if fault is not None:
        sys.exit(f"check: NOT what one process would allow: {fault}")
    print("check: each answer is what one process would give")


if __name__ == "__main__":
    main()
