"""`examples/web_app.py` under gunicorn: each request is counted once, whoever is killed.

A client that gets no answer sends its request again, under the same id. So every request is
answered in the end, and the answers are checked against what one process would have given: by
`find_fault` of `examples/rate_limiter.py`, which asks a plain bucket at the very same times.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import signal
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pytest
from support.hosts import EXAMPLES, ROOT, children, run, started, until_ended
from support.media import unlink_all
from support.servers import (
    CLIENTS,
    LIMIT,
    CutError,
    Server,
    count_2000_while_workers_are_killed,
    fault,
)

from mmapshare import Share, SharedDict, list_shares

pytest.importorskip("gunicorn")

PLANTED = ROOT / "tests" / "support"
SOON = ("--graceful-timeout", 3)
"""gunicorn's SIGTERM is lost on a worker that is just starting, in another's place."""


@pytest.fixture(autouse=True)
def no_names_are_left() -> Iterator[None]:
    yield
    unlink_all()


@contextlib.contextmanager
def serving(home: Path, app: str, *options: object, **environ: str) -> Iterator[Server]:
    """gunicorn with four workers, as the example says, at a port that nobody else has."""
    command = [sys.executable, "-m", "gunicorn", "--workers", 4, "--chdir", EXAMPLES]
    command += ["--pythonpath", PLANTED, "--bind", "127.0.0.1:0"]
    command += ["--config", PLANTED / "planted_gunicorn.py", *options, app]
    ready = Share(0)
    more = {"READY": pickle.dumps(ready).hex(), **environ}
    with contextlib.closing(ready), started(*command, home=home, **more) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(rb"Listening at: http://127.0.0.1:(\d+)", line):
                break
        else:
            raise AssertionError("gunicorn has ended")

        def wait_for(count: int) -> None:
            assert ready.wait(lambda workers: workers >= count, timeout=60)

        wait_for(4)
        yield Server(process, int(found[1]), wait_for)


@contextlib.contextmanager
def serving_with_traps(
    home: Path, *options: object, **environ: str
) -> Iterator[tuple[Server, SharedDict[Any, Any]]]:
    """The app that a test can stop in mid-transaction, and its region, which outlives it here."""
    more = {"TRAPS": str(home), **environ}
    with serving(home, "planted_web_app:app", *options, **more) as server:
        requests: SharedDict[Any, Any] = SharedDict.open("web_app.requests", create=False)
        try:
            yield server, requests
        finally:
            requests.close()


# --- Many requests ---------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["by-name", "preload"])
def test_2000_requests_are_counted_once_each_whoever_is_killed(
    tmp_path: Path, options: tuple[object, ...]
) -> None:
    with serving_with_traps(tmp_path, *options, *SOON, **LIMIT) as (server, requests):
        first_workers = set(children(server.pid))
        answers = count_2000_while_workers_are_killed(server, tmp_path)
        # A worker has one request at a time, and the others wait at the listening socket.
        assert 2 <= len(server.cut) <= 4, server.cut
        assert {answer["worker"] for answer in answers} - first_workers
        assert server.end() == 0
        assert requests["bucket"]["calls"] == 2000


def test_workers_that_are_recycled_and_reloaded_cut_nobody_and_go_on_counting(
    tmp_path: Path,
) -> None:
    options = ("--max-requests", 40, "--max-requests-jitter", 20, *SOON)
    with (
        serving(tmp_path, "web_app:app", *options) as server,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        jobs = [clients.submit(server.visit, n) for n in range(500)]
        for done, _ in enumerate(as_completed(jobs), start=1):
            if done == 200:
                server.process.send_signal(signal.SIGHUP)
        answers = [job.result()[1] for job in jobs]

        assert server.cut == []
        assert sorted(answer["number"] for answer in answers) == list(range(500))
        assert len({answer["worker"] for answer in answers}) > 8
        assert server.end() == 0


def test_a_rule_that_a_request_swaps_holds_in_every_worker_from_then_on(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "web_app:app") as server,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        before = list(clients.map(server.visit, range(100)))
        meanwhile = [clients.submit(server.visit, n) for n in range(100, 200)]
        assert server.ask("/rule", "rule=percent&value=30") == (200, {"rule": 2})
        after = list(clients.map(server.visit, range(200, 300)))

    answered = [*before, *[job.result() for job in meanwhile], *after]
    assert {answer["rule"] for _, answer in before} == {1}
    assert {answer["rule"] for _, answer in after} == {2}
    assert len({answer["worker"] for _, answer in after}) > 1
    for user, (_, answer) in enumerate(answered):
        in_30_percent = zlib.crc32(str(user).encode()) % 100 < 30
        assert answer["feature"] == (answer["rule"] == 1 or in_30_percent)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["patched-before", "patched-after"])
def test_requests_in_greenlets_are_counted_once_each(
    tmp_path: Path, options: tuple[object, ...]
) -> None:
    """Two greenlets of a worker joined one block: 158 of 200 requests ended with an error."""
    pytest.importorskip("gevent")
    counts = Share(0)
    more = {"COUNTS": pickle.dumps(counts).hex(), "PYTHONWARNINGS": "ignore"}
    app = "planted_greenlet_app:app"
    with (
        contextlib.closing(counts),
        serving(tmp_path, app, "--worker-class", "gevent", *options, **more) as server,
        ThreadPoolExecutor(3 * CLIENTS) as clients,
    ):
        answers = list(clients.map(lambda _: server.ask("/"), range(200)))
        assert sorted(answers) == [(200, number) for number in range(200)]
        assert counts.get() == 200


# --- Ends in the middle of a transaction -----------------------------------------------------


@pytest.mark.parametrize(
    ("end", "options", "counted"),
    [
        pytest.param(signal.SIGTERM, (), True, id="sigterm-waits-for-it"),
        pytest.param(signal.SIGTERM, ("--graceful-timeout", 1), False, id="graceful-timeout-kills"),
        pytest.param(signal.SIGQUIT, (), False, id="sigquit-raises-in-it"),
    ],
)
def test_what_ends_gunicorn_within_a_transaction_leaves_all_or_nothing(
    tmp_path: Path, end: int, options: tuple[object, ...], counted: bool
) -> None:
    fifo = tmp_path / "stop-1"
    os.mkfifo(fifo)
    with (
        serving_with_traps(tmp_path, *options) as (server, requests),
        ThreadPoolExecutor(1) as client,
    ):
        server.ask("/")
        asked = client.submit(server.ask, "/")
        with fifo.open("wb") as gate:  # Opens once a worker is there.
            holder = requests.info().holder_pid
            workers = set(children(server.pid))
            assert holder in workers
            with until_ended(workers - {holder}):  # They have had their signal; so has it.
                server.process.send_signal(end)
            with until_ended(workers):
                if counted:
                    gate.close()
                    assert asked.result()[1]["number"] == 1
                else:
                    with pytest.raises(CutError):
                        asked.result()
                assert server.ends() == 0

        assert requests["bucket"]["calls"] == 1 + counted
        with requests.locked(timeout=0):  # Free, now that nobody is left.
            pass
        assert requests.info().holders_found_dead == bool(options)


def test_a_worker_that_gunicorn_gives_up_within_a_transaction_holds_nobody_up(
    tmp_path: Path,
) -> None:
    fifo = tmp_path / "stop-0"
    os.mkfifo(fifo)
    with (
        serving_with_traps(tmp_path, "--timeout", 1, *SOON) as (server, requests),
        ThreadPoolExecutor(2) as clients,
    ):
        lost = clients.submit(server.ask, "/")
        with fifo.open("wb"):
            fifo.unlink()
            waiting = clients.submit(server.visit, 0)
            with pytest.raises(CutError):
                lost.result()
            assert waiting.result()[1]["number"] == 0
        assert requests["bucket"]["calls"] == 1
        assert server.end() == 0


# --- What must be told -----------------------------------------------------------------------


def test_the_next_gunicorn_goes_on_counting_until_the_names_are_forgotten(tmp_path: Path) -> None:
    for options, number in (((), 0), (("--preload",), 1)):
        with serving(tmp_path, "web_app:app", *options) as server:
            assert server.visit(number)[1]["number"] == number
            assert server.end() == 0
    assert [listed.name for listed in list_shares()] == ["web_app.requests", "web_app.rule"]
    assert run(EXAMPLES / "web_app.py", "--forget", home=tmp_path) == (0, "", "")
    assert list_shares() == []


def test_a_request_chooses_among_rules_and_brings_no_code(tmp_path: Path) -> None:
    with serving(tmp_path, "web_app:app") as server:
        for body in ("rule=eval&value=1", "rule=percent&value=ten", "", "rule=__class__&value=1"):
            status, told = server.ask("/rule", body)
            assert status == 400
            assert told["rules"] == ["everybody", "some", "percent"]
        assert server.ask("/rule", "rule=some&value=anna,ben") == (200, {"rule": 2})
        assert [server.ask(f"/?user={name}")[1]["feature"] for name in ("ben", "eve")] == [
            True,
            False,
        ]
        assert server.ask("/elsewhere")[0] == 404


def test_a_planted_transaction_without_the_lock_is_found_out(tmp_path: Path) -> None:
    with (
        serving_with_traps(tmp_path, "--preload", UNLOCKED="1") as (server, requests),
        ThreadPoolExecutor(2) as clients,
    ):
        answers = [answer for _, answer in clients.map(server.visit, range(2))]
        told = fault(answers, requests["bucket"], rate=1000, burst=2000)

    assert told == "call 1 is missing, or call 0 was made twice"
