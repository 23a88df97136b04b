"""`watch` and `top`: shares as they change."""

import json
import os
import signal
import sys

import pytest
from support import Child, inside
from support.command import as_json, command, id_of, on_a_terminal, printed, running
from support.media import unlink_all

from mmapshare import Share, SharedDict


@pytest.fixture(autouse=True)
def no_names_are_left():
    yield
    unlink_all()


def _said(process):
    """The next line, without its time."""
    return process.stdout.readline().rstrip("\n")[len("12:34:56  ") :]


def _changed(process):
    """The same without the holder, who may not have let go by then."""
    return _said(process).partition("  held by ")[0]


def test_watch_follows_versions_until_the_name_is_gone():
    share = Share.open("jobs", {"n": 0})
    with running("watch", "jobs") as watching:
        assert _said(watching) == "version 1  {'n': 0}"
        for n in range(1, 4):
            share.set({"n": n})
            assert _said(watching) == f"version {n + 1}  {{'n': {n}}}"
        share.set({"n": 10})
        share.unlink()
        assert "version 5  {'n': 10}" in watching.stdout.read()
        assert watching.wait() == 0
    share.close()


def test_watch_tells_the_last_version_of_a_share_that_ends_meanwhile(monkeypatch, capsys):
    share, asked = Share.open("jobs", 1), []
    really = inside.has_ended_of_watch

    def has_ended(region, found):
        asked.append(True)
        if len(asked) == 2:  # Between two looks.
            share.set(2)
            share.unlink()
        return really(region, found)

    monkeypatch.setattr(*inside.at("has_ended_of_watch"), has_ended)
    assert inside.watch("jobs", None, None, as_json=False) == 0
    told = [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert told == ["version 1  1", "version 2  2", ""]
    share.close()


def test_watch_says_what_keys_have_changed():
    shared = SharedDict({f"k{n}": n for n in range(20)})
    with running("watch", id_of(shared)) as watching:
        assert _changed(watching).startswith("version 1  {'k0': 0, ")
        shared["k7"] = "new"
        assert _changed(watching) == "version 2  20 keys; 'k7': 'new'"
        del shared["k3"]
        assert _changed(watching) == "version 3  19 keys; -'k3'"
        shared.update({f"k{n}": -n for n in range(1, 11)})
        assert _changed(watching).endswith("20 keys; 'k1': -1, 'k2': -2, 'k4': -4, 'k5': -5, "
                                        "'k6': -6, 'k7': -7, ... 4 more")  # fmt: skip
        shared.update(dict.fromkeys(range(20_000)))
        assert _changed(watching).endswith("20,020 keys")
        shared.clear()
        assert _changed(watching).endswith("{}")


def test_watch_counts_what_it_did_not_see():
    share = Share(0)
    with running("watch", id_of(share)) as watching:
        _said(watching)
        os.kill(watching.pid, signal.SIGSTOP)
        for n in range(5):
            share.set(n + 1)
        os.kill(watching.pid, signal.SIGCONT)
        assert _said(watching) == "version 6 (of 5 since)  5"
        share.lock()
        share.set(6)
        assert _said(watching).startswith(f"version 7  6  held by pid {os.getpid()} (")
        share.unlock()


def test_watch_goes_on_while_anybody_has_the_share_and_ends_with_the_last():
    def make(child):
        share = Share("first")
        child.say(share)
        child.hear()

    def go_on(child):
        share = child.hear()
        child.say()
        share.set(child.hear())
        child.hear()

    first, second = Child(make), Child(go_on)
    share = first.hear()
    second.say(share)
    second.hear()
    begin = id_of(share)
    share.close()
    with running("watch", begin) as watching:
        assert _said(watching) == "version 1  'first'"
        first.say()
        first.result()  # The one through which it was found.
        second.say("second")
        assert _said(watching) == "version 2  'second'"
        second.say()
        second.result()
        assert watching.stdout.read() == "it has ended\n"
        assert watching.wait() == 0


def test_watch_ends_when_it_was_asked_to():
    share = Share.open("jobs", 1)
    assert printed("watch", "jobs", "--times", "1").endswith("version 1  1\n")
    assert printed("watch", "jobs", "--seconds", "0.1").endswith("version 1  1\n")
    found = as_json("watch", "jobs", "--times", "1")
    assert (found["version"], found["value"], found["holder_pid"]) == (1, "1", None)
    with running("watch", "jobs", "--json") as watching:
        assert json.loads(watching.stdout.readline())["version"] == 1
        share.unlink()
        assert watching.stdout.read() == ""
    with running("watch", id_of(share)) as watching:
        _said(watching)
        watching.send_signal(signal.SIGINT)
        assert watching.wait() == 0
    share.close()


def test_top_tells_commits_and_waits_a_second():
    share, idle = Share(0), Share.open("idle", 0)

    def commit(child):
        child.say()
        while share.get() >= 0:
            share.update(lambda n: n + 1 if n >= 0 else n)

    children = [Child(commit) for _ in range(2)]
    for child in children:
        child.hear()
    rounds = printed("top", "--times", "2", "--every", "0.5", "--json").splitlines()
    for child in children:
        child.kill()
    first, second = [json.loads(line)["shares"] for line in rounds]
    busy = {row.get("region_id"): row for row in second}
    ours = {id_of(share), id_of(idle)}
    assert [row["commits_per_s"] for row in first if row.get("region_id") in ours] == [0.0, 0.0]
    assert busy[id_of(share)]["commits_per_s"] > 10
    assert busy[id_of(idle)]["commits_per_s"] == 0
    assert second.index(busy[id_of(share)]) < second.index(busy[id_of(idle)])
    idle.close()


def test_top_lists_in_text_what_has_something_to_say():
    share = Share.open("jobs", 0)
    users = [Child(lambda child: child.hear()) for _ in range(4)]
    text = printed("top", "--times", "2", "--every", "0.01")
    for user in users:
        user.say()
        user.result()
    assert "5 processes" in text
    heads = [line.split() for line in text.splitlines() if line.startswith("where")]
    assert len(heads) == 2
    assert {"where", "what", "commits/s", "used", "resident", "users"} <= set(heads[0])
    assert "holder" not in heads[0] or "pid" in text
    share.close()


def test_top_of_nothing_says_so_and_a_damaged_share_stays_in_it(tmp_path):
    alone = os.environ | {"MMAPSHARE_DIR": str(tmp_path / "names")}
    os.mkdir(tmp_path / "names", 0o700)
    (tmp_path / "names" / "bad.mmapshare").write_bytes(b"damaged")
    for args in (("--times", "1"), ("--times", "1", "--json")):
        done = command("top", *args, env=alone)
        assert (done.returncode, done.stderr) == (0, "")
        assert "bad" in done.stdout


def test_ctrl_c_ends_top_well_and_others_not():
    with running("top", "--every", "0.05") as top:
        heads = 0
        while heads < 2:
            heads += top.stdout.readline().startswith("where")
        top.send_signal(signal.SIGINT)
        top.stdout.read()
        assert top.wait() == 0


# --- On a terminal ---------------------------------------------------------------------------


@pytest.fixture
def without_rich(tmp_path):
    """An environment whose programs find no rich."""
    (tmp_path / "rich.py").write_text("raise ImportError('no rich')")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}


def test_a_terminal_gets_colours_with_rich_and_plain_text_without(without_rich):
    share = Share.open("jobs", {"done": 1})
    coloured = on_a_terminal("ls")
    assert "\x1b[1mjobs" in coloured
    assert "{'done': 1}" in coloured
    plain = on_a_terminal("ls", env=without_rich)
    assert "\x1b" not in plain
    assert "jobs  " in plain
    share.close()


def test_top_draws_in_one_place(without_rich):
    share = Share.open("jobs", 0)
    drawn = on_a_terminal("top", "--times", "2", "--every", "0.1")
    assert "\x1b[?1049h" in drawn  # A screen of its own.
    assert drawn.count("commits/s") == 2
    plain = on_a_terminal("top", "--times", "2", "--every", "0.1", env=without_rich)
    assert plain.count("\x1b[H\x1b[2J") == 2
    share.close()


@pytest.mark.parametrize("columns", [200, 100, 70, 45])
def test_lines_fit_a_narrow_terminal_and_keep_what_matters(columns, without_rich):
    share = Share.open("jobs", {"done": list(range(100))})
    lines = on_a_terminal("ls", "jobs", columns=columns, env=without_rich).splitlines()
    assert max(map(len, lines)) <= columns
    (line,) = [line for line in lines if line.startswith("jobs")]
    assert "{'done'" in line
    assert ("resident" in lines[0]) == (columns > 45)
    share.close()
