"""Which numbers our descriptors take, what a handle passes, and what is done where few are left."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import pickle
import resource
import subprocess
import sys

import pytest
from support import TESTS, Child, in_child, inside, no_more_descriptors, open_fds
from support.descriptors import close_all

from mmapshare import HandleError, Share

DESCRIPTORS = 1 if sys.version_info >= (3, 13) else 2
"""What one share takes: its own description, and mmap's duplicate where mmap keeps one."""


def test_a_handle_passes_a_description_that_is_neither_locked_nor_gone():
    def work():
        share = Share(0)
        share.lock()
        segment = inside.segment_of(share)
        passed = segment.fd_to_pass()
        assert passed == segment.fd_to_pass() != segment.fd
        os.close(passed)
        again = segment.fd_to_pass()
        assert again == segment.fd_to_pass() != segment.fd
        with pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        share.unlock()
        share.close()
        with pytest.raises(OSError):
            os.fstat(again)
        return True

    assert in_child(work)


def test_a_handle_to_what_was_closed_is_refused():
    def work(child):
        share = Share(1)
        raw = pickle.dumps(share)
        close_all(child)
        with pytest.raises(HandleError, match="closed it"):
            in_child(_load_anew, raw)

    Child(work).result()


def _load_anew(raw):
    from support import inside

    inside.open_here.clear()
    return pickle.loads(raw).get()


@pytest.mark.parametrize("kind", ["memfd", "file"])
def test_a_program_without_standard_streams_keeps_them_free(tmp_path, kind):
    """Our descriptors were 0 to 2: what a C library printed went over the region."""
    told = tmp_path / "told"
    program = f"""
import ctypes, os, pickle, sys, tempfile
sys.path.append({TESTS!r})
tempfile.tempdir = {str(tmp_path)!r}
from mmapshare import Share, SharedDict
def ours():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try: found.append((int(name), os.readlink(f"/proc/self/fd/{{name}}")))
        except OSError: pass
    return min([fd for fd, path in found if "mmapshare" in path], default=None), [
        fd for fd, path in found if fd < 3 and "libffi" not in path]  # Which may keep itself open.
def use(share):
    share.set(b"x" * 1000); share.set(b"y" * 3_000_000); share.update(len); share.info()
    with share.locked() as view:
        for fd in range(3):
            ctypes.CDLL(None).write(fd, b"z" * 500, 500)
        inside = ours()
    assert share.get() == 3_000_000
    return inside, ours()
def all_of_it():
    share = Share(0, kind={kind!r}); said = [use(share)]
    read, write = os.pipe()
    for end in (read, write): os.dup2(end, 20 + end)
    for end in (read, write): os.close(end)
    if os.fork() == 0:
        os.write(20 + write, repr(use(share)).encode()); os._exit(0)
    os.wait(); said.append(eval(os.read(20 + read, 1000)))
    raw = pickle.dumps(share)
    from support import inside as insides
    insides.open_here.clear()
    said.append(use(pickle.loads(raw)))
    return said
try:
    said = repr(all_of_it())
except BaseException as err:
    import traceback
    said = traceback.format_exc()
open({str(told)!r}, "w").write(said)
"""
    command = 'exec "$0" -c "$1" <&- >&- 2>&-'
    subprocess.run(["sh", "-c", command, sys.executable, program], check=True)
    said = told.read_text()
    assert said.startswith("["), said
    for within, afterwards in eval(said):
        for least, low in (within, afterwards):
            assert least >= 3
            assert low == []


def test_descriptors_are_far_from_those_that_others_come_by():
    assert inside.segment_of(Share(0)).fd >= 128


def test_where_few_descriptors_are_allowed_more_than_a_hundred_shares_can_be_open():
    """Each took three: with a limit of 256 the 84th failed."""

    def work():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        free = len(set(range(256)) - open_fds().keys())
        shares = []
        with pytest.raises(OSError) as caught:
            while True:
                shares.append(Share(0))
        assert caught.value.errno == errno.EMFILE
        before = len(open_fds())
        for share in shares:
            share.update(int.__add__, 1)
        caught = None
        gc.collect()
        assert len(open_fds()) <= before
        return len(shares) * DESCRIPTORS >= free - 3 * DESCRIPTORS

    assert in_child(work)


def test_without_a_number_to_spare_the_one_that_was_got_is_kept():
    fd = os.open(os.devnull, os.O_RDONLY)
    with no_more_descriptors():
        assert inside.lifted(fd) == fd
    os.close(fd)


def test_without_a_number_to_spare_a_stream_is_not_kept():
    def work():
        os.close(0)
        fd = os.open(os.devnull, os.O_RDONLY)
        with no_more_descriptors(), pytest.raises(OSError) as caught:
            inside.lifted(fd)
        assert (fd, caught.value.errno) == (0, errno.EMFILE)
        assert 0 not in open_fds()

    in_child(work)


def test_what_cannot_be_marked_is_closed():
    read, write = os.pipe()
    before = open_fds()
    with pytest.raises(OSError):
        inside.Descriptor(read)
    assert open_fds() == {fd: path for fd, path in before.items() if fd != read}
    os.close(write)


def test_a_duplicate_is_found_wherever_it_is():
    fd = os.memfd_create("mark")
    duplicate = os.dup(fd)
    assert inside.duplicate_of(fd, duplicate).fd == duplicate
    assert inside.duplicate_of(fd, -1).fd == duplicate
    os.close(duplicate)
    assert not inside.duplicate_of(fd, duplicate).stands()
    os.close(fd)


def test_a_handlers_timeout_is_not_taken_for_a_descriptor_that_is_gone(monkeypatch):
    """A lock that was let go just then stayed with its description: nobody got it any more."""

    def interrupted(*args):
        raise TimeoutError("the handler of SIGALRM")

    monkeypatch.setattr(os, "lseek", interrupted)
    with pytest.raises(TimeoutError, match="SIGALRM"):
        inside.offset_of_descriptor(0)


def test_a_description_that_is_gone_is_replaced_without_closing_what_came_after(tmp_path):
    """Its number may be anybody's by then."""
    (tmp_path / "file").touch()
    old, new = (inside.Descriptor(os.open(tmp_path / "file", os.O_RDWR)) for _ in range(2))
    os.dup2(stranger := os.open("/dev/null", os.O_RDONLY), number := old.fd)
    old.replace_by(new)
    assert os.readlink(f"/proc/self/fd/{number}") == "/dev/null"
    assert old.stands() and new.closed
    os.close(number)
    os.close(stranger)
    old.close()
