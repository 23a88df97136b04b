"""`examples/rate_limiter.py` and `examples/memo.py`, run as their users run them and as modules.

Both end with a check of their own. That it can fail is shown by planting what it is to find.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from support import in_child
from support.hosts import EXAMPLES, ROOT, fails, imported

TOKEN = 10**9
MS = 10**6  # In nanoseconds.

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the examples fork their workers"),
    pytest.mark.timeout(240),
]


def run(name: str, *args: object) -> tuple[int, str, str]:
    """The example as a script in a process of its own: exit code, output and errors."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=100)
    finally:
        with suppress(ProcessLookupError):  # Workers that hang must not outlive the test.
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


@pytest.fixture
def limiter() -> Iterator[Any]:
    with imported("rate_limiter") as module:
        yield module


@pytest.fixture
def memo() -> Iterator[Any]:
    with imported("memo") as module:
        yield module


# --- The rate limiter ------------------------------------------------------------------------

ONE_PROCESS = "check: each answer is what one process would give"
TOLD = re.compile(r"(\d+) workers asked (\d+) times in ([\d.]+) s\nallowed: (\d+)\n")


def test_all_workers_together_are_allowed_what_one_process_would_be() -> None:
    code, out, err = run("rate_limiter", "--seconds", 0.1, "--rate", 200, "--burst", 5)

    found = TOLD.match(out)
    assert code == 0, err
    assert found is not None
    assert out.endswith(f"{ONE_PROCESS}\n")
    assert found[1] == "8"
    assert 5 <= int(found[4]) <= 5 + 200 * (float(found[3]) + 0.0005)  # As it was rounded.


def test_the_burst_is_one_for_all_workers() -> None:
    code, out, err = run("rate_limiter", "--seconds", 0, "--rate", 1, "--burst", 6)

    found = TOLD.match(out)
    assert code == 0, err
    assert found is not None
    assert (found[1], found[2]) == ("8", "8")
    assert 6 <= int(found[4]) <= min(8, 6 + float(found[3]) + 0.0005)


def test_a_bucket_gives_its_burst_and_each_whole_token_earned(limiter: Any) -> None:
    for rate, burst in [(1, 1), (30, 5), (333, 20), (999, 2)]:
        bucket, start_ns, allowed = limiter.full_bucket(rate, burst), 12_345_678_901, 0
        for asked in range(1, 5001):
            since_ns = (asked - 1) * MS
            allowed += limiter.take(bucket, start_ns + since_ns)
            assert allowed == min(asked, burst + rate * since_ns // TOKEN)


def test_an_idle_bucket_earns_no_more_than_its_burst(limiter: Any) -> None:
    bucket = limiter.full_bucket(rate=1000, burst=3)
    for now_ns in (MS, 10**15):
        assert [limiter.take(bucket, now_ns) for _ in range(5)] == [True] * 3 + [False] * 2


def test_calls_without_the_lock_are_found_out(limiter: Any, without_the_lock: None) -> None:
    said = fails(limiter.main, "--workers", 2, "--seconds", 0)

    assert said == (
        "check: NOT what one process would allow: call 1 is missing, or call 0 was made twice"
    )


def record(limiter: Any) -> tuple[list[Any], dict[str, int]]:
    """Twenty calls, one each millisecond, of a bucket of three that earns one in four calls."""
    bucket, calls = limiter.full_bucket(rate=250, burst=3), []
    for number in range(20):
        now_ns = TOKEN + number * MS
        calls.append(limiter.Call(number, now_ns, limiter.take(bucket, now_ns)))
    return calls, bucket


def test_the_record_of_one_process_is_without_fault_in_any_order(limiter: Any) -> None:
    calls, left = record(limiter)

    assert limiter.find_fault(calls[::-1], limiter.full_bucket(250, 3), left) is None


def allow_one_more(calls: list[Any]) -> None:
    at = next(i for i, call in enumerate(calls) if not call.allowed)
    calls[at] = calls[at]._replace(allowed=True)


def refuse_one_more(calls: list[Any]) -> None:
    calls[0] = calls[0]._replace(allowed=False)


def repeat_a_number(calls: list[Any]) -> None:
    calls[7] = calls[7]._replace(number=6)


def swap_two_clocks(calls: list[Any]) -> None:
    # Both refused, with no token earned in between: only the order tells.
    first, second = calls[5], calls[6]
    calls[5:7] = [first._replace(at_ns=second.at_ns), second._replace(at_ns=first.at_ns)]


def lose_the_last(calls: list[Any]) -> None:
    calls.pop()


def lose_one(calls: list[Any]) -> None:
    del calls[6]


@pytest.mark.parametrize(
    ("falsify", "message"),
    [
        (allow_one_more, "was allowed wrongly"),
        (refuse_one_more, "call 0 was refused wrongly"),
        (repeat_a_number, "call 7 is missing, or call 6 was made twice"),
        (swap_two_clocks, "call 6 came before the one that it followed"),
        (lose_one, "call 6 is missing, or call 7 was made twice"),
        (lose_the_last, "the bucket was left as"),
    ],
)
def test_any_other_record_is_found_out(
    limiter: Any, falsify: Callable[[list[Any]], None], message: str
) -> None:
    calls, left = record(limiter)
    falsify(calls)

    assert message in str(limiter.find_fault(calls, limiter.full_bucket(250, 3), left))


# --- The memo --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_key_is_computed_once_over_all_workers(method: str) -> None:
    code, out, err = run("memo", "--method", method, "--workers", 2, "--keys", 7, "--repeats", 5)

    assert code == 0, err
    assert out == (
        f"35 calls in 2 workers ({method})\n"
        "computed: 7, for 7 keys\n"
        "check: each key was computed once\n"
    )


def test_a_key_that_two_workers_compute_is_found_out(memo: Any, without_the_lock: None) -> None:
    args = ("--method", "fork", "--workers", 2, "--keys", 1, "--repeats", 2)

    assert fails(memo.main, *args) == "check: NOT once each: {1000: 2}"


def test_keys_that_nobody_computed_are_found_out(memo: Any) -> None:
    for key in range(1000, 1003):
        memo.count_primes(key)

    assert fails(memo.main, "--method", "fork", "--keys", 3) == "check: NOT once each: {}"


def test_what_one_process_computed_another_only_looks_up(memo: Any) -> None:
    assert in_child(memo.count_primes, 100) == 25
    assert memo.count_primes(100) == 25
    assert memo.computed_here == []


@pytest.mark.parametrize("handed_on", [True, False])
def test_a_spawned_worker_knows_the_cache_only_if_the_function_was_handed_on(
    memo: Any, handed_on: bool
) -> None:
    memo.count_primes(100)
    by_name = "(m := __import__('memo')).ask(m.count_primes, 100)"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        if handed_on:
            assert pool.apply(memo.ask, (memo.count_primes, 100)) == (25, [])
        assert pool.apply(eval, (by_name,)) == (25, [] if handed_on else [100])


def test_each_choice_of_arguments_has_an_answer_of_its_own(memo: Any) -> None:
    made = []

    @memo.memo
    def join(*words: str, by: str = " ") -> str:
        made.append((words, by))
        return by.join(words)

    for _ in range(2):
        assert join("a", "b") == "a b"
        assert join("b", "a") == "b a"
        assert join("a", "b", by="-") == "a-b"
    assert len(made) == 3


def test_a_computation_that_fails_is_made_again(memo: Any) -> None:
    tries = iter([ConnectionError("try again"), None])

    @memo.memo
    def fetch(name: str) -> str:
        if err := next(tries):
            raise err
        return name.upper()

    with pytest.raises(ConnectionError, match="try again"):
        fetch("a")
    assert [fetch("a"), fetch("a")] == ["A", "A"]


def test_a_function_that_calls_itself_computes_each_step_once(memo: Any) -> None:
    steps = []

    @memo.memo
    def fibonacci(n: int) -> int:
        steps.append(n)
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(40) == 102334155
    assert sorted(steps) == list(range(41))
    assert fibonacci.share.version == 2  # One transaction for all.


# --- Both ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("rate_limiter", ["--workers", "0"], "workers, rate and burst are at least 1"),
        ("memo", ["--repeats", "0"], "workers, keys and repeats are at least 1"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(
    name: str, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with imported(name) as module:
        code = fails(module.main, *args)

    out, err = capsys.readouterr()
    assert (code, out) == ("2", "")
    assert message in err.splitlines()[-1]


# --- Stored functions ------------------------------------------------------------------------


def test_a_stored_rule_keeps_its_rate_and_one_that_asks_has_the_new_one() -> None:
    code, out, err = run("rules")
    assert code == 0, err
    assert out.endswith(": 110.0 110.0 150.0 120.0\n")


def test_the_rules_own_check_finds_a_rule_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    with imported("rules") as rules:
        monkeypatch.setattr(rules, "asking", lambda rate: rules.fixed(rate.get()))
        assert rules.run() != [110.0, 110.0, 150.0, 120.0]


# --- camera ------------------------------------------------------------------------------------


def test_no_frame_of_the_camera_is_torn() -> None:
    pytest.importorskip("numpy")
    code, out, err = run("camera", "--seconds", 2)
    assert code == 0, err
    assert re.search(r"^Share: .* [1-9]\d* looked at, 0 torn$", out, re.MULTILINE), out


def test_the_cameras_own_check_finds_a_torn_frame() -> None:
    numpy = pytest.importorskip("numpy")
    with imported("camera") as camera:
        frame = numpy.zeros(camera.SHAPE, "u1")
        camera.draw(frame, 7)
        assert camera.is_whole(frame)
        frame[500:] = 8
        assert not camera.is_whole(frame)
