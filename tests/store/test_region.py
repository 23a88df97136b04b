"""Readers beside writers, and bytes that something else has written."""

import os
import platform
import random
import signal
import time

import pytest
from support import Child, Wanted, forget, inside, open_fds, region_mappings
from support.inside import Region, Segment, current_owner, token_by

from mmapshare import (
    ClosedError,
    CorruptRegionError,
    RegionFullError,
    Share,
    UnloadableError,
)

numpy = Wanted("numpy")


@pytest.mark.parametrize("size", [10, 3_000, 100_000, 2_000_000])
def test_reads_beside_a_writer_without_pause_are_never_torn(make, size):
    share = make(bytes(size), max_size="64M")

    def write(child):
        n = 0
        while True:
            n = (n + 1) % 256
            share.set(bytes([n]) * size)

    child = Child(write)
    try:
        seen, reads = set(), 0
        while len(seen) < 20 or reads < 300:
            value = share.get()
            assert len(value) == size and value.count(value[0]) == size
            seen.add(value[0])
            reads += 1
    finally:
        child.kill()


def test_reads_need_about_one_attempt(monkeypatch):
    """Nine in ten succeed at once even while values of a megabyte are written without pause."""
    share = Share(bytes(1 << 20))

    def write(child):
        n = 0
        while True:
            n = (n + 1) % 256
            share.set(bytes([n]) * (1 << 20))

    attempts = 0
    real = inside.region_try_read

    def counted(region):
        nonlocal attempts
        attempts += 1
        return real(region)

    monkeypatch.setattr(*inside.at("region_try_read"), counted)
    child = Child(write)
    try:
        for _ in range(200):
            share.get()
    finally:
        child.kill()
    print("attempts per read:", attempts / 200)
    assert attempts <= 300


def test_an_overtaken_reader_reads_again(monkeypatch):
    share = Share(b"a" * 100_000)
    real = inside.region_copy
    overtaken = 0

    def slow(region, extents):
        nonlocal overtaken
        frames = real(region, extents)
        if overtaken < 3:
            overtaken += 1
            monkeypatch.setattr(*inside.at("region_copy"), real)
            for n in range(200):
                share.set(bytes([n]) * 100_000)
            monkeypatch.setattr(*inside.at("region_copy"), slow)
        return frames

    region = inside.region_of(share)
    forget(share)
    monkeypatch.setattr(*inside.at("region_copy"), slow)
    assert region.try_read() is None
    assert share.get() == bytes([199]) * 100_000
    assert overtaken >= 1


def test_a_reader_beside_a_shrink_does_not_take_zeros_for_the_value(monkeypatch):
    """The version before stays whole after a move; not where its memory is given back."""
    monkeypatch.setattr(*inside.at("VALUE_KEEP_BYTES"), 4096)
    share = Share(b"a" * 100_000)
    region, real = inside.region_of(share), inside.region_copy

    def slow(region, extents):
        monkeypatch.setattr(*inside.at("region_copy"), real)
        while region.newest()[inside.VALUE_EPOCH] == 1:
            share.set(b"b")
        (copy,) = real(region, extents)
        assert copy.count(0) > 50_000
        return (copy,)

    forget(share)
    monkeypatch.setattr(*inside.at("region_copy"), slow)
    assert region.try_read() is None
    assert share.get() == b"b"


def test_who_sleeps_on_the_version_says_so_before():
    share = Share(1)
    region = inside.region_of(share)
    until_ns = time.monotonic_ns() + 10**9
    assert region.sleep(region.version + 1, until_ns, 60)
    assert region.lock.words[inside.LEASE] == until_ns


def test_a_first_commit_beside_the_look_for_one_is_no_damage():
    """1. The version is 0. 2. Others commit twice. 3. The slots say so, and so does the version."""
    share = Share(1)
    share.set(2)
    words, looks = inside.header_of(share), []

    class Late:
        def __getitem__(self, index):
            looks.append(index)
            return 0 if len(looks) == 1 else words[index]

    inside.put_words(inside.store_of(share), Late())
    assert inside.load_slot(inside.store_of(share)) is None
    inside.put_words(inside.store_of(share), words)
    assert looks == [inside.VERSION, 32, 40, inside.VERSION]


def test_a_slot_that_is_written_over_beside_the_look_at_it_is_no_damage():
    """1. The version is 2. 2. Its slot is being written over by version 4. 3. A look at the version
    that came before 2, as may be without ordered stores, says 2. 4. The next one does not."""
    share = Share(1)
    share.set(2)
    words, looks = inside.header_of(share), []

    class Early:
        def __getitem__(self, index):
            looks.append(index)
            return 2 if len(looks) <= 2 else 3

    _corrupt(share, inside.SLOTS[0].start, 6)
    inside.put_words(inside.store_of(share), Early())
    assert inside.load_slot(inside.store_of(share)) is None
    inside.put_words(inside.store_of(share), words)
    assert looks == [inside.VERSION] * 3


def test_a_reader_who_is_always_overtaken_borrows_the_lock(monkeypatch):
    share = Share(b"value")
    real = inside.region_try_read
    forget(share)

    def never(region):
        return real(region) if region.lock.token is not None else None

    monkeypatch.setattr(*inside.at("region_try_read"), never)
    assert share.get() == b"value"
    assert inside.token_of(share) is None


def test_where_stores_are_not_ordered_readers_take_the_lock(make, monkeypatch):
    monkeypatch.setattr(*inside.at("ORDERED_STORES_in_memory"), False)
    share = make([1])
    forget(share)
    with share.locked() as view:
        view.append(2)
        assert share.get() == [1]
    forget(share)
    assert share.get() == [1, 2]

    def hold(child):
        with share.locked() as view:
            child.say()
            child.hear()
            view.append(3)

    holder = Child(hold)
    holder.hear()
    forget(share)

    def read(child):
        return share.get()

    reader = Child(read)
    reader.sleeps()
    holder.say()
    holder.result()
    assert reader.result() == [1, 2, 3]


def _corrupt(share, at, byte):
    inside.segment_of(share).map[at] ^= byte
    forget(share)


def test_any_changed_byte_of_header_and_slots_is_noticed_or_harmless():
    share = Share({"n": 1})
    share.set({"n": 2})
    noticed = 0
    for at in range(inside.SLOTS[1].stop):
        for bit in (1, 128):
            _corrupt(share, at, bit)
            try:
                value = share.get()
                assert value == {"n": 2}, at
            except CorruptRegionError:
                noticed += 1
            finally:
                _corrupt(share, at, bit)
    assert noticed > 100
    assert share.get() == {"n": 2}


def test_a_damaged_slot_says_whose_it_is():
    share = Share(1)
    share.set(2)
    _corrupt(share, inside.SLOTS[0].start + 8, 1)
    for act in (share.get, lambda: share.set(3), lambda: inside.region_of(share).used_bytes()):
        with pytest.raises(CorruptRegionError, match="slot of version 2"):
            act()


def test_any_changed_byte_of_a_frame_table_is_noticed():
    share = Share(bytearray(10_000))
    share.set(numpy.arange(10_000))
    head = inside.load_slot(inside.region_of(share))
    assert head.frames == 2
    for floor in (0, head.version):
        inside.header_of(share)[inside.OLDEST_READABLE] = floor
        for at in range(head.start, head.start + 16):
            _corrupt(share, at, 4)
            with pytest.raises(CorruptRegionError, match="table"):
                share.get()
            _corrupt(share, at, 4)
    assert share.get()[9] == 9


def test_changed_payload_is_an_error_or_some_value_and_never_a_crash():
    seed = int.from_bytes(os.urandom(4), "little")
    print("seed", seed)
    rng = random.Random(seed)
    share = Share({"key": ["value", 1, 2.5, b"bytes"]})
    head = inside.load_slot(inside.region_of(share))
    for _ in range(500):
        at, bit = rng.randrange(head.start, head.end), 1 << rng.randrange(8)
        _corrupt(share, at, bit)
        try:
            share.get()
        except (CorruptRegionError, UnloadableError):
            pass
        except MemoryError:
            pass  # A length that was damaged cannot be told from a machine that is full.
        _corrupt(share, at, bit)


def test_another_programs_file_is_no_region():
    segment = Segment.create("memfd", 8192)
    try:
        with pytest.raises(CorruptRegionError, match="no mmapshare region"):
            Region(segment)
        segment.map[:64] = inside.Identity(b"i" * 16, 10, 8192, 0).pack()
        with pytest.raises(CorruptRegionError, match="size"):
            Region(segment)
        other = inside.IDENTITY_STRUCT.pack(inside.MAGIC, 99, b"i" * 16, 10, 8192, 0)
        segment.map[:64] = other + inside.crc32(other).to_bytes(8, "little")
        with pytest.raises(CorruptRegionError, match="format 99"):
            Region(segment)
    finally:
        segment.close()


def test_an_8_byte_store_is_seen_whole():
    """What every commit rests on: no reader of a word ever sees half of a store."""
    share = Share(0)
    words = inside.header_of(share)
    one, two = 0x1111111111111111, 0x2222222222222222
    free = 500

    def store(child):
        while True:
            words[free] = one
            words[free] = two

    words[free] = one
    child = Child(store)
    try:
        seen = {words[free] for _ in range(300_000)}
    finally:
        child.kill()
    assert seen <= {one, two}


def test_children_with_a_version_each_end_at_the_sum(make):
    share = make({"n": 0})

    def add(child):
        child.hear()
        for _ in range(300):
            with share.locked() as view:
                view["n"] += 1

    children = [Child(add) for _ in range(4)]
    for child in children:
        child.say()
    for child in children:
        child.result()
    assert share.get() == {"n": 1200}
    assert share.version == 1201
    assert signal.getsignal(signal.SIGINT) is not None


def test_an_empty_region_has_nothing_to_be_looked_at(make):
    region = inside.region_of(make())
    assert region.glimpse(10) == b""
    assert region.used_bytes() == 0


def test_many_parts_that_fit_the_ceiling_but_not_aligned_are_refused():
    """Each part begins at a multiple of 64, and a table says how long it is."""
    region = inside.MemoryValueStore.create("memfd", 65536)
    frames = (b"old", b"part")
    region.commit(frames)
    with pytest.raises(RegionFullError, match="65,001 parts, aligned") as caught:
        region.commit((b"", *[b"x"] * 65_000))
    assert (caught.value.needed_bytes, caught.value.max_size_bytes) == (65_000, 65_536)
    assert tuple(map(bytes, region.read()[1])) == frames
    assert region.commit((b"", *[b"x"] * 50_000)) == 2
    region.close()


def test_the_machine_is_known_without_uname(monkeypatch):
    assert inside.machine() == platform.machine().lower()
    monkeypatch.delattr(os, "uname")
    assert inside.machine() == platform.machine().lower()


def test_a_reader_who_cannot_borrow_the_lock_goes_on_trying(make, ordered, monkeypatch):
    """Who holds the lock for long commits nothing: an attempt of one's own succeeds."""
    share = make(b"value")

    def hold(child):
        with share.locked():
            child.say()
            child.hear()

    holder = Child(hold)
    holder.hear()
    token = token_by(current_owner())
    assert not inside.lock_of(share).try_acquire(token)
    assert inside.token_of(share) is None
    overtaken = iter(range(inside.ATTEMPTS_BEFORE_LOCK + 3))
    real = inside.region_try_read
    monkeypatch.setattr(
        *inside.at("region_try_read"),
        lambda region: real(region) if next(overtaken, None) is None else None,
    )
    forget(share)
    assert share.get() == b"value"
    assert next(overtaken, None) is None
    assert inside.token_of(share) is None
    assert share.info().holder_pid == holder.pid
    holder.say()
    holder.result()


def test_closing_lets_go_at_once_whoever_still_knows_the_region(make):
    before = open_fds(), region_mappings()
    share = make(1)
    segment = inside.segment_of(share)
    share.close()
    assert (open_fds(), region_mappings()) == before
    with pytest.raises(ClosedError):
        segment.map[0]
