"""Bytes that something else has written: what the mutants of the proof have found, one by one."""

import contextlib
import os
import pickle
import time

import pytest
from support import Wanted, inside
from support.inside import (
    ALLOCATED,
    BLOCKED,
    CONTENDED,
    FOUND_DEAD,
    HOLDER,
    LEASE,
    LOCK_WORDS,
    OLDEST_READABLE,
    TRY,
    VERSION,
    ProcessLock,
)

from mmapshare import CorruptRegionError, LockTimeout, Share, SharedDict

numpy = Wanted("numpy")

MOST = 2**64 - 1


@contextlib.contextmanager
def _opened_anew(share):
    """As a process opens it that is given its handle."""
    handle = pickle.dumps(share)
    inside.open_here.pop(inside.region_id_of(share))
    again = pickle.loads(handle)
    try:
        yield again
    finally:
        again.close()
        inside.register_open(share)


@pytest.mark.parametrize("word", [0, "the other area's", MOST])
def test_a_damaged_allocated_word_costs_no_other_memory(monkeypatch, word):
    """What an area has too much of was given back up to where the word said.

    That was an OverflowError, or a hole punched into the value in the other area.
    """
    monkeypatch.setattr(*inside.at("WINDOW_LEAST"), 64)
    monkeypatch.setattr(*inside.at("WINDOW_RECORDS"), 1)
    monkeypatch.setattr(*inside.at("WINDOW_MOST"), 4096)
    monkeypatch.setattr(*inside.at("VALUE_KEEP_BYTES"), 4096)
    share = Share([0], max_size="64K")
    region = inside.region_of(share)
    for n in range(1, 6):
        for area in (0, 1):
            end = inside.area_start(region, area) + inside.area_bytes_of(region)
            inside.words_of(region)[ALLOCATED[area]] = (
                end + 65536 if isinstance(word, str) else word
            )
        share.set([n])
        with _opened_anew(share) as again:
            assert again.get() == [n]


@pytest.mark.parametrize("word", [0, "the other area's", MOST])
def test_the_same_in_a_shared_dict(monkeypatch, word):
    """There a record could also be written beyond the end of its area."""
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), -(1 << 30))
    monkeypatch.setattr(*inside.at("LOG_KEEP_BYTES"), 4096)
    shared = SharedDict({"a": 0, "b": "b" * 100}, max_size="64K")
    region = inside.region_of(shared)
    for n in range(1, 6):
        for area in (0, 1):
            end = inside.area_start(region, area) + inside.area_bytes_of(region)
            inside.words_of(region)[ALLOCATED[area]] = (
                end + 65536 if isinstance(word, str) else word
            )
        shared["a"] = n
        with _opened_anew(shared) as again:
            assert again == {"a": n, "b": "b" * 100}


def test_a_delta_never_leaves_its_area(monkeypatch):
    """An area that seemed to have memory without end took a record that reached into the other."""
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), 1 << 30)
    shared = SharedDict({"a": b""}, max_size="1M")
    region = inside.region_of(shared)
    inside.words_of(region)[ALLOCATED[0]] = MOST
    for n in range(12):
        shared["a"] = bytes([n]) * 1_000_000
        newest = region.log.newest()
        assert newest[inside.LOG_END] <= newest[inside.LOG_BASE] + inside.area_bytes_of(region)
    assert shared["a"] == bytes([n]) * 1_000_000


def test_a_version_of_0_does_not_empty_a_share():
    """It looked as if nothing had been committed, and the next commit was the first one again."""
    share = Share(1)
    share.set(2)
    with _opened_anew(share) as again:
        inside.header_of(again)[VERSION] = 0
        for act in (again.get, again.info, lambda: again.set(3), lambda: share.get()):
            with pytest.raises(CorruptRegionError, match="the region's version is 0"):
                act()
        inside.header_of(again)[VERSION] = 2
        assert share.get() == again.get() == 2


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_version_of_0_is_damage_to_who_has_seen_the_first(size):
    """Nothing in the region tells it: only that this process has read version 1."""
    share = Share(b"x" * size)
    inside.commit_of.set(inside.region_of(share), inside.UNREAD_COMMIT)
    inside.seen_of.set(inside.region_of(share), inside.NOTHING_SEEN)
    share.get()
    assert (inside.commit_of(inside.region_of(share)) == inside.UNREAD_COMMIT) == (
        size > inside.CACHED_BYTES
    )
    if size < inside.CACHED_BYTES:
        inside.seen_of.set(inside.region_of(share), inside.NOTHING_SEEN)
    inside.header_of(share)[VERSION] = 0
    with pytest.raises(CorruptRegionError, match="the region's version is 0"):
        share.get()


def test_a_version_of_0_does_not_empty_a_dict():
    """The same, where the process had not read it yet."""
    shared = SharedDict(a=1)
    shared["a"] = 2
    with _opened_anew(shared) as again:
        inside.header_of(again)[VERSION] = 0
        for act in (lambda: again["a"], lambda: len(again), lambda: again.update(b=1)):
            with pytest.raises(CorruptRegionError, match="the region's version is 0"):
                act()


def test_a_first_commit_that_was_killed_leaves_an_empty_share():
    """Its slot may be there, or half of it: that is no damage."""
    share, shared = Share(1), SharedDict(a=1)
    with _opened_anew(share) as again, _opened_anew(shared) as again_shared:
        inside.header_of(share)[VERSION] = inside.words_of(inside.region_of(shared))[VERSION] = 0
        assert again.info().version == 0
        assert len(again_shared) == 0
        assert again.set(5) == 1
        again_shared["b"] = 6
        assert (again.get(), again_shared) == (5, {"b": 6})


def test_a_dict_does_not_follow_a_version_that_went_back():
    """It took what it knew of the newest version for the one before it."""
    shared = SharedDict(a=1)
    shared["a"] = 2
    inside.header_of(shared)[VERSION] = 1
    with pytest.raises(CorruptRegionError, match="went back from 2 to 1"):
        shared.snapshot()


def test_a_dict_is_not_read_under_the_lock_where_the_floor_is_damaged():
    """After some attempts a reader takes the lock, and did not ask again whether its place stands.

    1. A process has read version 1. 2. The dict is written anew elsewhere, twice; what was there
    is overwritten. 3. The version is damaged, and says 1. The process read what stands there now.
    """
    shared = SharedDict(a=1)
    with _opened_anew(shared) as again:
        assert again == {"a": 1}
        (
            inside.header_of(shared)[OLDEST_READABLE],
            inside.header_of(shared)[VERSION],
        ) = 3, 1
        with pytest.raises(CorruptRegionError, match="OLDEST_READABLE"):
            again.snapshot()


def test_counters_that_are_full_begin_again():
    """Adding one to a word of 2 ** 64 - 1 raised a ValueError out of taking the lock."""
    share = Share(1)
    words = inside.header_of(share)[LOCK_WORDS]
    words[CONTENDED] = words[FOUND_DEAD] = MOST
    words[HOLDER] = 1
    share.set(2)
    inside.count(words, CONTENDED)
    assert (share.info().contended_waits, share.info().holders_found_dead) == (0, 0)
    words.release()


def test_a_lease_or_a_queue_from_a_far_future_is_forgotten():
    """Each commit looked for sleepers for ever, and who was blocked could not queue any more."""
    assert inside.WAIT_LEASE_NS < inside.LEASE_MOST_NS
    share = Share(1)
    words = inside.header_of(share)[LOCK_WORDS]
    words[LEASE] = words[BLOCKED] = MOST
    share.set(2)
    assert (words[LEASE], words[BLOCKED]) == (0, 0)
    words[LEASE] = good = time.monotonic_ns() + inside.WAIT_LEASE_NS
    share.set(3)
    assert words[LEASE] == good
    words.release()


@pytest.mark.parametrize("what", ["fifo", "folder", "pipe"])
def test_a_lock_whose_words_lead_to_something_else_is_waited_for_in_peace(tmp_path, what):
    """Opening a FIFO blocked for ever; reading from the others raised an OSError."""
    if what == "fifo":
        os.mkfifo(tmp_path / "fifo")
        fds = [os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)]
    else:
        fds = [os.open(tmp_path, os.O_RDONLY)] if what == "folder" else list(os.pipe())
    mine, wanted = Share(1), Share(1, kind="memfd")
    taken = ProcessLock(f"/proc/self/fd/{inside.segment_of(wanted).fd}")
    taken.flock(taken.fd, TRY)
    words = inside.lock_of(wanted).words
    words[HOLDER], words[inside.WAITS_ID] = os.getppid(), 12345
    words[inside.WAITS_PID], words[inside.WAITS_FD] = os.getpid(), fds[0]
    mine.lock()
    try:
        with pytest.raises(LockTimeout):
            wanted.lock(timeout=0)
    finally:
        mine.unlock()
        taken.close()
        for fd in fds:
            os.close(fd)


def test_a_file_that_was_emptied_is_refused():
    """It was a ValueError of mmap's."""
    share = Share(1, kind="file")
    path = os.path.join(inside.segment_of(share).folder, "region")
    size = os.path.getsize(path)
    handle = pickle.dumps(share)
    inside.open_here.pop(inside.region_id_of(share))
    os.truncate(path, 0)
    absent = pickle.loads(handle)
    with pytest.raises(CorruptRegionError, match="empty"):
        absent.get()
    os.truncate(path, size)
    inside.register_open(share)


@pytest.mark.parametrize(
    "stream",
    [
        b"\x8e" + (1 << 60).to_bytes(8, "little") + b"x.",  # BINBYTES8
        b"\x96" + (1 << 62).to_bytes(8, "little") + b"x.",  # BYTEARRAY8
    ],
)
def test_a_size_that_cannot_be_is_damage_and_no_want_of_memory(make, stream):
    """A payload whose bytes ask for more than any machine has came out as a MemoryError."""
    share = make(b"x" * 100)
    region = inside.region_of(share)
    start, end = region.newest()[inside.VALUE_START : inside.VALUE_END + 1]
    inside.map_of(region)[start:end] = (pickle.PROTO + b"\x05" + stream).ljust(end - start, b"\0")
    inside.commit_of.set(region, inside.UNREAD_COMMIT)
    with pytest.raises(CorruptRegionError, match="overwritten") as caught:
        share.get()
    # From Python 3.15 on pickle looks at the size first.
    assert isinstance(caught.value.__cause__, MemoryError | pickle.UnpicklingError)


def test_a_want_of_memory_stays_one():
    """A sound stream that finds no memory is not damaged."""
    frames = inside.encode({"a": [1, 2, 3], "b": b"x" * 300})
    with pytest.raises(MemoryError):
        inside.recover(frames, MemoryError())


def test_a_memo_that_is_larger_than_its_stream_is_damage():
    """A number for an object that a stream of some bytes cannot have counted up to."""
    stream = b"\x80\x05K\x01r\xff\xff\xff\x7f."
    with pytest.raises(CorruptRegionError):
        inside.recover((stream,), MemoryError())


def _forget(shared):
    """As a process that has not read it yet."""
    inside.index_of(shared).state = inside.fresh_state(inside.store_of(shared))


def _heads(region):
    """Begin and end of what is checked of each record: head and directory."""
    newest = region.log.newest()
    begin = newest[inside.LOG_BASE]
    for raw, _, end, _ in region.log.records(begin, newest[inside.LOG_EPOCH], newest):
        yield begin, begin + inside.RECORD_BYTES + len(raw)
        begin = end + 7 & -8


@pytest.mark.parametrize("walk_bytes", [64, 1 << 20])
def test_any_changed_byte_of_a_record_is_noticed(monkeypatch, walk_bytes):
    """Whether records are read one by one or many at a time, and before values are loaded."""
    monkeypatch.setattr(*inside.at("LOG_WALK_BYTES"), walk_bytes)
    keys = [f"key {n}" for n in range(20)]
    shared = SharedDict(dict.fromkeys(keys, 1))
    shared["a"] = 2
    shared.update(dict.fromkeys(keys[:10], 3))
    region = inside.region_of(shared)
    for begin, end in list(_heads(region)):
        for at in range(begin, end):
            for bit in (1, 128):
                inside.map_of(region)[at] ^= bit
                _forget(shared)
                with pytest.raises(CorruptRegionError, match="record of version"):
                    shared.copy()
                inside.map_of(region)[at] ^= bit
    assert shared.copy() == dict.fromkeys(keys[:10], 3) | dict.fromkeys(keys[10:], 1) | {"a": 2}


def test_any_changed_byte_of_the_newest_one_key_record_or_its_slot_is_noticed():
    """By a process that had read the version before it, which takes the shortest way."""
    shared = SharedDict(a=1)
    shared["a"] = 2
    region, state = inside.region_of(shared), inside.index_of(shared).state
    with _opened_anew(shared) as again:
        again["a"] = 3
        *_, record = _heads(region)
        slot = range(inside.SLOTS[1].start, inside.SLOTS[1].stop)
        parts = slot[32:40]  # It is 1 in a log, and not looked at on this way.
        for at in (*range(*record), *(at for at in slot if at not in parts)):
            for bit in (1, 128):
                inside.map_of(region)[at] ^= bit
                assert state.version == 2
                with pytest.raises(CorruptRegionError):
                    shared.get("a")
                inside.map_of(region)[at] ^= bit
        assert shared["a"] == 3
    assert inside.index_of(shared).state is state


def test_an_area_that_begins_with_a_delta_is_damage():
    """Its keys would have been taken for all that there are."""
    shared = SharedDict(a=1)
    region = inside.region_of(shared)
    begin = region.log.newest()[inside.LOG_BASE]
    key, value = pickle.dumps("a"), pickle.dumps(2)
    at = inside.RECORD_BYTES + len(key)
    size = at + len(value)
    inside.map_of(region)[begin : begin + size] = (
        inside.pack_record(1, size, at, len(key) | inside.ONE_KEY, key) + value
    )
    inside.map_of(region)[inside.SLOTS[1]] = inside.pack_slot(1, begin, begin + size, 1, 1)
    _forget(shared)
    with pytest.raises(CorruptRegionError, match="snapshot"):
        shared.copy()


def test_a_frame_table_that_does_not_fill_its_record_is_damage():
    """One that has its checks, but leads out of the record or leaves some of it over."""
    for second in (4999, 5001, 1 << 40):
        table, parts = inside.pack_table([10, second])
        start = inside.HEADER_BYTES
        end = start + len(table) + 64 + 5000
        head = inside.Slot(1, start, end, 1, parts)
        with pytest.raises(CorruptRegionError, match="do not fill"):
            inside.frame_extents(head, table)


def test_a_value_that_is_damaged_is_told_as_such_by_the_quickest_read():
    shared = SharedDict(a=[1, 2, 3])
    begin, end = inside.index_of(shared).state.places["a"]
    inside.map_of(inside.region_of(shared))[begin:end] = b"\xff" * (end - begin)
    assert inside.region_of(shared).version == inside.index_of(shared).state.version
    with pytest.raises(CorruptRegionError, match="overwritten"):
        shared["a"]


@pytest.mark.parametrize("word", [2, MOST])
def test_the_locks_holder_notices_a_floor_that_is_ahead(word):
    """Nobody can overtake it: who asks for another attempt would ask for ever."""
    share, shared = Share([1]), SharedDict(a=1)
    for one in (share, shared):
        inside.header_of(one)[OLDEST_READABLE] = word
        with _opened_anew(one) as again:
            with pytest.raises(CorruptRegionError, match="OLDEST_READABLE"), again.locked():
                raise AssertionError("it was opened")
            assert inside.token_of(again) is None


def test_a_damaged_table_under_a_floor_that_is_ahead_ends_the_holders_read():
    """The table looks as if a writer had overtaken the reader, who has the lock."""
    share = Share(numpy.zeros(1000))
    region = inside.region_of(share)
    inside.map_of(region)[region.newest()[inside.VALUE_START]] ^= 1
    with _opened_anew(share) as again:
        inside.words_of(region)[OLDEST_READABLE] = MOST
        assert inside.region_of(again).try_read() is None
        with pytest.raises(CorruptRegionError, match="OLDEST_READABLE"), again.locked():
            raise AssertionError("it was opened")
