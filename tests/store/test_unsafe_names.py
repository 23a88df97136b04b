"""What may stand under a name and is no share's file: a clear error, nothing opened or harmed."""

import errno
import fcntl
import gc
import os
import shutil
import socket
import struct
from pathlib import Path
from zlib import crc32

import pytest
from support import as_somebody_else, in_child, inside
from support.media import unlink_all

from mmapshare import (
    CorruptRegionError,
    OpenError,
    Share,
    SharedDict,
    ShareExistsError,
    ShareNotFoundError,
    UnsafePathError,
    list_shares,
)


@pytest.fixture
def folder():
    Share.open("first").close()
    unlink_all()
    yield Path(os.environ["MMAPSHARE_DIR"])
    unlink_all()
    for left in Path(os.environ["MMAPSHARE_DIR"]).iterdir():
        if left.name != ".lock":
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def _refused(match, error=UnsafePathError):
    for create in (None, True, False):
        with pytest.raises(error, match=match):
            Share.open("jobs", 1, create=create)
    with pytest.raises(error, match=match):
        SharedDict.open("jobs")
    assert list_shares() == []


def test_a_link_is_not_followed(folder, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"a letter")
    (folder / "jobs.mmapshare").symlink_to(target)
    _refused("jobs is a symbolic link, and no share's file")
    target.unlink()
    _refused("jobs is a symbolic link")  # A dangling one.
    assert not target.exists()


def test_what_is_no_file_is_not_opened(folder):
    entry = folder / "jobs.mmapshare"
    os.mkfifo(entry, 0o600)
    _refused("jobs is a FIFO")
    entry.unlink()
    entry.mkdir(0o700)
    _refused("jobs is a folder")
    entry.rmdir()
    with socket.socket(socket.AF_UNIX) as listening:
        before = os.getcwd()
        os.chdir(folder)  # A socket's path must be short.
        try:
            listening.bind("jobs.mmapshare")
        finally:
            os.chdir(before)
        os.chmod(entry, 0o600)
        _refused("jobs is a socket")


def test_what_is_no_shares_file_is_not_mapped(folder):
    entry = folder / "jobs.mmapshare"
    for content in (b"", b"short", b"x" * 10_000):
        entry.write_bytes(content)
        entry.chmod(0o600)
        _refused("no share's file|no mmapshare region", CorruptRegionError)
        assert entry.read_bytes() == content


def test_a_file_that_was_cut_off_or_added_to_is_not_mapped(folder):
    entry = folder / "jobs.mmapshare"
    Share.open("jobs", 1).close()
    size = entry.stat().st_size
    for wrong in (size - 1, size + 1, 5000):
        os.truncate(entry, wrong)  # What it had there is gone.
        with pytest.raises(CorruptRegionError, match="cut it off, or added to it"):
            Share.open("jobs")


def test_a_file_that_is_cut_off_while_it_is_open_is_found_out_before_the_next_change(folder):
    share = Share.open("jobs", 1)
    os.truncate(folder / "jobs.mmapshare", share.info().max_size)
    inside.looked_ns_of.set(inside.lock_of(share), 0)
    with pytest.raises(CorruptRegionError, match="something has cut it off"):
        share.set(2)
    share.close()


def test_another_format_is_told_from_no_region(folder):
    Share.open("jobs", 1).close()
    with open(folder / "jobs.mmapshare", "r+b") as file:
        identity = bytearray(file.read(64))
        struct.pack_into("<Q", identity, 8, 77)
        struct.pack_into("<Q", identity, 56, crc32(bytes(identity[:56])))
        file.seek(0)
        file.write(identity)
    _refused("the file of share jobs: the region has format 77", CorruptRegionError)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_file_that_others_may_read_or_write_is_not_opened(folder, mode):
    Share.open("jobs", 1).close()
    (folder / "jobs.mmapshare").chmod(mode)
    _refused(f"jobs is open to other users .mode {mode:o}.: chmod 600")


def test_a_file_with_two_names_is_not_opened(folder):
    Share.open("jobs", 1).close()
    os.link(folder / "jobs.mmapshare", folder / "other.mmapshare")
    for name in ("jobs", "other"):
        with pytest.raises(UnsafePathError, match=f"{name} has more than one name"):
            Share.open(name)
    (folder / "other.mmapshare").unlink()
    assert Share.open("jobs").get() == 1


def test_somebody_elses_file_is_not_opened(folder, tmp_path, monkeypatch):
    Share.open(tmp_path / "one", 1).close()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(UnsafePathError, match=f"one belongs to user {owner}, and this process's"):
        Share.open(tmp_path / "one")


def test_a_folder_of_names_that_is_not_this_users_alone_is_not_used(monkeypatch, tmp_path):
    names = tmp_path / "names"
    monkeypatch.setenv("MMAPSHARE_DIR", str(names))
    names.mkdir(0o755)
    names.chmod(0o755)
    _refused_here("has mode 755")
    names.rmdir()
    names.symlink_to(tmp_path)
    _refused_here("where names are kept, is no folder")
    names.unlink()
    names.write_text("a letter")
    _refused_here("where names are kept, is no folder")
    assert names.read_text() == "a letter"
    names.unlink()
    with pytest.raises(OpenError, match="cannot be made or used .*: No such file"):
        monkeypatch.setenv("MMAPSHARE_DIR", str(names / "deeper"))
        Share.open("jobs", 1)


def _refused_here(match):
    for act in (
        lambda: Share.open("jobs", 1),
        lambda: Share.open("jobs", create=False),
        list_shares,
    ):
        with pytest.raises(UnsafePathError, match=match):
            act()


def test_somebody_elses_folder_of_names_is_not_used(folder, monkeypatch):
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    _refused_here(f"names are kept, belongs to user {owner} and has mode 700")


def test_a_folder_of_names_that_this_user_may_not_enter_is_an_error(folder):
    def look():
        with (
            as_somebody_else(),
            pytest.raises(OpenError, match="by this process's user .*: Permission denied"),
        ):
            Share.open("jobs", 1)

    folder.parent.chmod(0)
    try:
        in_child(look)
    finally:
        folder.parent.chmod(0o700)


def test_a_copied_file_is_another_share(folder):
    share = Share.open("jobs", {"n": 1}, max_size="1M")
    with share.locked() as view:
        shutil.copy2(folder / "jobs.mmapshare", folder / "copy.mmapshare")
        view["n"] = 2
    copy = Share.open("copy")
    assert copy is not share
    assert copy.info().holder_pid is None
    assert copy.update(lambda value: value | {"copied": True}) == {"n": 1, "copied": True}
    assert share.get() == {"n": 2}
    assert in_child(lambda: Share.open("copy").get()) == {"n": 1, "copied": True}


def test_a_share_from_before_the_machine_was_started_is_no_more(folder):
    Share.open("jobs", "before").close()
    with open(folder / "jobs.mmapshare", "r+b") as file:
        file.seek(8 * 12)
        file.write(os.urandom(16))
    assert list_shares() == []
    with pytest.raises(ShareNotFoundError):
        Share.open("jobs", create=False)
    assert Share.open("jobs", "after", create=True).get() == "after"


def test_a_share_whose_unlink_was_cut_short_is_taken_away_by_the_next(folder):
    share = Share.open("jobs", "before")
    with open(folder / "jobs.mmapshare", "r+b") as file:
        file.seek(8 * 10)
        file.write(b"\1")
    assert list_shares() == []
    assert Share.open("jobs", "after", create=True).get() == "after"
    assert share.update(str.upper) == "BEFORE"


def test_hidden_files_are_none_of_the_listing_and_strangers_neither(folder):
    Share.open("jobs", 1)
    (folder / "letter").write_text("dear")
    (folder / "empty.mmapshare").touch(0o600)
    (folder / ".hidden.mmapshare").touch(0o600)
    assert [each.name for each in list_shares()] == ["jobs"]
    with pytest.raises(ShareExistsError):
        Share.open("jobs", create=True)


def test_a_network_file_system_is_refused(folder, monkeypatch):
    for kind in ("nfs4", "fuse.sshfs"):
        monkeypatch.setattr(*inside.at("file_system_of"), lambda device, kind=kind: kind)
        with pytest.raises(UnsafePathError, match=f"jobs lies on {kind}, where processes do"):
            Share.open("jobs", 1)
    assert issubclass(UnsafePathError, OpenError)
    assert list_shares() == []


def test_a_file_system_without_locks_is_refused_as_such(tmp_path, monkeypatch):
    """Some have none; and without one a share is no share."""
    monkeypatch.chdir(tmp_path)
    Share.open("./original", 1, max_size="1M").close()
    shutil.copy("original", "copy")
    gc.collect()

    def flock(fd, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    for number in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
        for path in ("./copy", "./new"):
            with pytest.raises(UnsafePathError, match="on a file system that has no locks"):
                Share.open(path, 1)
    number = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        Share.open("./new", 1)
    assert sorted(os.listdir()) == ["copy", "original"]
