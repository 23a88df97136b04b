"""`rm`: a share's name is taken away, once that was agreed to."""

import os

import pytest
from support.command import as_json, command, complaint, id_of, printed

from mmapshare import Share, SharedDict, ShareNotFoundError


def test_rm_asks_and_a_no_leaves_it_there():
    Share.open("jobs", 5).close()
    for answer in ("", "n\n", "perhaps\n"):
        done = command("rm", "jobs", input=answer)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "remove jobs? [y/N] not removed\n"
    share = Share.open("jobs", create=False)
    done = command("rm", "jobs", input="y\n")
    assert (done.returncode, done.stderr.count("[y/N]")) == (0, 1)
    assert done.stdout.startswith("removed jobs (open in pid ")
    with pytest.raises(ShareNotFoundError):
        Share.open("jobs", create=False)
    share.set(6)  # Who has it goes on with it.
    share.close()


def test_what_somebody_has_open_is_said_before_it_is_removed(tmp_path):
    path = tmp_path / "state"
    shared = SharedDict.open(path, {"a": 1}, durable=True)
    said = command("rm", str(path)).stderr
    assert said.startswith(f"remove {path} (open in pid {os.getpid()} (")
    assert as_json("rm", str(path), "--yes") == {"removed": str(path), "users": [os.getpid()]}
    assert not path.exists()
    shared["a"] = 2
    assert shared.copy() == {"a": 2}
    shared.close()


def test_a_name_is_removed_by_its_shares_id_too(tmp_path):
    share = Share.open("jobs", 1)
    assert printed("rm", "--yes", id_of(share)[:8]).startswith(f"removed {id_of(share)[:8]} (")
    share.close()
    share = Share.open(tmp_path / "state", 1)
    assert printed("rm", "--yes", id_of(share)[:8])
    share.close()
    assert os.listdir(tmp_path) == []


def test_what_is_no_share_or_has_no_name_is_left_alone(tmp_path):
    share = Share(1)
    assert "ends with its users" in complaint("rm", id_of(share), "--yes")
    assert "ShareNotFoundError" in complaint("rm", "jobs", "--yes")
    notes = tmp_path / "notes"
    notes.write_text("x" * 5000)
    notes.chmod(0o600)
    assert "CorruptRegionError" in complaint("rm", str(notes), "--yes")
    assert notes.exists()
    link = tmp_path / "link"
    Share.open(tmp_path / "state", 1).close()
    link.symlink_to(tmp_path / "state")
    assert "symbolic link" in complaint("rm", str(link), "--yes")
    assert share.get() == 1
    share.close()
