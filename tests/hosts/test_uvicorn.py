"""`examples/web_app.py` under uvicorn, whose workers are spawned: they meet by the names."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.hosts import EXAMPLES, ROOT, environment, started
from support.media import unlink_all
from support.servers import CLIENTS, LIMIT, Server, count_2000_while_workers_are_killed

from mmapshare import Share, SharedDict

pytest.importorskip("uvicorn")


@pytest.fixture(autouse=True)
def no_names_are_left() -> Iterator[None]:
    yield
    unlink_all()


@contextlib.contextmanager
def serving(home: Path, app: str, **environ: str) -> Iterator[Server]:
    """uvicorn with four workers, as the example says, at a port that nobody else has."""
    command = [sys.executable, "-m", "uvicorn", "--workers", 4, "--app-dir", EXAMPLES]
    command += ["--port", 0, "--no-access-log", app]
    path = f"{environment(home)['PYTHONPATH']}:{ROOT / 'tests' / 'support'}"
    with started(*command, home=home, PYTHONPATH=path, **environ) as process:
        stderr = process.stderr
        assert stderr is not None
        port, ready = 0, 0

        def wait_for(count: int) -> None:
            nonlocal port, ready
            while ready < count:
                line = stderr.readline()
                assert line, "uvicorn has ended"
                if found := re.search(rb"running on \D*://127.0.0.1:(\d+)", line):
                    port = int(found[1])
                ready += b"startup complete" in line

        wait_for(4)
        yield Server(process, port, wait_for)


@pytest.mark.alone
def test_2000_requests_are_counted_once_each_whoever_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path, "planted_web_app:asgi", TRAPS=str(tmp_path), **LIMIT) as server:
        answers = count_2000_while_workers_are_killed(server, tmp_path)
        assert 2 <= len(server.cut) <= 4 * CLIENTS, server.cut
        assert len({answer["worker"] for answer in answers}) > 4
        server.end()
        assert SharedDict.open("web_app.requests", create=False)["bucket"]["calls"] == 2000


def test_a_rule_that_a_request_swaps_holds_in_every_worker_and_after_a_restart(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, "web_app:asgi") as server, ThreadPoolExecutor(CLIENTS) as clients:
        assert server.ask("/rule", "rule=some&value=7,8") == (200, {"rule": 2})
        answers = [answer for _, answer in clients.map(server.visit, range(200))]
        assert len({answer["worker"] for answer in answers}) > 1
        assert {answer["rule"] for answer in answers} == {2}
        assert [n for n, answer in enumerate(answers) if answer["feature"]] == [7, 8]
        server.process.send_signal(signal.SIGHUP)  # All workers anew.
        assert server.visit(7)[1]["number"] == answers[7]["number"]
        assert server.ask("/rule", "rule=eval&value=1")[0] == 400
        assert server.ask("/elsewhere")[0] == 404
        server.end()
    assert Share.open("web_app.rule", create=False).version == 2
