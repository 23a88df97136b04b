"""Servers of `examples/web_app.py`, and what their clients ask and hear."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import attrs

from .hosts import children, imported, kill_a_child, until_ended

CLIENTS = 8
STATUS = {True: 200, False: 429}


class CutError(Exception):
    """The connection ended, or the server itself answered that a worker could not."""


@attrs.define
class Server:
    """A server that listens, and what its clients went through."""

    process: subprocess.Popen[bytes]
    port: int
    started: Callable[[int], object]
    """Waits until so many workers have been started in all, each ready to answer."""
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


def fault(answers: list[Any], bucket: dict[str, int], rate: int, burst: int) -> str | None:
    """What one process would have answered otherwise."""
    with imported("rate_limiter") as limiter:
        calls = [limiter.Call(*map(answer.get, limiter.Call._fields)) for answer in answers]
        told: str | None = limiter.find_fault(calls, limiter.full_bucket(rate, burst), bucket)
        return told


def count_2000_while_workers_are_killed(server: Server, traps: Path) -> list[Any]:
    """Two workers are killed within a transaction, two anywhere; all are replaced.

    The last 500 requests wait for two of those that take their places, at least. The server was
    started with `LIMIT`. Returns the answers.
    """
    for number in (300, 1400):
        (traps / f"kill-{number}").touch()
    with ThreadPoolExecutor(CLIENTS) as clients:
        jobs = [clients.submit(server.visit, n) for n in range(1500)]
        seen: set[int] = set()
        for done, job in enumerate(as_completed(jobs), start=1):
            seen.add(job.result()[1]["worker"])
            if done in {600, 1000}:
                kill_a_child(server.pid, seen)
        server.started(6)
        jobs += [clients.submit(server.visit, n) for n in range(1500, 2000)]
    answered = [job.result() for job in jobs]
    answers = [answer for _, answer in answered]
    status, told = server.ask("/stats")
    assert status == 200
    assert fault(answers, told["bucket"], rate=1, burst=1200) is None
    assert sorted(answer["number"] for answer in answers) == list(range(2000))
    assert [status for status, _ in answered] == [STATUS[a["allowed"]] for a in answers]
    assert 1200 <= sum(answer["allowed"] for answer in answers) < 2000
    assert 2 <= told["killed_in_a_transaction"] <= 4
    assert told["commits"] == 2001
    assert not list(traps.glob("kill-*"))
    return answers


LIMIT = {"RATE": "1", "BURST": "1200"}
