"""Memory is taken as it is used, given back when it is not, and refused cleanly."""

import errno
import fcntl
import glob
import mmap
import os
import stat
import sys
import tempfile
import time

import pytest
from support import Wanted, in_child, inside, no_more_descriptors, open_fds
from support.inside import Segment

from mmapshare import CorruptRegionError, RegionFullError, Share

numpy = Wanted("numpy")

MIB = 1 << 20


def test_an_unused_tebibyte_costs_next_to_nothing(kind):
    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096

    Share(kind=kind).close()
    before = resident()
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        share = Share(max_size="1T", kind=kind)
        times.append(time.perf_counter() - begin)
        assert share.info().resident_bytes < 100_000
        share.close()
    share = Share(max_size="1T", kind=kind)
    assert resident() - before < 100_000
    print("fastest:", min(times))
    share.set(1)
    assert share.info().resident_bytes < 100_000


@pytest.mark.alone
def test_a_large_value_grows_the_region_and_a_small_one_gives_it_back(make):
    share = make(numpy.ones(64 * MIB, dtype="u1"), max_size="2G")
    share.set(numpy.zeros(512 * MIB, dtype="u1"))
    assert share.info().resident_bytes >= 512 * MIB
    share.set("small")
    assert share.info().resident_bytes < 32 * MIB
    assert share.get() == "small"
    share.set(numpy.ones(3 * MIB, dtype="u1"))
    assert share.get().sum() == 3 * MIB


def test_a_value_of_steady_size_takes_about_twice_itself(make):
    share = make(max_size="1G")
    for n in range(6):
        share.set(bytes([n]) * (20 * MIB))
    assert share.info().resident_bytes < 48 * MIB


def test_small_commits_rotate_through_a_small_window(make):
    share = make({"n": 0})
    for n in range(5000):
        share.set({"n": n})
    assert share.info().resident_bytes < 200_000


def test_the_region_file_is_nobody_elses_and_cannot_shrink():
    share = Share(1)
    fd = inside.segment_of(share).fd
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 4096)
    seals = fcntl.fcntl(fd, 1034)
    assert seals & inside.SEAL_SHRINK
    assert not os.get_inheritable(fd)


def test_the_lock_is_on_a_description_of_its_own():
    """mmap keeps a duplicate of the descriptor it was made from: a lock there would stay."""
    before = _region_fds()
    share = Share(1)
    share.lock()
    try:
        for fd in _region_fds() - before - {inside.segment_of(share).fd}:
            with pytest.raises(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        share.unlock()


def _region_fds():
    return {fd for fd, path in open_fds().items() if "memfd:mmapshare" in path}


def test_a_machine_without_memory_refuses_and_the_old_value_stands(make, monkeypatch):
    share = make(b"old", max_size="1G")

    def no_memory(fd, start, length):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_memory)
    with pytest.raises(RegionFullError, match="No space left"):
        share.set(bytes(10 * MIB))
    with pytest.raises(RegionFullError), share.locked() as view:
        view.value = bytes(10 * MIB)
    assert (share.get(), share.version) == (b"old", 1)
    monkeypatch.undo()
    share.set(bytes(10 * MIB))
    assert share.get() == bytes(10 * MIB)


def test_without_ways_to_allocate_and_give_back_it_still_works(make, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.delattr("mmap.MADV_REMOVE")
    share = make(bytes(30 * MIB))
    share.set(1)
    share.set(bytes(20 * MIB))
    assert share.get() == bytes(20 * MIB)


def test_a_failing_setup_leaves_nothing_open(kind, monkeypatch):
    before = len(open_fds())
    monkeypatch.setattr(os, "ftruncate", _refuse)
    with pytest.raises(RegionFullError, match="max_size"):
        Share(kind=kind)
    monkeypatch.undo()
    monkeypatch.setattr(mmap, "mmap", _refuse)
    with pytest.raises(RegionFullError, match="max_size"):
        Share(kind=kind)
    monkeypatch.undo()
    assert len(open_fds()) == before


def test_a_lack_of_descriptors_leaves_nothing_open_and_is_told_as_such(kind):
    """The portable kind left its folder, and the memfd kind advised to a smaller ceiling."""
    Share(kind=kind).close()
    before, folders = open_fds(), glob.glob(tempfile.gettempdir() + "/*")
    for free in range(2 if sys.version_info >= (3, 13) else 3):  # Without mmap's duplicate.
        with no_more_descriptors(free), pytest.raises(OSError) as caught:
            Share(kind=kind)
        assert caught.value.errno == errno.EMFILE
        caught = None
        assert open_fds() == before
        assert glob.glob(tempfile.gettempdir() + "/*") == folders


def test_a_share_of_the_portable_kind_that_cannot_be_counted_leaves_nothing_open(monkeypatch):
    """The descriptor by which a process is a user of the folder was left open."""
    before = open_fds()
    monkeypatch.setattr(fcntl, "flock", _refuse)
    with pytest.raises(RegionFullError):
        Share(kind="file")
    monkeypatch.undo()
    assert open_fds() == before


def _refuse(*args, **options):
    raise OSError(12, "Cannot allocate memory")


def test_allocating_is_ahead_of_the_need_but_not_by_much():
    segment = Segment.create("memfd", 64 * MIB)
    try:
        assert segment.allocate(0, 100) == 4096
        assert segment.allocate(0, 16 * MIB) == 17 * MIB
        assert segment.allocate(0, 64 * MIB) == 64 * MIB
        assert segment.give_back(100, 64 * MIB) == 4096
        assert segment.resident_bytes() == 4096
    finally:
        segment.close()


def test_areas_alternate_only_when_their_window_is_full():
    share = Share(b"x" * 1000)
    starts = []
    for _ in range(200):
        share.set(b"x" * 1000)
        starts.append(inside.region_of(share).newest()[inside.VALUE_START])
    moves = sum(b < a or b - a > inside.WINDOW_MOST for a, b in zip(starts, starts[1:]))
    assert 2 <= moves <= 5


def test_the_default_kind_is_memfd_on_linux_and_a_file_elsewhere(monkeypatch):
    assert Share(1).info().kind == "memfd"
    monkeypatch.delattr(os, "memfd_create")
    share = Share(1)
    assert share.info().kind == "file"
    assert share.get() == 1


def test_what_is_received_and_cannot_be_mapped_is_closed():
    """It came in a message, and nobody else knows of the descriptor."""
    before = open_fds()
    with pytest.raises(CorruptRegionError, match="empty"):
        Segment.adopt(os.memfd_create("mmapshare"))
    folder = os.open(tempfile.gettempdir(), os.O_RDONLY)
    with pytest.raises(OSError):
        Segment.adopt(folder)
    assert open_fds() == before


def test_a_folder_with_something_else_in_it_goes_too():
    share = Share(1, kind="file")
    folder = inside.segment_of(share).folder
    with open(os.path.join(folder, "stray"), "w") as stray:
        stray.write("of somebody else")
    share.close()
    assert not os.path.exists(folder)


@pytest.mark.parametrize("size", [10, inside.HUGE_LEAST - 1, inside.HUGE_LEAST, 5 * MIB + 1])
def test_a_private_copy_is_writeable_and_of_this_process_alone(size):
    source = bytearray(b"s" * size)
    with memoryview(source) as view:
        copy = inside.private_copy(view)
    assert bytes(copy) == source
    copy[0] = copy[size - 1] = 1
    assert source == b"s" * size
    in_child(copy.__setitem__, 0, 2)
    assert copy[0] == 1


def test_a_kernel_without_huge_pages_gives_private_copies_of_small_ones(monkeypatch):
    source = memoryview(b"s" * inside.HUGE_LEAST)
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 10_000)  # EINVAL
    assert bytes(inside.private_copy(source)) == source
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    assert bytes(inside.private_copy(source)) == source


def test_a_mapping_without_a_descriptor_of_its_own_is_unmapped():
    mapping = mmap.mmap(-1, 4096)
    inside.unmap(mapping, None)
    assert mapping.closed == inside.has_gil()  # Else the last reference to it lets it go.
