"""What shares are found while processes end, files go, and /proc is as it is."""

import os

import pytest
from support import inside

from mmapshare import Share, SharedDict, ShareNotFoundError


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A /proc with what a test puts there, and this process under a number of another one."""
    monkeypatch.setattr(*inside.at("PROC"), str(tmp_path))

    def process(pid, **links):
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        for fd, target in links.items():
            (tmp_path / str(pid) / "fd" / fd.strip("_")).symlink_to(target)

    return process


def test_without_proc_the_names_are_found(proc):
    share = Share.open("jobs", 1)
    try:
        found, others = inside.everything_found()
        assert [(one.where, one.users) for one in found] == [("jobs", [])]
        assert (others.shares, others.processes) == (0, 0)
        assert inside.blocked() is None
        with pytest.raises(ShareNotFoundError):
            inside.found_by_id("beef")
    finally:
        share.unlink()


def test_without_any_of_it_nothing_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(*inside.at("PROC"), str(tmp_path / "none"))
    monkeypatch.setenv("MMAPSHARE_DIR", str(tmp_path / "none"))
    assert inside.everything_found()[0] == []


def test_processes_and_descriptors_that_end_meanwhile_are_passed_over(proc, tmp_path):
    proc(101, _7="/memfd:mmapshare (deleted)", _8="/none such", _9="pipe:[1]")
    (tmp_path / "102").mkdir()  # It has ended: its descriptors are gone.
    (tmp_path / "self").mkdir()
    found, _ = inside.everything_found()
    assert found == []


def test_what_has_our_mark_and_is_no_share_is_listed_as_what_it_is(proc, tmp_path, monkeypatch):
    file = tmp_path / "notes"
    file.write_bytes(bytes(5000))
    proc(101, _7=str(file), _8=str(tmp_path / "other"))
    (tmp_path / "101" / "fdinfo").mkdir()
    (tmp_path / "101" / "fdinfo" / "7").write_bytes(b"pos:\t%d\nflags:\t02\n" % (3 << 38))
    (tmp_path / "101" / "fdinfo" / "8").write_bytes(b"pos:\t10\n")
    (one,) = inside.everything_found()[0]
    assert (one.kind, one.where, one.users) == ("path", str(file), [101])
    with pytest.raises(ShareNotFoundError):  # It has no id either.
        inside.found_by_id("beef")
    monkeypatch.setattr("os.scandir", lambda path: (_ for _ in ()).throw(PermissionError))
    (one,) = inside.everything_found()[0]
    assert (one.where, one.has_name) == (f"?{os.stat(file).st_ino}", False)
    file.chmod(0)
    if os.geteuid():
        assert inside.everything_found()[0] == []


def test_a_name_that_is_over_is_not_listed(tmp_path, monkeypatch):
    """Its remover was killed between the mark and the name."""
    folder = tmp_path / "names"
    monkeypatch.setenv("MMAPSHARE_DIR", str(folder))
    share = Share.open("jobs", 1)
    inside.header_of(share)[inside.UNLINKED] = 1
    (folder / "notes.txt").write_text("no share's")
    share.close()
    found, _ = inside.everything_found()
    assert [one.where for one in found if one.kind == "name"] == []
    with pytest.raises(ShareNotFoundError):
        inside.found_by_id("jobs")


def test_what_has_ended_since_it_was_found_is_not_seen():
    share = Share.open("jobs", 1)
    found = inside.found_by_id("jobs")
    assert inside.see(found, None, True).value == "1"
    share.unlink()
    share.close()
    assert inside.see(found, None, True) is None


def test_a_region_that_changes_all_the_time_is_given_up(monkeypatch):
    shared = SharedDict({"a": 1})
    monkeypatch.setattr(*inside.at("OUTSIDE_PAUSE_S"), 0)
    with inside.outside_of(shared) as region:
        store = region.store(inside.placeholders, 100)
        monkeypatch.setattr(type(store), "stands", lambda self, state: False)
        with pytest.raises(Exception, match="changes faster than it can be read"):
            store.read(repr)


def test_a_file_that_is_cut_off_while_it_is_looked_at_says_so(tmp_path):
    share = Share.open(tmp_path / "state", 1, max_size=100_000)
    with inside.outside_of(share) as region:
        size = region.status().st_size
        os.truncate(tmp_path / "state", 4096)
        with pytest.raises(Exception, match="was cut off while"):
            region.map[4096:5000]
        os.truncate(tmp_path / "state", size)
        region.close()  # Twice is harmless.
    share.close()
