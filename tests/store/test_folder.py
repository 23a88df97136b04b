"""What happens under a name between two looks at it, and where a system lacks something."""

import errno
import os
import pickle
import shutil
from pathlib import Path

import pytest
from support import in_child, inside, no_more_descriptors
from support.media import unlink_all

from mmapshare import (
    HandleError,
    OpenError,
    RegionFullError,
    Share,
    ShareNotFoundError,
    UnsafePathError,
    list_shares,
)


@pytest.fixture(autouse=True)
def no_names_are_left():
    yield
    unlink_all()


def _folder():
    return Path(os.environ["MMAPSHARE_DIR"])


def _entry(name="jobs"):
    return _folder() / f"{name}.mmapshare"


def _meanwhile(monkeypatch, what, times=1, name="open"):
    """Do ``what`` just before a name is opened for real."""
    real, left = getattr(os, name), iter(range(times))

    def opens(path, *args, **options):
        if path == "jobs.mmapshare":
            for _ in left:
                what()
                break
        return real(path, *args, **options)

    monkeypatch.setattr(os, name, opens)


def test_a_name_that_vanishes_as_it_is_opened_is_none(monkeypatch):
    Share.open("jobs", 1).close()
    _meanwhile(monkeypatch, lambda: os.unlink(_entry()))
    assert Share.open("jobs", 2).get() == 2


def test_a_name_that_becomes_a_link_as_it_is_opened_is_not_followed(monkeypatch, tmp_path):
    Share.open("jobs", 1).close()

    def swaps():
        os.unlink(_entry())
        _entry().symlink_to(tmp_path)

    _meanwhile(monkeypatch, swaps)
    with pytest.raises(UnsafePathError, match="a symbolic link"):
        Share.open("jobs", 2)
    os.unlink(_entry())


def test_a_name_that_becomes_anothers_as_it_is_opened_leads_to_that(monkeypatch):
    other = Share.open("other", "other")
    Share.open("jobs", 1).close()
    other.close()
    _meanwhile(monkeypatch, lambda: os.rename(_entry("other"), _entry()))
    assert Share.open("jobs", 2).get() == "other"


def test_a_name_that_becomes_anothers_while_it_is_mapped_leads_to_that(monkeypatch):
    for name in ("other", "jobs"):
        Share.open(name, name).close()
    real, left = inside.named_of_segment, iter([1])

    def named(*args):
        segment = real(*args)
        for _ in left:
            os.rename(_entry("other"), _entry())
        return segment

    monkeypatch.setattr(*inside.at("named_of_segment"), named)
    assert Share.open("jobs").get() == "other"


def test_a_name_that_never_stands_still_is_an_error(monkeypatch):
    monkeypatch.setattr(*inside.at("FOLDER_ATTEMPTS"), 5)
    monkeypatch.setattr(*inside.at("NAMED_ATTEMPTS"), 5)
    Share.open("jobs", 1, max_size="1M").close()

    def swaps():
        shutil.copyfile(_entry(), _entry("copy"))
        os.chmod(_entry("copy"), 0o600)
        os.rename(_entry("copy"), _entry())

    with monkeypatch.context() as patch:
        _meanwhile(patch, swaps, times=100)
        with pytest.raises(OpenError, match="is made and removed all the time"):
            Share.open("jobs")
    with monkeypatch.context() as patch:
        patch.setattr(*inside.at("leads_to"), lambda folder, entry, *fds: False)
        with pytest.raises(OpenError, match="is made and removed all the time"):
            Share.open("jobs")
    unlink_all()
    monkeypatch.setattr(*inside.at("give_name"), lambda file, entry: False)
    with pytest.raises(OpenError, match="is made and removed all the time"):
        Share.open("jobs", 2)


def test_what_a_killed_maker_left_is_cleared_by_who_opens_the_name(monkeypatch):
    Share.open("jobs", 1).close()
    Share.open("other", 2).close()
    for name in ("jobs", "other"):
        os.link(_entry(name), _folder() / f".mmapshare-new-{name}")
    assert Share.open("jobs").get() == 1
    assert (_folder() / ".mmapshare-new-other").exists()  # It may be about to get its name.
    assert Share.open("other").get() == 2
    monkeypatch.setattr(*inside.at("clear_of_folder"), lambda folder, found: os.unlink(_entry()))
    os.link(_entry(), _folder() / "link")
    assert Share.open("jobs", 3).get() == 3
    os.unlink(_folder() / "link")


def test_without_files_that_have_no_name_a_new_one_has_another_first(monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE")
    share = Share.open("jobs", 1)
    assert os.listdir(_folder()) in ([".lock", "jobs.mmapshare"], ["jobs.mmapshare", ".lock"])
    assert share.set(2) == 2
    assert in_child(lambda: share.set(3)) == 3
    real, first = inside.find_in_folder, iter([True])

    def find(*args):
        return None if next(first, False) else real(*args)

    monkeypatch.setattr(*inside.at("find_in_folder"), find)
    other = Share.open("jobs", "late")
    assert other is share
    assert sorted(os.listdir(_folder())) == [".lock", "jobs.mmapshare"]


def test_without_proc_a_name_is_opened_by_its_path(monkeypatch, tmp_path):
    monkeypatch.setattr(*inside.at("PROC"), str(tmp_path))
    monkeypatch.delattr(os, "O_TMPFILE")
    inside.boot.cache_clear()
    try:
        share = Share.open("jobs", 1)
        assert share.set(2) == 2
        assert in_child(lambda: share.set(3)) == 3
        assert in_child(lambda: (inside.open_here.clear(), Share.open("jobs").set(4))[1]) == 4
        assert share.get() == 4
    finally:
        inside.boot.cache_clear()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_file_that_cannot_be_opened_or_made_says_why(monkeypatch, number, tmp_path):
    share = Share.open(tmp_path / "one", 1)
    share.close()
    real = os.open

    def opens(path, flags, *args, **options):
        if options.get("dir_fd") is not None or "fd/" in str(path):
            raise OSError(number, os.strerror(number))
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", opens)
    for name in ("one", "two"):
        why = f"{name} cannot be opened or made here: {os.strerror(number)}"
        with pytest.raises(OpenError, match=why):
            Share.open(tmp_path / name, 2)


def test_a_lack_of_descriptors_is_no_fault_of_the_files(tmp_path):
    Share.open("jobs", 1).close()
    for where in ("jobs", tmp_path / "one"):
        with no_more_descriptors(), pytest.raises(OSError) as caught:
            Share.open(where)
        assert caught.value.errno == errno.EMFILE


def test_a_size_that_no_machine_has_is_refused(tmp_path):
    for where in ("jobs", tmp_path / "one"):
        with pytest.raises(RegionFullError, match="pass a smaller max_size"):
            Share.open(where, max_size=1 << 62)
    assert list_shares() == []
    assert os.listdir(tmp_path) == []


def test_names_without_a_folder_are_none(monkeypatch, tmp_path):
    monkeypatch.setenv("MMAPSHARE_DIR", str(tmp_path / "names"))
    share = Share.open("jobs", 1)
    handle = pickle.dumps(share)
    shutil.rmtree(tmp_path / "names")
    with pytest.raises(ShareNotFoundError, match="has been removed|unlinked already"):
        share.unlink()
    share.close()
    with pytest.raises(HandleError, match="the name jobs is gone"):
        pickle.loads(handle).get()


def test_a_file_system_that_cannot_be_told_is_taken_for_this_machines(monkeypatch, tmp_path):
    share = Share.open(tmp_path / "one", 1)
    mounts = tmp_path / "self" / "mountinfo"
    mounts.parent.mkdir()
    mounts.write_text("1 2 999999:9 / / rw - nfs4 server rw\n")
    with monkeypatch.context() as patch:
        patch.setattr(*inside.at("PROC"), str(tmp_path))
        assert Share.open(tmp_path / "one") is share


def test_the_folder_in_memory_is_not_asked_for_its_file_system(monkeypatch):
    monkeypatch.setattr(*inside.at("is_in_memory"), True)
    monkeypatch.setattr(*inside.at("file_system_of"), lambda device: "nfs4")
    assert Share.open("jobs", 1).get() == 1
    assert Share.open("jobs").get() == 1


def test_a_name_that_vanishes_as_it_is_listed_is_left_out(monkeypatch):
    Share.open("jobs", 1)
    with monkeypatch.context() as patch:
        patch.setattr(*inside.at("open_in_folder"), lambda folder, entry, shown: None)
        assert list_shares() == []


def test_an_error_in_the_middle_of_opening_leaves_nothing_open(monkeypatch, tmp_path):
    Share.open("jobs", 1).close()

    def raises(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*inside.at("leads_to"), raises)
        with pytest.raises(KeyboardInterrupt):
            Share.open("jobs")

    class Jobs(Share):
        _open_store = raises

    with pytest.raises(KeyboardInterrupt):
        Jobs.open("jobs")
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", raises)
        with pytest.raises(KeyboardInterrupt):
            Share.open("other")
    assert [listed.name for listed in list_shares()] == ["jobs"]


def test_a_copy_that_another_has_made_its_own_meanwhile_is_left_as_it_is(monkeypatch):
    Share.open("jobs", 1, max_size="1M").close()
    shutil.copyfile(_entry(), _entry("copy"))
    os.chmod(_entry("copy"), 0o600)
    assert Share.open("copy").get() == 1
    region_id = _entry("copy").read_bytes()[16:32]
    real, first = inside.is_at_home, iter([True])

    def is_at_home(*args):
        return not next(first, False) and real(*args)

    monkeypatch.setattr(*inside.at("is_at_home"), is_at_home)
    assert Share.open("copy").get() == 1
    assert _entry("copy").read_bytes()[16:32] == region_id


def test_without_a_folder_that_is_named_names_are_in_memory_and_this_users(monkeypatch):
    monkeypatch.delenv("MMAPSHARE_DIR")
    for there, base in ((True, "/dev/shm"), (False, "/tmp")):
        monkeypatch.setattr(os.path, "isdir", lambda path, there=there: there)
        assert inside.folder_of_names() == f"{base}/mmapshare-{os.geteuid()}"


def test_a_lack_of_descriptors_for_the_file_alone_is_no_fault_of_it(monkeypatch):
    Share.open("jobs", 1).close()

    def lacks():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    _meanwhile(monkeypatch, lacks)
    with pytest.raises(OSError) as caught:
        Share.open("jobs")
    assert caught.value.errno == errno.EMFILE


def test_a_file_on_a_disk_can_be_durable_and_one_in_memory_cannot(monkeypatch, tmp_path):
    monkeypatch.setattr(*inside.at("file_system_of"), lambda device: "ext4")
    Share.open(tmp_path / "one", 1, durable=True)
    monkeypatch.setattr(*inside.at("file_system_of"), lambda device: "tmpfs")
    with pytest.raises(OpenError, match="lies in memory"):
        Share.open(tmp_path / "two", 1, durable=True)


def test_a_descriptor_that_cannot_be_closed_is_left():
    inside.shut(-1)
