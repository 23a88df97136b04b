"""`examples/many_hosts.py`, run as its users run it."""

import re
import subprocess
import sys

import pytest
from support import redis_server
from support.hosts import EXAMPLES
from support.redis_server import Server

pytestmark = [
    pytest.mark.skipif(bool(redis_server.why_not()), reason=redis_server.why_not()),
    pytest.mark.timeout(240),
]


def _run(*args):
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "many_hosts.py", *map(str, args)],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_one_host_is_cut_off_and_the_count_is_exact(tmp_path):
    files = []
    for n in range(60):
        files.append(tmp_path / f"{n}.txt")
        files[-1].write_text(f"alpha beta_{n} " * 2000)
    code, out, err = _run(*files)
    assert (code, "bob is cut off" in out) == (0, True), err
    assert "60 files, 240,000 names, exact" in out
    assert len(re.findall(r"bob-[01] gives up: the server cannot be reached", err)) == 2


def test_a_server_that_is_there_is_used_and_left_as_it_was(tmp_path):
    files = []
    for n in range(20):
        files.append(tmp_path / f"{n}.txt")
        files[-1].write_text("alpha beta " * 1000)
    with Server() as server:
        code, out, err = _run("--server", server.url, *files)
        assert (code, "20 files, 40,000 names, exact" in out) == (0, True), err
        assert server.command("DBSIZE") == b":0"
