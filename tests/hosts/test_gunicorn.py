"""`examples/web_app.py` under gunicorn: each request is counted once, whoever is killed.

A client that gets no answer sends its request again, under the same id. So every request is
answered in the end, and the answers are checked against what one process would have given: by
`find_fault` of `examples/rate_limiter.py`, which asks a plain bucket at the very same times.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.hosts import (
    EXAMPLES,
    ROOT,
    children,
    imported,
    kill_a_child,
    started,
    until_ended,
)

from mmapshare import Share, SharedDict

pytest.importorskip("gunicorn")

PLANTED = ROOT / "tests" / "support"
CLIENTS = 8
STATUS = {True: 200, False: 429}
SOON = ("--graceful-timeout", 3)
"""gunicorn's SIGTERM is lost on a worker that is just starting, in another's place."""


class CutError(Exception):
    """The connection ended, or gunicorn itself answered that a worker could not."""


@attrs.define
class Server:
    """A gunicorn that listens, and what its clients went through."""

    process: subprocess.Popen[bytes]
    port: int
    cut: list[str] = attrs.field(factory=list)
    """How requests ended without an answer of the app's."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, path: str, body: str | None = None, **headers: str) -> tuple[int, Any]:
        """The answer of the app; CutError where there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (ConnectionError, http.client.HTTPException, json.JSONDecodeError) as err:
            raise CutError(repr(err)) from err
        finally:
            connection.close()

    def visit(self, request_id: int) -> tuple[int, Any]:
        """One request, sent until it is answered."""
        while True:
            try:
                return self.ask(f"/?user={request_id}", **{"X-Request-Id": str(request_id)})
            except CutError as err:
                self.cut.append(str(err))

    def ends(self) -> int:
        """Wait for its end; returns the exit code."""
        self.process.communicate(timeout=60)
        return self.process.returncode

    def end(self) -> int:
        """End it as its users do; returns the exit code once all workers have ended too."""
        with until_ended(children(self.pid)):
            self.process.terminate()
            return self.ends()


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
        assert ready.wait(lambda workers: workers >= 4, timeout=60)
        yield Server(process, int(found[1]))


@contextlib.contextmanager
def serving_with_traps(
    home: Path, *options: object, **environ: str
) -> Iterator[tuple[Server, SharedDict[Any, Any]]]:
    """The app that a test can stop in mid-transaction, and its region, which outlives it here."""
    more = {"TRAPS": str(home), **environ}
    with serving(home, "planted_web_app:app", "--preload", *options, **more) as server:
        requests = pickle.loads((home / "handle").read_bytes())
        try:
            yield server, requests
        finally:
            requests.close()


def fault(answers: list[Any], bucket: dict[str, int], rate: int, burst: int) -> str | None:
    """What one process would have answered otherwise."""
    with imported("rate_limiter") as limiter:
        calls = [limiter.Call(*map(answer.get, limiter.Call._fields)) for answer in answers]
        told: str | None = limiter.find_fault(calls, limiter.full_bucket(rate, burst), bucket)
        return told


# --- Many requests ---------------------------------------------------------------------------


@pytest.mark.alone
def test_2000_requests_are_counted_once_each_whoever_is_killed(tmp_path: Path) -> None:
    """Two workers are killed within a transaction, two anywhere; all are replaced."""
    for number in (300, 1400):
        (tmp_path / f"kill-{number}").touch()
    limit = {"RATE": "1", "BURST": "1200"}
    with (
        serving_with_traps(tmp_path, *SOON, **limit) as (server, requests),
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        first_workers = set(children(server.pid))
        jobs = [clients.submit(server.visit, n) for n in range(2000)]
        for done, _ in enumerate(as_completed(jobs), start=1):
            if done in {600, 1000}:
                kill_a_child(server.pid)
        answered = [job.result() for job in jobs]
        answers = [answer for _, answer in answered]

        status, told = server.ask("/stats")
        assert status == 200
        assert fault(answers, told["bucket"], rate=1, burst=1200) is None
        assert sorted(answer["number"] for answer in answers) == list(range(2000))
        assert [status for status, _ in answered] == [STATUS[a["allowed"]] for a in answers]
        assert 1200 <= sum(answer["allowed"] for answer in answers) < 2000
        # A worker has one request at a time, and the others wait at the listening socket.
        assert 2 <= len(server.cut) <= 4, server.cut
        assert 2 <= told["killed_in_a_transaction"] <= 4
        assert told["commits"] == 2001
        assert not list(tmp_path.glob("kill-*"))
        assert {answer["worker"] for answer in answers} - first_workers
        assert server.end() == 0
        assert requests["bucket"]["calls"] == 2000


def test_workers_that_are_recycled_and_reloaded_cut_nobody_and_go_on_counting(
    tmp_path: Path,
) -> None:
    options = ("--max-requests", 40, "--max-requests-jitter", 20, *SOON)
    with (
        serving(tmp_path, "web_app:app", "--preload", *options) as server,
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
        serving(tmp_path, "web_app:app", "--preload") as server,
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


def test_without_preload_the_app_says_so_instead_of_counting_apart(tmp_path: Path) -> None:
    with serving(tmp_path, "web_app:app") as server:
        assert server.ask("/") == (500, {"error": "start gunicorn with --preload"})


def test_a_request_chooses_among_rules_and_brings_no_code(tmp_path: Path) -> None:
    with serving(tmp_path, "web_app:app", "--preload") as server:
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
        serving_with_traps(tmp_path, UNLOCKED="1") as (server, requests),
        ThreadPoolExecutor(2) as clients,
    ):
        answers = [answer for _, answer in clients.map(server.visit, range(2))]
        told = fault(answers, requests["bucket"], rate=1000, burst=2000)

    assert told == "call 1 is missing, or call 0 was made twice"
