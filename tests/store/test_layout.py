"""The format of a region's bytes, spelled out: numbers here are those of the format, on purpose.

What writes and what reads agree with each other however a word is moved. Another version of this
package, and whoever reads a region from outside, would not.
"""

import os
import struct
import time
from zlib import crc32

import pytest
from support import Wanted, inside
from support.inside import (
    Identity,
    Slot,
    align,
    area_of,
    frame_extents,
    pack_slot,
    pack_table,
    table_bytes,
    unpack_slot,
)

from mmapshare import CorruptRegionError, Share, SharedDict

numpy = Wanted("numpy")

MIB = 1 << 20
AREA = 8192


def _words(share):
    return struct.unpack("<512Q", inside.segment_of(share).map[:4096])


def _bytes(share, begin, end):
    return inside.segment_of(share).map[begin:end]


def _check(version, start, end, run, parts):
    return (3 * version + 5 * start + 7 * end + 11 * run + 13 * parts) % 2**64


def test_a_region_begins_with_its_identity():
    for share, kind, area_bytes in [
        (Share(max_size=MIB), 0, 5 * MIB + MIB // 32),
        (SharedDict(max_size=MIB), 1, 5 * MIB + 3 * MIB // 2),
        (Share(max_size=1), 0, 4 * MIB + 4096),
        (Share(max_size=4 * MIB - 1), 0, 8 * MIB + 4 * MIB // 32),
    ]:
        raw = _bytes(share, 0, 64)
        assert raw[:16] == b"MMAPSHR\0" + bytes([1, 0, 0, 0, 0, 0, 0, 0])
        assert raw[16:32] == inside.region_id_of(share)
        area_bytes = -(-area_bytes // 4096) * 4096
        max_size = inside.region_of(share).region.identity.max_size
        assert struct.unpack("<QQQQ", raw[32:]) == (max_size, area_bytes, kind, crc32(raw[:56]))
        assert inside.segment_of(share).size_bytes == 4096 + 2 * area_bytes


def test_an_identity_that_is_cut_off_or_changed_is_refused():
    raw = Identity(b"i" * 16, 10, AREA, 0).pack()
    assert Identity.unpack(raw) == (b"i" * 16, 10, AREA, 0, 1)
    assert Identity.unpack(raw + b"more") == (b"i" * 16, 10, AREA, 0, 1)
    for damaged in (raw[:63], raw[:56], b"", raw[:-1] + b"\1", b"X" + raw[1:]):
        with pytest.raises(CorruptRegionError, match="no mmapshare region"):
            Identity.unpack(damaged)
    for other in (b"MMAPSHS\0" + raw[8:56], raw[:8] + b"\3" + raw[9:56]):
        with pytest.raises(CorruptRegionError, match="format"):
            Identity.unpack(other + struct.pack("<Q", crc32(other)))


def test_header_words_and_slots_stand_where_the_format_says(monkeypatch):
    monkeypatch.setattr(*inside.at("WINDOW_LEAST"), 64)
    monkeypatch.setattr(*inside.at("WINDOW_RECORDS"), 1)
    monkeypatch.setattr(*inside.at("VALUE_KEEP_BYTES"), 4096)  # Just what each area has.
    share = Share(max_size=MIB)
    area = inside.region_of(share).region.identity.area_bytes
    assert _words(share)[8:] == (0,) * 18 + (4096, 4096 + area) + (0,) * 484
    found = []
    for n in range(1, 4):  # Each record moves to the other area.
        share.set(b"%d" % n * 100)
        start = 4096 + (n + 1) % 2 * area
        (head,) = struct.iter_unpack("<6Q", _bytes(share, 256 + n % 2 * 64, 304 + n % 2 * 64))
        end = head[2]
        assert head == (n, start, end, n, 1, _check(n, start, end, n, 1))
        assert b"%d" % n * 100 in _bytes(share, start, end)
        found.append((_words(share)[8:10], _words(share)[26:28]))
    assert found == [
        ((1, 0), (8192, 4096 + area)),
        ((2, 1), (8192, 8192 + area)),
        ((3, 2), (8192, 8192 + area)),
    ]


def test_records_of_one_run_stand_64_bytes_apart():
    share = Share(b"", max_size=4 * MIB)  # From there on small records go the short way.
    heads = [struct.unpack("<6Q", _bytes(share, 320, 368))]
    for n in range(2, 7):
        share.set(b"x" * n * 21)
        heads.append(struct.unpack("<6Q", _bytes(share, 256 + n % 2 * 64, 304 + n % 2 * 64)))
    end = 4096
    for n, head in enumerate(heads, 1):
        start, size = -(-end // 64) * 64, head[2] - head[1]
        end = start + size
        assert head == (n, start, end, 1, 1, _check(n, start, end, 1, 1))
    assert _words(share)[8:10] == (6, 0)


def test_the_locks_words_stand_where_the_format_says():
    share = Share(1)
    before = time.monotonic_ns()
    with share.locked():
        assert _words(share)[16] == os.getpid()
        assert before <= _words(share)[17] <= time.monotonic_ns()
    assert _words(share)[16] == 0
    lock = inside.lock_of(share)
    inside.count(lock.words, inside.CONTENDED)
    inside.lock_words_of(lock)[inside.HOLDER] = 1
    share.set(2)
    assert _words(share)[18:20] == (1, 1)
    lock.words[inside.LEASE] = 7
    assert _words(share)[20] == 7
    lock.words[5:8] = memoryview(struct.pack("<3Q", 21, 22, 23)).cast("B").cast("Q")
    inside.say_blocked(lock.words)
    assert _words(share)[20:24] == (7, 21, 22, 23)
    assert before <= _words(share)[24] <= time.monotonic_ns()
    assert lock.region_id == _words(share)[2]


def test_a_record_of_several_frames_begins_with_their_lengths():
    share = Share(max_size=MIB)
    given = [numpy.arange(n, dtype="u1") for n in (10_000, 20_011, 30_001)]
    share.set(given)
    version, start, end, run, parts, check = struct.unpack("<6Q", _bytes(share, 320, 368))
    count = parts & 0xFFFFFFFF
    assert (version, start, run, check) == (1, 4096, 1, _check(1, start, end, 1, parts))
    table = _bytes(share, start, start + 64)
    lengths = struct.unpack_from(f"<{count}Q", table)
    assert count == 4 and lengths[1:] == (10_000, 20_011, 30_001)
    assert table[32:] == bytes(32) and parts >> 32 == crc32(table)
    last = start + 64 + lengths[0]
    for frame in given:
        begin = -(-last // 64) * 64
        last = begin + len(frame)
        assert _bytes(share, begin, last) == frame.tobytes()
    assert last == end


def test_records_of_a_log_say_what_the_format_says():
    shared = SharedDict(max_size=MIB)
    shared["key"] = 1
    _, begin, _, run, parts, _ = struct.unpack("<6Q", _bytes(shared, 320, 368))
    assert (begin, run, parts) == (4096, 1, 1)
    shared["key"] = 2
    version, start, end, run, parts, check = struct.unpack("<6Q", _bytes(shared, 256, 304))
    assert (version, run, parts, check) == (2, 1, 1, _check(2, start, end, 1, 1))
    assert start % 8 == 0
    raw = _bytes(shared, start, end)
    check, version, size, values_at, directory_bytes = struct.unpack("<5Q", raw[:40])
    one_key = 1 << 63
    assert (version, size, directory_bytes) == (2, len(raw), values_at - 40 + one_key)
    assert check == crc32(raw[8:values_at])
    assert b"key" in raw[40:values_at]


def test_a_head_is_taken_only_if_it_lies_inside_one_area():
    first, second, beyond = 4096, 4096 + AREA, 4096 + 2 * AREA
    for start, end in [(first, second), (second, beyond), (first, first), (second - 64, second)]:
        raw = pack_slot(5, start, end, 3, 1)
        assert unpack_slot(raw, 5, AREA) == Slot(5, start, end, 3, 1)
        assert unpack_slot(raw, 7, AREA) is None
    for start, end in [
        (first - 64, second),
        (first, second + 1),
        (second - 64, second + 64),
        (second, beyond + 1),
        (beyond, beyond - 64),
        (first + 64, first),
    ]:
        assert unpack_slot(pack_slot(5, start, end, 3, 1), 5, AREA) is None, (start, end)
    assert unpack_slot(pack_slot(5, first, second, 3, 7 << 32), 5, AREA) is None
    assert (area_of(second - 1, AREA), area_of(second, AREA)) == (0, 1)


def test_no_changed_word_of_a_head_and_no_two_that_change_places_pass():
    words = list(struct.unpack("<6Q", pack_slot(5, 4096, 4196, 3, 1)))
    for at in range(6):
        for bit in range(64):
            words[at] ^= 1 << bit
            assert unpack_slot(struct.pack("<6Q", *words), words[0], 1 << 62) is None
            words[at] ^= 1 << bit
        for other in range(at):
            changed = list(words)
            changed[at], changed[other] = words[other], words[at]
            assert unpack_slot(struct.pack("<6Q", *changed), changed[0], 1 << 62) is None
    most = 2**64 - 1
    assert pack_slot(most, 0, 0, 0, 0)[40:] == struct.pack("<Q", 3 * most % 2**64)


def test_offsets_are_aligned_upwards_to_64():
    assert [align(n) for n in (0, 1, 63, 64, 65, 4096)] == [0, 64, 64, 64, 128, 4096]


def test_frames_that_do_not_fill_their_record_are_refused():
    table, parts = pack_table([100, 64, 7])
    assert (len(table), parts & 0xFFFFFFFF) == (64, 3)
    frames = [(4160, 4260), (4288, 4352), (4352, 4359)]
    assert frame_extents(Slot(1, 4096, 4359, 1, parts), table) == frames
    for end in (4358, 4360):
        with pytest.raises(CorruptRegionError, match="do not fill"):
            frame_extents(Slot(1, 4096, end, 1, parts), table)
    with pytest.raises(CorruptRegionError, match="fails its check"):
        frame_extents(Slot(1, 4096, 4359, 1, parts), table[:-1] + b"\1")
    assert frame_extents(Slot(1, 4096, 4359, 1, 1), b"") == [(4096, 4359)]


def test_a_tables_size_is_known_before_it_is_made():
    for count in range(2, 40):
        assert table_bytes(count) == len(pack_table([7] * count)[0]) == -(-8 * count // 64) * 64
    assert table_bytes(1) == 0
