"""Large values of which pages are swapped out: what was touched is known, what is held stays."""

import ctypes
import fcntl
import mmap
import os

import pytest
from support import Wanted
from support.large import filled, is_filled, is_held

from mmapshare import Share

numpy = Wanted("numpy")
PAGEOUT = 21
SWAPPED = 1 << 62


def _swap_out(array):
    """Has the kernel put an array's own pages on the disk; how many of them are there."""
    at = array.__array_interface__["data"][0] & -mmap.PAGESIZE
    pages = array.nbytes // mmap.PAGESIZE + 1
    madvise = ctypes.CDLL(None).madvise
    assert madvise(ctypes.c_void_p(at), ctypes.c_size_t(pages * mmap.PAGESIZE), PAGEOUT) == 0
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        words = os.pread(file.fileno(), 8 * pages, 8 * (at // mmap.PAGESIZE))
    return int((numpy.frombuffer(words, numpy.uint64) & numpy.uint64(SWAPPED) != 0).sum())


@pytest.fixture(params=["as PAGEMAP_SCAN lists them", "by the words of the pages"])
def asked(request, monkeypatch):
    """The two ways to ask the kernel."""
    if request.param == "by the words of the pages":
        monkeypatch.setattr(fcntl, "ioctl", lambda *args: os.read(-1, 1))  # An OSError.


@pytest.mark.usefixtures("asked")
def test_a_touched_page_that_is_swapped_out_is_committed():
    share = Share(filled(0), max_size="64M")
    for number in range(1, 4):  # The first has no record to write over.
        held = share.get(copy=False)
        before = held.copy()
        with share.locked() as view:
            view.value[::4096] += number
            view.value[7] = -number
            assert is_held(view.value)
            if not _swap_out(view.value):
                pytest.skip("there is no swap here")
            _swap_out(held)
        expected = before.copy()
        expected[::4096] += number
        expected[7] = -number
        assert (share.get() == expected).all() and (held == before).all()


def test_what_is_held_is_there_again_when_it_was_swapped_out():
    share = Share(filled(1), max_size="64M")
    held = share.get(copy=False)
    held[:4096] = 1  # Pages of its own, which are swapped out; the others are the region's.
    share.set(filled(2))
    if not _swap_out(held):
        pytest.skip("there is no swap here")
    share.set(filled(3))
    assert is_held(held) and is_filled(held, 1) and is_filled(share.get(), 3)
