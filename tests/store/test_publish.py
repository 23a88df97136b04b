"""What a commit stores where, what the writer keeps of it, and what memory that takes."""

from contextlib import nullcontext

import pytest
from support import Wanted, forget, inside, locked

from mmapshare import RegionFullError, Share

numpy = Wanted("numpy")


def test_a_record_that_fills_what_is_allocated_exactly_asks_for_no_more(make):
    """To be given no bytes at all is what the system refuses."""
    share = make(0)
    region = inside.region_of(share)
    with locked(share):
        commit = region.newest()
        start, end = (
            inside.align(commit[inside.VALUE_END]),
            inside.words_of(region)[inside.ALLOCATED[0]],
        )
        frames = (b"first", bytes([7]) * (end - start - 128))
        region.commit(frames)
    assert region.newest()[inside.VALUE_START : inside.VALUE_END + 1] == (start, end)
    assert tuple(map(bytes, region.read()[1])) == frames


@pytest.mark.parametrize("rest", [(), (bytes(300_000),), (b"1", bytes(70), b"3")])
def test_whether_frames_are_the_stored_ones_is_told_by_each_byte(make, rest):
    share, frames = make(0), (b"first", *rest)
    with locked(share) as store:
        assert store.commit(frames) == 2
        assert store.holds(frames)
        changed = bytearray(frames[-1])
        changed[-1] ^= 1
        for other in [(b"other", *rest), (*frames, b"m"), (*frames[:-1], changed), frames[:-1]]:
            assert not store.holds(other)
        assert store.commit(frames) == 3  # Who commits has looked.


def test_the_first_frames_are_like_none_before(make):
    share = make()
    with locked(share) as region:
        assert region.commit((b"a", b"b")) == 1


def test_a_value_may_be_as_large_as_its_ceiling(make):
    share = make(max_size=100_000)
    region = inside.region_of(share)
    for size in (100_000, 99_000, 100_001):
        refused = pytest.raises(RegionFullError) if size > 100_000 else nullcontext()
        with locked(share), refused:
            region.commit((b"a" * 1_000, bytes(size - 1_000)))
    assert region.version == 2


def test_what_a_writer_keeps_of_its_commit_is_what_others_find(make):
    share = make()
    region = inside.region_of(share)
    for size in (0, 10, 5_000, 70_000, 1_000_000, 10, 5_000_000, 300):
        with locked(share):
            region.commit((b"a", bytes(size)))
        kept = region.newest()
        forget(share)
        assert region.newest() == kept


def test_small_frames_are_kept_for_the_next_read_and_large_ones_are_not():
    share = Share(max_size="64M")
    region = inside.region_of(share)
    for size, kept in [
        (10, True),
        (12, True),
        (60_000, True),
        (10_000_000, False),
        (9_000_000, False),
    ]:
        share.set(bytes(size))
        assert (inside.commit_of(region)[0] == region.version) is kept
        forget(share)
        share.get()
        assert (inside.commit_of(region)[0] == region.version) is kept
    share.set([numpy.ones(2_000)])
    assert inside.commit_of(region)[0] != region.version


def test_memory_that_a_first_commit_took_and_did_not_use_is_given_back(make, monkeypatch):
    """Its writer was killed, or what it published together with this failed."""
    monkeypatch.setattr(*inside.at("VALUE_KEEP_BYTES"), 4096)
    share = make()
    with share.locked() as view:
        inside.store_of(share).reserve((b"first", bytes(1 << 20)))
        assert share.info().resident_bytes > 1 << 20
        view.value = 1
    assert share.info().resident_bytes < 1 << 16
    assert inside.header_of(share)[inside.ALLOCATED[0]] == 8192  # What comes next asks for more.
    assert share.get() == 1


def test_small_commits_go_the_short_way(make, monkeypatch):
    share = make(0)
    slow, real = [], inside.region_publish_with_care
    monkeypatch.setattr(
        *inside.at("region_publish_with_care"), lambda *args: slow.append(args) or real(*args)
    )
    for n in range(200):
        share.set(n)
    assert len(slow) < 20
    monkeypatch.setattr(*inside.at("region_publish_with_care"), None)
    with locked(share) as region:  # To the last byte that it can go.
        *_, end, _, easy = region.newest()
        region.commit((bytes(easy - inside.align(end)),))
        assert region.newest()[inside.VALUE_END] == easy


def test_a_glimpse_shows_the_first_frame_and_nothing_behind_the_record(make):
    share = make()
    region = inside.region_of(share)
    assert (region.glimpse(100), region.used_bytes()) == (b"", 0)
    share.set(b"a" * 1_000)
    share.set(b"b" * 100)
    (raw,) = region.read()[1]
    assert region.glimpse(20) == raw[:20]
    assert region.glimpse(1_000) == raw
    assert region.used_bytes() == len(raw)
    share.set([numpy.ones(10_000), numpy.zeros(10_000)])
    first, *rest = region.read()[1]
    assert region.glimpse(20) == bytes(first[:20])
    assert region.used_bytes() == 64 + inside.align(len(first)) + 2 * 80_000


@pytest.mark.parametrize("lengths", [(5,), (5, 100), (300, 64, 65, 7), (64, 0)])
def test_room_is_made_for_just_what_is_stored_then(make, monkeypatch, lengths):
    """Too little was hidden by what an area is given ahead of the need."""
    share = make(0)
    sizes, real = [], inside.region_place
    monkeypatch.setattr(
        *inside.at("region_place"), lambda *args: sizes.append(args[2]) or real(*args)
    )
    frames = tuple(map(bytes, lengths))
    with locked(share) as region:
        inside.commit_of.set(region, (*region.newest()[:-1], 0))  # Not the short way.
        region.reserve(frames)
        region.commit(frames)
        _, _, start, end, *_ = region.newest()
    assert sizes == [end - start] * 2


def test_room_that_was_made_needs_no_more_memory(make, monkeypatch):
    share = make(0)
    region = inside.region_of(share)
    frames = (b"first", bytes(100_000))
    with locked(share):
        region.reserve(frames)
        monkeypatch.setattr(*inside.at("segment_allocate"), None)
        region.commit(frames)
    monkeypatch.undo()
    assert region.newest()[inside.VALUE_END] <= inside.words_of(region)[inside.ALLOCATED[0]]


def test_no_record_is_stored_where_there_is_no_memory_yet(make):
    """A store there takes it unasked: where there is none, that is a SIGBUS instead of an error."""
    share = make()
    region = inside.region_of(share)
    for n in range(300):
        share.set(bytes(n * 97 % 5_000))
        inside.commit_of.set(
            inside.region_of(share), inside.UNREAD_COMMIT if n % 2 else inside.commit_of(region)
        )
        _, _, start, end, _, easy = region.current()
        area = inside.area_of(start, inside.area_bytes_of(region))
        allocated = inside.words_of(region)[inside.ALLOCATED[area]]
        assert end <= allocated and easy <= allocated
        assert inside.area_start(region, area) <= start


def test_where_stores_are_not_ordered_a_files_slot_and_version_wait_for_each_other(
    tmp_path, monkeypatch
):
    """The compiled core reads without the lock there too, and may look at any moment."""
    monkeypatch.setattr(*inside.at("ORDERED_STORES_in_file"), False)
    share = Share.open(str(tmp_path / "file"), 0)
    words, seen = inside.header_of(share), []
    monkeypatch.setattr(
        *inside.at("in_order_in_file"),
        lambda: seen.append((words[inside.SLOTS[0].start // 8], words[inside.VERSION])),
    )
    with locked(share) as store:
        assert store.commit((b"N.",)) == 2
    assert seen == [(0, 1), (2, 1)]
    assert share.get() is None


def test_where_stores_are_not_ordered_each_step_of_a_commit_is_seen_before_the_next(
    make, monkeypatch
):
    share = make(0)
    region = inside.region_of(share).region
    words, seen = inside.header_of(share), []
    monkeypatch.setattr(
        *inside.at("in_order_in_region"),
        lambda: seen.append((words[inside.SLOTS[0].start // 8], words[inside.VERSION])),
    )
    slot = region.load_slot()
    with locked(share):
        inside.publish_in_order(region, 2, slot.start, slot.end, slot.epoch)
    assert seen == [(0, 1), (2, 1)]
    assert share.version == 2
    assert share.get() == 0
