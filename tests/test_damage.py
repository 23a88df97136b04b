"""Bytes that something else has written: what the mutants of the proof have found, one by one."""

import contextlib
import pickle

import pytest

from mmapshare import (
    Share,
    SharedDict,
    _handle,
    _index,
    _log,
    _region,
)
from mmapshare._layout import ALLOCATED

MOST = 2**64 - 1


@contextlib.contextmanager
def _opened_anew(share):
    """As a process opens it that is given its handle."""
    handle = pickle.dumps(share)
    _handle._open_here.pop(share._region.identity.region_id)
    again = pickle.loads(handle)
    try:
        yield again
    finally:
        again.close()
        _handle.register(share)


@pytest.mark.parametrize("word", [0, "the other area's", MOST])
def test_a_damaged_allocated_word_costs_no_other_memory(monkeypatch, word):
    """What an area has too much of was given back up to where the word said.

    That was an OverflowError, or a hole punched into the value in the other area.
    """
    monkeypatch.setattr(_region, "_WINDOW_LEAST", 64)
    monkeypatch.setattr(_region, "_WINDOW_RECORDS", 1)
    monkeypatch.setattr(_region, "_WINDOW_MOST", 4096)
    monkeypatch.setattr(_region, "_KEEP_BYTES", 4096)
    share = Share([0], max_size="64K")
    region = share._region
    for n in range(1, 6):
        for area in (0, 1):
            end = region._area_start(area) + region._area_bytes
            region._words[ALLOCATED[area]] = end + 65536 if isinstance(word, str) else word
        share.set([n])
        with _opened_anew(share) as again:
            assert again.get() == [n]


@pytest.mark.parametrize("word", [0, "the other area's", MOST])
def test_the_same_in_a_shared_dict(monkeypatch, word):
    """There a record could also be written beyond the end of its area."""
    monkeypatch.setattr(_index, "_SPARE_BYTES", -(1 << 30))
    monkeypatch.setattr(_log, "_KEEP_BYTES", 4096)
    shared = SharedDict({"a": 0, "b": "b" * 100}, max_size="64K")
    region = shared._region
    for n in range(1, 6):
        for area in (0, 1):
            end = region._area_start(area) + region._area_bytes
            region._words[ALLOCATED[area]] = end + 65536 if isinstance(word, str) else word
        shared["a"] = n
        with _opened_anew(shared) as again:
            assert again == {"a": n, "b": "b" * 100}


def test_a_delta_never_leaves_its_area(monkeypatch):
    """An area that seemed to have memory without end took a record that reached into the other."""
    monkeypatch.setattr(_index, "_SPARE_BYTES", 1 << 30)
    shared = SharedDict({"a": b""}, max_size="1M")
    region = shared._region
    region._words[ALLOCATED[0]] = MOST
    for n in range(12):
        shared["a"] = bytes([n]) * 1_000_000
        newest = region.newest()
        assert newest[_log.END] <= newest[_log.BASE] + region._area_bytes
    assert shared["a"] == bytes([n]) * 1_000_000
