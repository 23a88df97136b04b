"""`ls`, `show` and `get`: the real command beside real shares in real processes."""

import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy
import pytest
from support import Child, inside
from support.command import (
    as_json,
    complaint,
    id_of,
    printed,
    program,
    row_of,
)
from support.media import unlink_all

import mmapshare
from mmapshare import Share, SharedDict


@pytest.fixture(autouse=True)
def no_names_are_left():
    yield
    unlink_all()


class Runs:
    """Runs a command where it is loaded."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_the_version_is_the_packages():
    assert printed("--version", by=program) == f"mmapshare {mmapshare.__version__}\n"


def test_the_script_is_the_module():
    (script,) = entry_points(group="console_scripts", name="mmapshare")
    assert script.value == "mmapshare.__main__:main"
    path = Path(sys.executable).with_name("mmapshare")
    if path.exists():  # Not where the package is only on the path.
        done = subprocess.run([path, "--version"], capture_output=True, text=True)
        assert done.stdout == f"mmapshare {mmapshare.__version__}\n"


@pytest.mark.parametrize("command", ["ls", "show", "get", "watch", "top", "rm", "trace"])
def test_each_command_explains_itself_with_three_examples(command):
    said = printed(command, "--help")
    assert said.partition("examples:\n")[2].count(f"mmapshare {command}") == 3
    assert "--json" in said
    assert "exit codes: 0" in said
    assert command in printed("--help")


@pytest.mark.parametrize(
    "args",
    [
        (), ("frob",), ("show",), ("ls", "--frob"), ("watch", "x", "--times", "0"),
        ("top", "--every", "-1"), ("top", "--every", "inf"), ("watch", "x", "--seconds", "soon"),
    ],
)  # fmt: skip
def test_a_wrong_command_ends_with_2(args):
    assert "usage: mmapshare" in complaint(*args, code=2)


# --- What is there ---------------------------------------------------------------------------


def test_each_kind_of_share_is_listed_once(tmp_path):
    named = Share.open("jobs", {"done": 0})
    durable = SharedDict.open(tmp_path / "state", {"a": 1}, durable=True)
    memfd, file = Share([1, 2], kind="memfd"), Share((3,), kind="file")
    rows = [row_of(share) for share in (named, durable, memfd, file)]
    assert [(row["where"], row["kind"], row["what"], row["value"]) for row in rows] == [
        ("jobs", "name", "Share", "{'done': 0}"),
        (str(tmp_path / "state"), "path", "SharedDict", "{'a': 1}"),
        (id_of(memfd)[:8], "memfd", "Share", "[1, 2]"),
        (id_of(file)[:8], "file", "Share", "(3,)"),
    ]
    for row in rows:
        assert (row["users"], row["version"], row["holder_pid"]) == ([os.getpid()], 1, None)
    text = printed("ls")
    assert "jobs" in text
    assert str(tmp_path / "state") in text
    for share in (durable, memfd, file):
        share.close()


def test_a_named_share_that_nobody_has_open_is_listed(tmp_path):
    Share.open("idle", 5).close()
    (row,) = [row for row in as_json("ls")["shares"] if row["where"] == "idle"]
    assert (row["users"], row["value"]) == ([], "5")
    # A file is found when it is open, or said.
    SharedDict.open(tmp_path / "state", {"a": 1}).close()
    (tmp_path / "other").write_text("no share's file")
    (tmp_path / "folder").mkdir()
    assert str(tmp_path) not in printed("ls")
    for where in (str(tmp_path), str(tmp_path / "state")):
        (row,) = as_json("ls", where)["shares"]
        assert (row["where"], row["what"]) == (str(tmp_path / "state"), "SharedDict")


def test_where_nothing_is_there_is_nothing_to_list(tmp_path):
    assert printed("ls", str(tmp_path)) == "no shares\n"
    assert as_json("ls", f"{tmp_path}/") == {"shares": []}


def test_a_share_whose_name_is_gone_is_listed_by_its_id():
    share = Share.open("jobs", 7)
    share.unlink()
    row = row_of(share)
    assert (row["where"], row["kind"], row["has_name"]) == (id_of(share)[:8], "name", False)
    assert "; nobody finds it by name" in printed("show", row["where"])
    share.close()


def test_who_opened_a_file_later_is_its_user_too(tmp_path):
    path = tmp_path / "state.mmapshare"
    share = Share.open(path, 1)

    def hold(child):
        child.say()
        signal.pause()

    child = Child(hold)
    child.hear()
    program = f"from mmapshare import Share; s = Share.open({str(path)!r}); print(); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    other.stdout.readline()
    assert row_of(share)["users"] == sorted([os.getpid(), child.pid, other.pid])
    share.close()
    child.kill()
    (row,) = [row for row in as_json("ls")["shares"] if row["where"] == str(path)]
    assert row["users"] == [other.pid]
    other.communicate(b"\n")


def test_a_holder_and_who_waits_for_it_are_told():
    share = Share({"n": 0})

    def hold(child):
        with share.locked():
            child.say()
            child.hear()

    def wait(child):
        with share.locked():
            pass

    holder = Child(hold)
    holder.hear()
    waiter = Child(wait)
    while not (row := row_of(share))["waiters"]:
        pass
    assert (row["holder_pid"], row["waiters"]) == (holder.pid, [waiter.pid])
    shown = printed("show", id_of(share))
    assert f"held by             pid {holder.pid} (" in shown
    assert f"waiting             pid {waiter.pid} (" in shown
    header, *lines = printed("ls").splitlines()
    assert "holder" in header
    assert "waiters" in header
    (line,) = [line for line in lines if line.startswith(id_of(share)[:8])]
    assert f"  pid {holder.pid} (" in line
    holder.say()
    waiter.result()
    holder.result()
    assert row_of(share)["contended_waits"] == 1
    share.close()


def test_a_holder_that_waits_for_another_share_says_for_which():
    one, other = Share(1), Share(2)

    def hold(child):
        with other.locked():
            child.say()
            child.hear()

    def cross(child):
        with one.locked(), other.locked():
            pass

    holder = Child(hold)
    holder.hear()
    crossing = Child(cross)
    while row_of(one)["waits_for"] is None:
        pass
    assert row_of(one)["waits_for"] == id_of(other)[:8]
    assert f"holder waits for    {id_of(other)[:8]}" in printed("show", id_of(one)[:8])
    holder.say()
    holder.result()
    crossing.result()


def test_a_killed_holder_is_counted_once_it_was_found():
    share = Share(0)

    def hold(child):
        share.lock()
        child.say()
        signal.pause()

    child = Child(hold)
    child.hear()
    child.kill()
    assert row_of(share)["holder_pid"] is None
    share.set(1)
    assert row_of(share)["holders_found_dead"] == 1
    assert "dead" in printed("ls").splitlines()[0]


def test_show_tells_all_in_lines_and_in_json(tmp_path):
    share = Share.open(tmp_path / "state", 5, durable=True)
    lines = printed("show", str(tmp_path / "state")).splitlines()
    said = dict(line.split("  ", 1) for line in lines)
    assert {name: fact.strip() for name, fact in said.items()} | {"resident": ""} == {
        "where": str(tmp_path / "state"),
        "kind": "Share, in a file",
        "value": "5",
        "version": "1",
        "used": "5 bytes of 1.0 GiB",
        "resident": "",
        "held by": "nobody",
        "contended waits": "0",
        "holders found dead": "0",
        "open in": f"pid {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})",
        "durable": "yes, each commit waits for the disk",
        "region": id_of(share),
        "file": str(tmp_path / "state"),
    }
    found = as_json("show", str(tmp_path / "state"))
    assert (found["is_durable"], found["region_id"], found["value"]) == (True, id_of(share), "5")
    words = inside.header_of(share)
    words[inside.FLAGS] = 3
    assert "the disk has refused" in printed("show", str(tmp_path / "state"))
    share.close()


# --- Values ----------------------------------------------------------------------------------


def test_values_are_printed_whole_and_as_json():
    Share.open("jobs", {"list": list(range(100)), "t": (1, b"x"), 5: {None}})
    assert printed("get", "jobs") == f"{ {'list': list(range(100)), 't': (1, b'x'), 5: {None}} }\n"
    assert as_json("get", "jobs") == {"list": list(range(100)), "t": [1, "b'x'"], "5": [None]}
    Share.open("odd", [float("nan"), 1.5, float("inf"), True])
    assert as_json("get", "odd") == ["nan", 1.5, "inf", True]
    deep = value = []
    for _ in range(100):
        value.append(value := [])
    Share.open("deep", deep)
    assert as_json("get", "deep")[0][0][0] is not None


def test_a_dicts_keys_are_found_as_they_are_written():
    SharedDict.open("counts", {"apples": 3, 7: "seven", "7": "text", (1, 2): "pair"})
    for key, value in [("apples", 3), ("7", "text"), ("(1, 2)", "pair")]:
        assert as_json("get", "counts", "--key", key) == value
        assert printed("get", "counts", "--key", key, "--load") == f"{value!r}\n"
    SharedDict.open("numbers", {7: "seven", print: "builtin"})
    assert as_json("get", "numbers", "--key", "7") == "seven"
    assert as_json("get", "numbers", "--key", "<print>") == "builtin"
    for key in ("pears", "[1]", "3 +", "99"):
        said = complaint("get", "counts", "--key", key)
        assert f"there is no key {key!r}; the first are ['apples', 7, '7', (1, 2)]" in said
    Share.open("jobs", 1)
    assert "has no keys" in complaint("get", "jobs", "--key", "x")


def test_what_a_value_would_run_is_shown_and_run_by_load_alone(tmp_path):
    there = tmp_path / "ran"
    Share.open("jobs", [Runs(f"touch {there}")])
    SharedDict.open("counts", {"a": Runs(f"touch {there}")})
    shown = f"<{os.system.__module__}.system('touch {there}')>"
    assert printed("get", "jobs") == f"[{shown}]\n"
    assert printed("get", "counts") == f"{{'a': {shown}}}\n"
    for args in (("ls",), ("show", "jobs"), ("show", "counts"), ("watch", "jobs", "--times", "1"),
                 ("top", "--times", "1"), ("get", "jobs", "--json")):  # fmt: skip
        printed(*args)
    assert not there.exists()
    assert printed("get", "jobs", "--load", by=program) == "[0]\n"
    assert there.exists()


def test_load_finds_classes_of_the_folder_that_one_is_in(tmp_path):
    (tmp_path / "shop.py").write_text("class Order:\n    def __repr__(self): return 'an order'\n")
    maker = "import shop; from mmapshare import Share; Share.open('orders', [shop.Order()])"
    subprocess.run([sys.executable, "-c", maker], cwd=tmp_path, check=True)
    assert printed("get", "orders") == "[<shop.Order()>]\n"
    assert printed("get", "orders", "--load", by=program, cwd=tmp_path) == "[an order]\n"
    assert "UnloadableError" in complaint("get", "orders", "--load", by=program, cwd="/")


def test_large_values_are_described_in_lines_and_printed_where_asked():
    share = Share(numpy.zeros((1000, 1000)))
    assert row_of(share)["value"] == "<numpy.ndarray f8 (1000, 1000)>"
    share = Share(["x" * 100_000] + [str(n) for n in range(200_000)])
    assert row_of(share)["value"] == "list, 1.7 MiB"
    assert len(as_json("get", id_of(share))) == 200_001
    share = Share(b"x" * (65 << 20))
    assert "takes more than 64.0 MiB: --load loads it" in complaint("get", id_of(share))
    assert len(printed("get", id_of(share), "--load")) > 65 << 20
    share.close()


def test_an_empty_share_says_so():
    Share.open("jobs")
    assert as_json("show", "jobs")["value"] == "empty"
    for more in ((), ("--load",)):
        assert "EmptyShareError: the share is empty" in complaint("get", "jobs", *more)
    SharedDict.open("counts")
    assert printed("get", "counts") == "{}\n"


# --- What cannot be shown --------------------------------------------------------------------


def test_what_is_not_there_is_said():
    for where in ("jobs", os.urandom(8).hex(), "no/such/file", "bad name"):
        assert "ShareNotFoundError" in complaint("show", where)


def test_an_id_that_is_not_whole_enough_is_refused():
    shares, begin = [Share(n) for n in range(2)], os.urandom(6)
    for share in shares:
        memory = inside.segment_of(share).map
        memory[16:32] = begin + os.urandom(10)
        memory[56:64] = inside.crc32(memory[:56]).to_bytes(8, "little")
    assert f"2 shares begin with {begin.hex()}" in complaint("show", begin.hex())


def test_a_damaged_share_is_listed_with_what_is_wrong():
    Share.open("jobs", 5).close()
    path = Path(os.environ["MMAPSHARE_DIR"], "jobs.mmapshare")
    with open(path, "r+b") as file:
        identity = file.read(64)
        file.seek(0)
        file.write(b"\xff" * 64)
    (row,) = [row for row in as_json("ls")["shares"] if row["where"] == "jobs"]
    assert "no mmapshare region" in row["trouble"]
    assert "no mmapshare region" in printed("ls")
    assert "no mmapshare region" in complaint("show", "jobs")
    with open(path, "r+b") as file:
        file.write(identity)
        file.truncate(100_000)
    assert "has cut it off" in complaint("show", "jobs")
    path.unlink()
    os.mkfifo(path)
    assert "no plain file" in complaint("get", "jobs")
    path.unlink()


def test_a_damaged_value_is_not_shown_but_its_share_is():
    share = Share({"a": 1})
    shared = SharedDict({"k": 1})
    with inside.outside_of(share) as region:
        slot = region.load_slot()
    inside.segment_of(share).map[slot.start : slot.start + 4] = b"garb"
    assert row_of(share)["value"].startswith("not shown: ")
    assert row_of(shared)["value"] == "{'k': 1}"
    assert "the value cannot be shown" in complaint("get", id_of(share))
    inside.segment_of(share).map[256:400] = bytes(144)
    assert "of version 1 fails its check" in row_of_damaged(share)["trouble"]
    share.close()


def row_of_damaged(share):
    (row,) = [row for row in as_json("ls")["shares"] if row["where"] == id_of(share)[:8]]
    return row
