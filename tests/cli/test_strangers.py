"""What belongs to others: counted, never shown, and nothing of it is loaded."""

import json
import os
import signal
import tempfile

import pytest
from support import Child
from support.command import (
    NOBODY,
    as_json,
    as_nobody,
    be_looked_into,
    command,
    complaint,
    id_of,
    program,
)

from mmapshare import Share


def _have_a_share(child):
    if os.geteuid() == 0:
        os.setresuid(NOBODY, NOBODY, NOBODY)  # For good, or nobody may not look into it.
        be_looked_into()
    share = Share({"mine": 1})
    child.say(id_of(share))
    signal.pause()


def test_one_sees_ones_own_shares_and_others_are_counted():
    own = Share({"roots": 1})
    child = Child(_have_a_share)
    its = child.hear()
    listed = json.loads(as_nobody("ls", "--json").stdout)
    mine = [row for row in listed["shares"] if row["users"] == [child.pid]]
    assert [row["region_id"] for row in mine] == [its]
    assert mine[0]["value"] == "{'mine': 1}"
    shown = as_nobody("show", its[:8])
    assert (shown.returncode, shown.stderr) == (0, "")
    if os.geteuid() == 0:
        assert id_of(own) not in [row["region_id"] for row in listed["shares"]]
        assert listed["others"]["processes"] >= 1
        assert " processes may not be looked into\n" in as_nobody("ls").stderr
        ours = as_json_of_root()
        assert its not in [row.get("region_id") for row in ours["shares"]]
        assert ours["others"]["shares"] >= 1
        assert "shares of other users" in command("ls").stderr
    child.kill()
    own.close()


def as_json_of_root():
    return json.loads(command("ls", "--json").stdout)


def test_what_others_could_write_is_shown_and_not_loaded(tmp_path):
    path = tmp_path / "state"
    Share.open(path, 5).close()
    path.chmod(0o666)
    assert as_json("get", str(path)) == 5
    said = complaint("get", str(path), "--load")
    assert "UnsafePathError" in said
    assert "mode 666" in said
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
        assert as_json("get", str(path)) == 5
        assert "user 65534" in complaint("get", str(path), "--load")


def test_names_in_an_unsafe_folder_are_said_and_the_rest_is_listed():
    share = Share(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        done = command("ls", "--json", env=os.environ | {"MMAPSHARE_DIR": folder})
    assert done.returncode == 1
    assert "must be this user's" in done.stderr
    assert id_of(share) in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["a\x1b[31mb", "li\nne", "t\udc80"])
def test_no_file_name_moves_the_cursor(tmp_path, name):
    path = tmp_path / name
    share = Share.open(path, "\x1b]0;title\x07")
    done = command("ls", str(tmp_path) + "/")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert done.stdout.replace("\n", "").isprintable()
    assert len(done.stdout.splitlines()) == 2
    share.close()


def test_who_stops_reading_is_no_error():
    share = Share.open("jobs", "x" * 1_000_000)
    with os.fdopen(os.open("/dev/null", os.O_RDONLY)) as nothing:
        reads, writes = os.pipe()
        os.close(reads)
        done = program("get", "jobs", stdin=nothing, stdout=writes, input=None,
                         capture_output=False, stderr=-1)  # fmt: skip
        os.close(writes)
    assert (done.returncode, done.stderr) == (1, "")
    share.unlink()
    share.close()
