"""The commands over a real server: shares by their URLs."""

import contextlib
import json
import os
import threading

import numpy
import pytest
from support import Child, in_child, inside, redis_server
from support.command import as_json, command, complaint, id_of, printed, program, running

from mmapshare import Share, SharedDict, ShareNotFoundError

pytestmark = pytest.mark.skipif(bool(redis_server.why_not()), reason=redis_server.why_not())


class Order:
    """Loaded as itself, and shown as a placeholder."""

    def __repr__(self):
        return "an order"


class Runs:
    """Runs a command where it is loaded."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


# --- What is there ---------------------------------------------------------------------------


def test_ls_lists_the_shares_of_a_server_and_nothing_else_of_it(server):
    share = Share.open(f"{server.url}/jobs", {"done": 1})
    shared = SharedDict.open(f"{server.url}/{{team}}counts", {"a": 1, (1, 2): None})
    Share.open(f"{server.url}/empty")
    server.command("SET", "mmapshare:{no}", "hash")
    server.command("HSET", "mmapshare:{other}", "x", "y")
    server.command("HSET", "others", "id", "0123456789abcdef")
    server.command("EVAL", "for n = 1, 3000 do redis.call('SET', 'k' .. n, '') end", 0)
    rows = as_json("ls", server.url)["shares"]
    assert [(row["where"], row["what"], row["version"], row["value"]) for row in rows] == [
        (f"{server.url}/empty", "Share", 0, "empty"),
        (f"{server.url}/jobs", "Share", 1, "{'done': 1}"),
        (f"{server.url}/{{team}}counts", "SharedDict", 1, "{'a': 1, (1, 2): None}"),
    ]
    for row in rows:
        assert (row["kind"], row["users"], row["waiters"]) == ("redis", None, None)
        assert row["resident_bytes"] > row["used_bytes"] >= 0
    assert [row["region_id"] for row in rows[1:]] == [id_of(share), id_of(shared)]
    header, *lines = printed("ls", server.url).splitlines()
    assert "users" not in header
    assert len(lines) == 3
    assert as_json("ls", f"{server.url}/jobs")["shares"] == [rows[1]]


def test_where_is_what_the_other_commands_take(server):
    """Of a socket it ended with its database, and named none to who pasted it."""
    Share.open(f"{server.socket_url}/jobs", 1)
    Share.open(f"valkey://127.0.0.1:{server.port}/3/jobs?socket_timeout=3", 2)
    for url, value in ((server.socket_url, 1), (server.url[:-1] + "3", 2)):
        (row,) = as_json("ls", url)["shares"]
        assert row["where"] == f"{url}/jobs"
        assert as_json("get", row["where"]) == value
    # With an option it is in the address, which says so.
    (row,) = as_json("ls", f"{server.socket_url}?socket_connect_timeout=2")["shares"]
    assert as_json("get", row["where"]) == 1
    assert row["where"].endswith("/socket/0/jobs?socket_connect_timeout=2")


def test_show_tells_all_and_who_holds_the_lock(server):
    share = Share.open(f"{server.url}/jobs", 5)
    with share.locked():
        lines = printed("show", f"{server.url}/jobs").splitlines()
        found = as_json("show", f"{server.url}/jobs")
    said = {name: fact.strip() for name, fact in (line.split("  ", 1) for line in lines)}
    assert said.pop("held by").startswith(f"pid {os.getpid()} (")
    assert said | {"resident": ""} == {
        "where": f"{server.url}/jobs",
        "kind": "Share, on a server",
        "value": "5",
        "version": "1",
        "used": "5 bytes of 1.0 GiB",
        "resident": "",
        "contended waits": "0",
        "holders found dead": "0",
        "region": id_of(share),
    }
    assert (found["holder_pid"], found["holder_host"]) == (os.getpid(), None)


def test_a_holder_on_another_machine_is_said_with_its_name(server):
    share = Share.open(f"{server.url}/jobs", 5)
    with share.locked():
        holder = b"\0".join([b"far", b"77", b"another boot", b"1", b"1"])
        server.command("HSET", "mmapshare:{jobs}", "lh", holder)
        found = as_json("show", f"{server.url}/jobs")
        assert (found["holder_pid"], found["holder_host"]) == (77, "far")
        assert "pid 77 on far, " in printed("ls", server.url)


def test_what_the_server_counts_is_told(server):
    url = f"{server.url}/jobs"
    share = Share.open(url, {"n": 0})

    def hold(child):
        with share.locked():
            child.say()
            child.hear()

    holder = Child(hold)
    holder.hear()

    def die(child):
        share.lock()
        child.say()
        child.hear()

    waiter = Child(die)
    while not server.command("ZCARD", "mmapshare:{jobs}:wait") == b":1":
        pass
    holder.say()
    holder.result()
    waiter.hear()
    waiter.kill()
    share.set({"n": 1})
    found = as_json("show", url)
    assert (found["contended_waits"], found["holders_found_dead"]) == (2, 1)
    assert "dead" in printed("top", server.url, "--times", "1").splitlines()[0]


# --- Values ----------------------------------------------------------------------------------


def test_what_a_value_would_run_is_shown_and_run_by_load_alone(server, tmp_path):
    there = tmp_path / "ran"
    Share.open(f"{server.url}/jobs", [Runs(f"touch {there}")])
    SharedDict.open(f"{server.url}/counts", {"a": Runs(f"touch {there}")})
    shown = f"<{os.system.__module__}.system('touch {there}')>"
    assert printed("get", f"{server.url}/jobs") == f"[{shown}]\n"
    assert printed("get", f"{server.url}/counts") == f"{{'a': {shown}}}\n"
    for args in (("ls", server.url), ("show", f"{server.url}/counts"),
                 ("watch", f"{server.url}/jobs", "--times", "1"),
                 ("top", server.url, "--times", "1")):  # fmt: skip
        printed(*args)
    assert not there.exists()
    assert printed("get", f"{server.url}/jobs", "--load", by=program) == "[0]\n"
    assert there.exists()


def test_values_and_keys_are_found_as_they_are_written(server):
    url = f"{server.url}/counts"
    SharedDict.open(url, {"apples": 3, (1, 2): Order(), "big": numpy.zeros(1_000_000)})
    assert as_json("get", url, "--key", "apples") == 3
    assert as_json("get", url, "--key", "(1, 2)").endswith("Order()>")
    assert printed("get", url, "--key", "(1, 2)", "--load") == "an order\n"
    assert "there is no key 'pears'" in complaint("get", url, "--key", "pears")
    (row,) = as_json("ls", server.url)["shares"]
    assert row["value"].endswith("Order()>, 'big': <7.6 MiB>}")  # It stays on the server.
    assert "'big': <numpy.ndarray f8 (1000000,)>" in printed("get", url)


def test_large_values_stay_on_the_server_but_where_asked_for(server):
    url = f"{server.url}/jobs"
    share = Share.open(url, "x" * 2_000_000)
    assert as_json("show", url)["value"] == "<1.9 MiB>"
    assert len(as_json("get", url)) == 2_000_000
    share.set("x" * (65 << 20))
    assert "takes more than 64.0 MiB: --load loads it" in complaint("get", url)
    assert len(printed("get", url, "--load")) > 65 << 20


def test_what_is_signed_is_shown_and_loaded_by_who_has_the_secret(server):
    url, env = f"{server.url}/jobs", {"MMAPSHARE_SECRET": "right"}
    Share.open(url, [1, 2], secret="right")
    SharedDict.open(f"{server.url}/counts", {"a": 1}, secret="right")
    assert printed("get", url) == "[1, 2]\n"
    assert printed("get", url, "--load", env=env) == "[1, 2]\n"
    assert [row["value"] for row in as_json("ls", server.url)["shares"]] == ["{'a': 1}", "[1, 2]"]
    assert printed("get", f"{server.url}/counts", env=env) == "{'a': 1}\n"
    assert "is signed: give secret=" in complaint("get", url, "--load")
    for more in ((), ("--load",)):
        said = complaint("get", url, *more, env={"MMAPSHARE_SECRET": "wrong"})
        assert "was not signed" in said
    # What says that it is signed by nobody is not loaded by who has a secret.
    Share.open(f"{server.url}/bare", 5)
    assert "is not signed" in complaint("get", f"{server.url}/bare", "--load", env=env)
    assert printed("get", f"{server.url}/bare", env=env) == "5\n"


def test_who_loads_from_another_machine_is_warned(server):
    Share.open(f"{server.url}/jobs", 5)
    done = command("get", f"redis://127.1:{server.port}/0/jobs", "--load")  # It is no IP address.
    assert (done.returncode, done.stdout) == (0, "5\n")
    assert done.stderr.startswith(f"mmapshare: redis://127.1:{server.port}/0 is another machine")
    assert len(done.stderr.splitlines()) == 1


def test_a_share_that_goes_before_it_is_loaded_is_none(server):
    Share.open(f"{server.url}/jobs", 5)

    def look():
        with inside.found_by_id(f"{server.url}/jobs").open() as region:
            server.command("FLUSHALL")
            with pytest.raises(ShareNotFoundError, match="any more"):
                region.store(None, None)

    in_child(look)  # Whose connections no later command has.


# --- Shares as they change -------------------------------------------------------------------


@contextlib.contextmanager
def committing(share):
    """A thread adds one again and again."""
    done = threading.Event()

    def commit():
        while not done.is_set():
            share.update(lambda n: n + 1)

    thread = threading.Thread(target=commit)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _said(process):
    """The next line, without its time, and without a holder who has not let go by then."""
    line = process.stdout.readline().rstrip("\n")
    return line[len("12:34:56  ") :].partition("  held by ")[0]


def test_watch_follows_versions_until_the_share_is_gone(server):
    url = f"{server.url}/jobs"
    share = Share.open(url, {"n": 0})
    with running("watch", url) as watching:
        assert _said(watching) == "version 1  {'n': 0}"
        for n in range(1, 4):
            share.set({"n": n})
            assert _said(watching) == f"version {n + 1}  {{'n': {n}}}"
        share.unlink()
        assert watching.stdout.read() == "it has ended\n"
        assert watching.wait() == 0


def test_watch_says_which_version_a_value_is_of(server):
    url = f"{server.url}/jobs"
    with committing(Share.open(url, 1)):
        lines = map(json.loads, printed("watch", url, "--times", "5", "--json").splitlines())
        seen = [(line["value"], line["version"]) for line in lines]
    assert len(seen) == 5
    assert all(value == str(version) for value, version in seen)


def test_watch_says_what_keys_have_changed(server):
    url = f"{server.url}/counts"
    shared = SharedDict.open(url, {f"k{n}": n for n in range(20)})
    with running("watch", url) as watching:
        assert _said(watching).startswith("version 1  {'k0': 0, ")
        shared["k7"] = "new"
        assert _said(watching) == "version 2  20 keys; 'k7': 'new'"


def test_watch_goes_on_where_a_server_went_back_and_ends_with_another_share(server):
    url = f"{server.url}/jobs"
    share = Share.open(url, 1)
    share.set(2)
    with running("watch", url) as watching:
        assert _said(watching) == "version 2  2"
        server.command("HSET", "mmapshare:{jobs}", "v", "1")  # Of an older dump.
        assert _said(watching) == "version 1  2"
        server.command("HSET", "mmapshare:{jobs}", "id", "another one's id")
        assert watching.stdout.read() == "it has ended\n"


def test_watch_ends_when_it_was_asked_to(server):
    url = f"{server.url}/jobs"
    Share.open(url, 1)
    assert printed("watch", url, "--seconds", "0.1").endswith("version 1  1\n")
    assert as_json("watch", url, "--times", "1")["value"] == "1"


def test_top_tells_commits_a_second_of_what_it_was_given(server):
    share, idle = Share.open(f"{server.url}/jobs", 0), Share.open(f"{server.url}/idle", 0)
    with committing(share):
        rounds = printed("top", server.url, "--times", "2", "--every", "0.3", "--json").splitlines()
    first, second = [json.loads(line)["shares"] for line in rounds]
    assert {row["commits_per_s"] for row in first} == {0.0}
    assert [row["region_id"] for row in second] == [id_of(share), id_of(idle)]
    assert second[0]["commits_per_s"] > 10 > second[1]["commits_per_s"]


# --- rm --------------------------------------------------------------------------------------


def test_rm_takes_a_share_off_its_server_once_agreed_to(server):
    url = f"{server.url}/counts"
    SharedDict.open(url, {"a": 1})
    done = command("rm", url)
    assert (done.returncode, done.stderr) == (1, f"remove {url}? [y/N] not removed\n")
    assert as_json("rm", url, "--yes") == {"removed": url, "users": []}
    assert server.command("DBSIZE") == b":0"
    assert f"there is no share {url}" in complaint("rm", url, "--yes")
