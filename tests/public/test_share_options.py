"""`Share`: sizes, ceilings, timeouts, closing, and what it refuses."""

import inspect
import math
from functools import partial

import pytest
from support import in_child, inside

import mmapshare
from mmapshare import (
    ClosedError,
    RegionFullError,
    Share,
    TransactionError,
)


@pytest.mark.needs("is_memory")
def test_info_tells_sizes_and_counts(medium):
    share = medium.share(b"x" * 10_000, max_size="2M")
    share.set(b"y" * 20_000)
    info = share.info()
    assert (info.version, info.commits, info.kind) == (2, 2, medium.kind)
    assert info.max_size == 2 << 20
    assert 20_000 <= info.used_bytes < 21_000
    assert 30_000 <= info.resident_bytes < 1 << 20
    assert (info.holder_pid, info.held_s) == (None, None)
    assert (info.contended_waits, info.holders_found_dead) == (0, 0)
    share.lock()
    assert share.info().holder_pid is not None
    assert share.info().held_s >= 0
    share.unlock()
    with pytest.raises(AttributeError):
        info.version = 3


def test_a_value_over_the_ceiling_is_refused_and_the_old_one_stands(medium):
    share = medium.share(b"old", max_size=1000)
    for store in (
        lambda: share.set(bytes(2000)),
        lambda: share.update(lambda _: bytes(2000)),
    ):
        with pytest.raises(RegionFullError, match=r"2,0\d\d bytes.*1,000 bytes") as caught:
            store()
        assert caught.value.max_size_bytes == 1000
        assert caught.value.needed_bytes > 2000
    assert (share.get(), share.version) == (b"old", 1)
    share.set(bytes(900))
    assert share.get() == bytes(900)


def test_a_value_as_large_as_the_ceiling_can_be_replaced_by_another(medium):
    share = medium.share(max_size="1M")
    for byte in b"abcdef":
        share.set(bytes([byte]) * ((1 << 20) - 100))
        assert share.get() == bytes([byte]) * ((1 << 20) - 100)


@pytest.mark.parametrize("size", ["", "G", "-1", "1.5M", "1X", "ten"])
def test_a_string_that_is_no_size_is_refused(medium, size):
    with pytest.raises(ValueError, match="size"):
        medium.share(max_size=size)


def test_a_size_is_a_positive_int_or_a_string_in_binary_units(medium):
    for size in (0, -5):
        with pytest.raises(ValueError, match="at least 1"):
            medium.share(max_size=size)
    for size in (1.5, True, b"1G"):
        with pytest.raises(TypeError, match="size"):
            medium.share(max_size=size)
    with pytest.raises(TypeError, match="size"):
        Share(max_size=None)
    for size, count in {
        "3": 3,
        "64K": 65536,
        "1m": 1 << 20,
        "2 GiB": 2 << 30,
        " 1T ": 1 << 40,
    }.items():
        share = medium.share(max_size=size)
        assert share.info().max_size == count


def test_a_timeout_is_a_number_of_seconds_or_none(medium):
    for timeout in ("1", True, [1]):
        with pytest.raises(TypeError, match="timeout"):
            medium.share(timeout=timeout)
    for timeout in (-1, math.nan):
        with pytest.raises(ValueError, match="timeout"):
            medium.share(timeout=timeout)
    share = medium.share(1)
    with pytest.raises(ValueError, match="timeout"):
        share.locked(timeout=-0.5)
    with pytest.raises(TypeError, match="timeout"):
        share.lock(timeout="soon")


@pytest.mark.needs("is_memory")  # Nothing is mapped elsewhere.
def test_a_ceiling_that_cannot_be_mapped_is_refused_clearly(medium):
    with pytest.raises(RegionFullError, match="max_size"):
        medium.share(max_size=1 << 62)
    with pytest.raises(ValueError, match="kind"):
        Share(kind="paper")


def test_what_looks_like_an_operation_on_a_share_says_what_to_write_instead(medium):
    share = medium.share({"a": 1})
    with pytest.raises(TypeError, match=r"share\.locked\(\) as view"):
        share["a"] = 2
    with pytest.raises(TypeError, match=r"share\.get\(\)\['a'\]"):
        share["a"]
    with pytest.raises(TypeError, match=r"share\.locked\(\) as view"):
        del share["a"]
    with pytest.raises(TypeError, match=r"view\.value \+="):
        share += 1
    with pytest.raises(TypeError, match=r"share\.locked\(\) as view"), share:
        pass
    with pytest.raises(TypeError, match=r"share\.get\(\)"):
        list(share)
    with pytest.raises(TypeError, match=r"share\.get\(\)"):
        "a" in share
    with pytest.raises(TypeError, match=r"len\(share\.get\(\)\)"):
        len(share)
    with pytest.raises(AttributeError, match=r"share\.get\(\)"):
        share.value
    with pytest.raises(AttributeError, match=r"share\.set\(\.\.\.\)"):
        share.value = 3
    for use in (lambda block: block["a"], lambda block: block.__setitem__("a", 2), list, len):
        with pytest.raises(TypeError, match=r"with share\.locked\(\) as view"):
            use(share.locked())
    assert share.locked()
    with pytest.raises(TypeError, match="calls a function"):
        share.update({"b": 2})
    for version in ("1", True, 1.0):
        with pytest.raises(TypeError, match="if_version"):
            share.set({}, if_version=version)
    assert share and share.get() == {"a": 1}


def test_a_closed_share_refuses_everything(medium):
    share = medium.share(1)
    share.close()
    share.close()
    assert share.closed
    assert repr(share) == "<Share, closed>"
    for use in (
        share.get,
        share.snapshot,
        share.info,
        share.lock,
        share.unlock,
        partial(share.set, 2),
        partial(share.update, abs),
        lambda: share.version,
        lambda: share.locked().__enter__(),
        lambda: mmapshare.Share(share),
    ):
        with pytest.raises(ClosedError):
            use()


def test_closing_inside_a_block_is_refused_and_the_block_goes_on(medium):
    share = medium.share(1)
    with share.locked() as view:
        with pytest.raises(TransactionError, match="close"):
            share.close()
        view.value = 2
    assert share.get() == 2


@pytest.mark.needs("crosses_fork")
def test_closing_in_a_child_leaves_the_parents_share_open(medium):
    share = medium.share(1)
    in_child(share.close)
    share.set(2)
    assert share.get() == 2


def test_defaults_that_are_no_values_read_as_what_they_stand_for():
    assert "initial: 'T' = <empty>" in str(inspect.signature(Share))
    for method in (inside.of_python(inside.Shared, "locked"), Share.lock):
        assert "= <the share's own>" in str(inspect.signature(method))
