"""Shares in files: what outlives the machine, what a disk refuses, and what a copy is."""

import errno
import gc
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from support import in_child, inside

from mmapshare import (
    CorruptRegionError,
    DurabilityError,
    OpenError,
    Share,
    SharedDict,
    ShareNotFoundError,
    UnsafePathError,
)


@pytest.fixture(autouse=True)
def a_disk(monkeypatch, tmp_path):
    """The folder of temporary files may be in memory."""
    monkeypatch.setattr(*inside.at("is_memory"), lambda fd: False)
    monkeypatch.chdir(tmp_path)


def _word(path, word):
    with open(path, "rb") as file:
        file.seek(8 * word)
        return struct.unpack("<Q", file.read(8))[0]


def _put(path, word, *values):
    with open(path, "r+b") as file:
        file.seek(8 * word)
        file.write(struct.pack(f"<{len(values)}Q", *values))


def _the_machine_starts_again(*shares):
    """What the files say is of another boot from now on; nobody has them open."""
    paths = [share.address for share in shares]
    for share in shares:
        share.close()
    gc.collect()
    for path in paths:
        _put(path, inside.BOOT[0], 1, 2)
    return paths


def test_a_path_leads_to_one_share_from_any_program(tmp_path):
    share = Share.open("./state", {"n": 1}, max_size="1M")
    assert Share.open(tmp_path / "state") is share
    assert share.address == str(tmp_path / "state")
    code = "from mmapshare import *; print(Share.open('./state').update(lambda v: {'n': 2}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'n': 2}\n"
    assert share.get() == {"n": 2}
    assert os.stat("state").st_mode & 0o777 == 0o600
    assert os.listdir() == ["state"]


@pytest.mark.parametrize("durable", [False, True])
def test_what_is_in_a_file_outlives_the_machine(durable):
    share = Share.open("./one", [1], max_size="1M", durable=durable)
    shared = SharedDict.open("./many", {"a": 1}, max_size="1M", durable=durable)
    for number in range(50):
        share.update(lambda value: [*value, len(value)])
        shared[number] = number * 2
        del shared[number - 1 if number else "a"]
    version = share.version, shared.version
    _the_machine_starts_again(share, shared)
    share, shared = Share.open("./one"), SharedDict.open("./many")
    assert share.get() == [1, *range(1, 51)]
    assert shared == {49: 98}
    assert (share.version, shared.version) == version
    share.set("on")
    shared["b"] = 2
    assert in_child(lambda: Share.open("./one").get()) == "on"
    assert in_child(lambda: SharedDict.open("./many")["b"]) == 2


def test_an_empty_file_outlives_the_machine_too():
    (path,) = _the_machine_starts_again(Share.open("./one", max_size="1M", durable=True))
    assert Share.open(path).version == 0


def test_what_a_machine_left_of_locks_and_sleepers_says_nothing_after_it():
    share = Share.open("./one", 1, max_size="1M")
    words = inside.lock_words_of(inside.lock_of(share))
    words[inside.HOLDER], words[inside.LEASE], words[inside.BLOCKED] = 1, 2**60, 2**60
    (path,) = _the_machine_starts_again(share)
    share = Share.open(path)
    assert (share.info().holder_pid, share.info().holders_found_dead) == (None, 0)
    assert share.set(2) == 2


def test_a_durable_file_whose_newest_version_is_gone_is_refused_and_another_goes_back():
    for durable in (True, False):
        path = f"./one-{durable}"
        share = Share.open(path, "a", max_size="1M", durable=durable)
        share.set("b")
        slot = inside.load_slot(inside.store_of(share))
        _the_machine_starts_again(share)
        with open(path, "r+b") as file:
            file.seek(slot.start)
            file.write(b"?" * 4)
        if durable:
            with pytest.raises(CorruptRegionError, match="neither of the two newest versions"):
                Share.open(path)
        else:
            assert Share.open(path).get() == "a"


def test_a_damaged_slot_of_a_file_is_no_version(tmp_path):
    """Whatever is wrong with it: its number, its check, or that it leads out of its area."""
    share = Share.open("./one", "a", max_size="1M")
    share.set("b")
    place = inside.SLOTS[0].start  # Where the second version is.
    (path,) = _the_machine_starts_again(share)
    before = Path(path).read_bytes()
    slot = before[place : place + 48]
    for damaged in (
        slot[:8] + bytes(8) + slot[16:],
        b"\3" + slot[1:],
        struct.pack("<6Q", 2, 8, 9, 1, 1, 6 + 40 + 63 + 11 + 13),
    ):
        content = before[place + 48 : place + 56]
        whole = inside.checked_slot(damaged, int.from_bytes(content, "little"))
        for written in (damaged + before[place + 48 : place + 64], whole):
            Path(path).write_bytes(before[:place] + written + before[place + 64 :])
            found = Share.open(path)
            assert (found.get(), found.version) == ("a", 1)
            found.close()


def test_a_disk_that_refuses_says_so_once_and_for_all(monkeypatch):
    """Asked again, the kernel has perhaps forgotten that it could not write."""
    real = os.fdatasync
    for refused in range(6):
        path = f"./one-{refused}"
        share = Share.open(path, 0, max_size="1M", durable=True)
        shared = SharedDict.open(path + "d", {"n": 0}, max_size="1M", durable=True)
        count = iter(range(100))

        def fdatasync(fd, count=count, refused=refused):
            if next(count) == refused:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        done = {id(share): 0, id(shared): 0}
        for number in range(1, 5):
            for each in (share, shared):
                try:
                    share.set(number) if each is share else shared.update(n=number)
                except DurabilityError as err:
                    assert "did not take a commit" in str(err) or "has failed" in str(err)
                else:
                    done[id(each)] = number
        monkeypatch.setattr(os, "fdatasync", real)
        assert share.get() == done[id(share)]
        assert shared["n"] == done[id(shared)]
        poisoned = share if done[id(share)] < 4 else shared
        with pytest.raises(DurabilityError, match="nothing more is written"):
            poisoned.set(9) if poisoned is share else poisoned.update(n=9)
        assert in_child(lambda: type(_raised(poisoned)).__name__) == "DurabilityError"


def _raised(shared):
    try:
        shared.set(9) if isinstance(shared, Share) else shared.update(n=9)
    except Exception as err:
        return err


def test_an_error_that_is_not_the_disks_leaves_the_share_as_it_was(monkeypatch):
    share = Share.open("./one", 1, max_size="1M", durable=True)

    def fdatasync(fd):
        raise TimeoutError("by a signal handler")

    with monkeypatch.context() as context:
        context.setattr(os, "fdatasync", fdatasync)
        with pytest.raises(TimeoutError):
            share.set(2)
    assert share.get() == 1
    share.set(3)
    assert share.get() == 3


def test_a_share_becomes_durable_for_all_when_one_asks_for_it(monkeypatch):
    synced = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (synced.append(fd), real(fd))[1])
    share = Share.open("./one", 1, max_size="1M")
    share.set(2)
    assert not synced
    assert Share.open("./one", durable=True) is share
    del synced[:]
    share.set(3)
    assert len(synced) == 1
    assert in_child(lambda: (share.set(4), len(synced))) == (4, 2)


def test_a_new_name_is_on_the_disk_before_anybody_relies_on_it(monkeypatch):
    """Without that the file is there after a power cut, and its name is not."""
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), real(fd))[1])
    share = Share.open("./one", 1, max_size="1M", durable=True)
    assert synced == [os.stat("one").st_ino, os.stat(".").st_ino]
    share.close()
    del synced[:]
    Share.open("./one", durable=True)
    assert synced == [os.stat(".").st_ino]


def test_no_commit_that_waits_for_the_disk_has_its_files_times_looked_at(monkeypatch):
    """Who looks at them has the next write change them, and a barrier writes that, too."""
    looked, fstat = [], os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: (looked.append(fd), fstat(fd))[1])
    for share in (
        Share.open("./made", 0, max_size="1M", durable=True),
        Share.open("./became", 0, max_size="1M"),
    ):
        del looked[:]
        for _ in range(3):
            inside.looked_ns_of.set(inside.lock_of(share), 0)
            share.update(lambda n: n + 1)
        assert bool(looked) == (share.address == os.path.abspath("became"))
    share = Share.open("./became", durable=True)
    del looked[:]
    inside.looked_ns_of.set(inside.lock_of(share), 0)
    share.set(9)
    share.close()
    del share
    gc.collect()
    share = Share.open("./became")
    del looked[:]
    inside.looked_ns_of.set(inside.lock_of(share), 0)
    share.set(10)
    assert not looked


def test_where_no_call_spares_the_times_a_lost_name_is_seen_as_well(monkeypatch):
    def refused(fd):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with pytest.raises(OSError, match="[Bb]ad file"):
        inside.by_statx(-1)
    for sees in (inside.by_statx, refused):
        monkeypatch.setattr(*inside.at("by_statx"), sees)
        share = Share.open("./one", 0, max_size="1M", durable=True)
        share.set(1)
        os.unlink("one")
        inside.looked_ns_of.set(inside.lock_of(share), 0)
        with pytest.raises(ShareNotFoundError, match="has been removed"):
            share.set(2)
        share.close()


def test_a_name_that_was_taken_away_durably_is_gone_from_the_disk_too(monkeypatch):
    synced, real = [], os.fsync
    durable = Share.open("./durable", 1, max_size="1M", durable=True)
    plain = Share.open("./plain", 1, max_size="1M")
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), real(fd))[1])
    plain.unlink()
    assert synced == []
    durable.unlink()
    assert synced == [os.stat(".").st_ino]


def test_names_and_memory_are_not_durable(monkeypatch):
    with pytest.raises(ValueError, match=r'give durable=True a path, such as "\./jobs.mmapshare"'):
        Share.open("jobs", 1, durable=True)
    monkeypatch.setattr(*inside.at("is_memory"), lambda fd: True)
    with pytest.raises(OpenError, match="lies in memory"):
        Share.open("./one", 1, durable=True)
    assert os.listdir() == []


def test_a_copied_file_is_another_share_whatever_moment_it_was_copied_at():
    share = Share.open("./one", {"n": 1}, max_size="1M", durable=True)
    with share.locked() as view:
        shutil.copyfile("one", "copy")
        view["n"] = 2
    os.chmod("copy", 0o600)
    copy = Share.open("./copy")
    assert copy is not share
    assert copy.info().holder_pid is None
    copy.set("copied")
    assert share.get() == {"n": 2}
    assert in_child(lambda: Share.open("./copy").get()) == "copied"


def test_a_moved_file_is_the_same_share():
    share = Share.open("./one", 1, max_size="1M")
    os.rename("one", "two")
    assert Share.open("./two") is share
    assert share.set(2) == 2


def test_a_file_system_that_was_copied_does_not_lead_to_the_original(monkeypatch):
    """Such a copy has the inode's number too, and only the device tells the two apart."""
    share = Share.open("./one", 1, max_size="1M")
    shutil.copyfile("one", "copy")
    os.chmod("copy", 0o600)
    _put("copy", inside.INODE, os.stat("copy").st_ino)
    with pytest.raises(OpenError, match="is a copy of"):
        Share.open("./copy")
    share.close()
    del share
    gc.collect()
    assert Share.open("./copy").get() == 1


def test_what_was_made_by_a_name_is_not_opened_by_a_path_and_the_reverse():
    Share.open("jobs", 1).unlink()
    named = Share.open("jobs", 1, max_size="1M")
    folder = os.environ["MMAPSHARE_DIR"]
    with pytest.raises(OpenError, match="was made by a name, and is opened by that alone"):
        Share.open(f"{folder}/jobs.mmapshare")
    named.unlink()
    Share.open(f"{folder}/jobs.mmapshare", 1, max_size="1M")
    with pytest.raises(OpenError, match="was made by a path, and is opened by that alone"):
        Share.open("jobs")
    Share.open(f"{folder}/jobs.mmapshare").unlink()


def test_paths_that_lead_nowhere_say_so(tmp_path):
    for create in (None, True):
        with pytest.raises(OpenError, match="the folder .*/missing cannot be used: No such file"):
            Share.open("./missing/one", create=create)
    with pytest.raises(ShareNotFoundError, match="there is none in .*/missing"):
        Share.open("./missing/one", create=False)
    Share.open("./jobs.share", 1)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ShareNotFoundError, match=r"there are /.*/jobs\.share$"):
        Share.open("./jobz.share", create=False)
    with pytest.raises(CorruptRegionError, match="no share's file: it has 4 bytes"):
        Share.open("./letter.txt", 1) if not os.chmod("letter.txt", 0o600) else None
    with pytest.raises(OpenError, match="the folder .*letter.txt cannot be used: Not a directory"):
        Share.open("./letter.txt/one")
    with pytest.raises(OpenError, match="xxx cannot be opened or made here: File name too long"):
        Share.open("./" + "x" * 300)
    for wrong in ("./a/", "a/b\0c"):
        with pytest.raises(ValueError, match="no path of a file"):
            Share.open(wrong)
    with pytest.raises(TypeError, match="a share's path is a str, not bytes"):
        Share.open(_BytesPath())


class _BytesPath:
    def __fspath__(self):
        return b"./a"


def test_a_link_to_a_file_is_not_followed_and_one_in_the_path_is(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    share = Share.open("./link/one", 1)
    assert Share.open("./real/one") is share
    (tmp_path / "two").symlink_to("real/one")
    with pytest.raises(UnsafePathError, match="is a symbolic link"):
        Share.open("./two")


def test_unlinking_a_file_leaves_nothing_beside_it():
    share = Share.open("./one", 1)
    share.unlink()
    assert os.listdir() == []
    assert share.set(2) == 2


def test_large_values_of_files_are_checked_too():
    for damaged, expected in ((False, b"b"), (True, b"a")):
        share = Share.open(f"./{damaged}", b"a" * 100_000, max_size="1M")
        share.set(b"b" * 100_000)
        slot = inside.load_slot(inside.store_of(share))
        (path,) = _the_machine_starts_again(share)
        if damaged:
            _put(path, slot.start // 8 + 5, 0)
        assert Share.open(path).get() == expected * 100_000
