"""What is wrong with a URL or a server is one line, without a password."""

import os
import sys

import pytest
from support import redis_server
from support.command import as_json, complaint, printed, program, running
from support.redis_server import Server

from mmapshare import Share

pytestmark = pytest.mark.skipif(bool(redis_server.why_not()), reason=redis_server.why_not())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://localhost/0", "begins with none of redis://"),
        ("redis://localhost", "names no database"),
        ("redis://localhost/0/no name", "ends with no name for a share"),
        ("redis://localhost/0/jobs?hush=1", "has an option that redis-py does not know"),
        ("redis://localhost/0/jobs?socket_timeout=soon", "could not convert"),
        ("redis://u:hush@localhost", "'redis://localhost' names no database"),
        ("redis://u:hush@x@localhost", "'redis://localhost' names no database"),
        ("redis://:hu/sh@localhost/0/jobs", "a port that is no number"),
        ("redis://user:hush/0/jobs", "a port that is no number"),
        ("redis://hu/sh@localhost/0/jobs", "names no database"),
        ("redis://localhost/0/no name?password=hush", "ends with no name"),
    ],
)
def test_a_wrong_url_is_said_without_what_may_be_a_password(url, says):
    said = complaint("show" if "/jobs" in url or "name" in url else "ls", url)
    assert says in said
    assert len(said.splitlines()) == 1
    assert "hush" not in said.replace("argument 'hush'", "").replace("?hush=1", "")
    assert "sh@" not in said


def test_one_server_is_no_share(server):
    assert "ends with no name for a share" in complaint("show", server.url)


def test_a_server_that_cannot_be_reached_is_one_line(server):
    url = f"redis://u:hush@127.0.0.1:{redis_server.free_port()}/0"
    share = f"{url}/jobs?socket_timeout=0.1"
    for args in (("ls", url), ("top", f"{url}?socket_timeout=0.1"), ("show", share), ("rm", share),
                 ("get", share, "--load")):  # fmt: skip
        (line,) = complaint(*args).splitlines()
        assert line.startswith(f"mmapshare: OpenError: {url.replace('u:hush@', '')} cannot be")
        assert "refused" in line


def test_a_password_is_used_and_never_printed():
    with Server("--requirepass", "hush") as server:
        url = f"redis://:hush@127.0.0.1:{server.port}/0"
        Share.open(f"{url}/jobs", 5)
        said = (
            printed("ls", url) + printed("show", f"{url}/jobs") + printed("top", url, "--times=1")
        )
        said += printed("ls", url, "--json") + printed("rm", f"{url}/jobs", "--yes")
        assert said.count(f"{server.url}/jobs") == 5
        for wrong in (server.url, url.replace("hush", "hush2")):
            said += complaint("ls", wrong)
        assert "hush" not in said


def test_a_server_that_goes_while_it_is_looked_at_is_one_line():
    with Server() as server:
        Share.open(f"{server.url}/jobs?socket_timeout=0.2", 5)
        errors = {"stderr": -1}
        with running("watch", f"{server.url}/jobs?socket_timeout=0.2", **errors) as watching:
            watching.stdout.readline()
            server.kill()
            said = watching.stderr.read()
            assert watching.wait() == 1
    assert said.startswith(f"mmapshare: OpenError: {server.url} cannot be reached: ")
    assert len(said.splitlines()) == 1


def test_what_another_mmapshare_has_made_is_listed_with_what_is_wrong(server):
    Share.open(f"{server.url}/jobs", 5)
    server.command("HSET", "mmapshare:{jobs}", "fmt", "99")
    (row,) = as_json("ls", server.url)["shares"]
    assert "of another mmapshare's format" in row["trouble"]
    server.command("HSET", "mmapshare:{jobs}", "fmt", "1", "f", "no value")
    (row,) = as_json("ls", server.url)["shares"]
    assert row["value"].startswith("not shown: CorruptRegionError: what the server has is no value")
    assert row["version"] == 1


def test_a_server_needs_the_extra(tmp_path, server):
    (tmp_path / "redis.py").write_text("raise ImportError('no redis')")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    (line,) = complaint("ls", server.url, by=program, env=env).splitlines()
    assert line.endswith("redis-py, which is not installed: pip install 'mmapshare[redis]'")
