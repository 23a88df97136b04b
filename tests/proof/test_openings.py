"""SIGKILL in the middle of making, opening and unlinking a name: it stands whole, or not at all."""

import gc
import os
import random

import pytest
from support import Child, inside, kill_self, killed_at_every_step, trap
from support.media import unlink_all

from mmapshare import Share, SharedDict, list_shares


@pytest.fixture(params=["unnamed files", "first names"])
def stride(request, monkeypatch):
    """With files that have no name before they are whole, and where the system has none."""
    if request.param == "first names":
        monkeypatch.delattr(os, "O_TMPFILE")
    yield 5 if request.config.getoption("whole") else 149
    unlink_all()


@pytest.fixture
def rounds(request):
    """How often many do it at once."""
    whole, soak = map(request.config.getoption, ("whole", "soak"))
    return 1000 if soak else 40 if whole else 3


def _left():
    return set(os.listdir(os.environ["MMAPSHARE_DIR"])) - {".lock"}


def test_a_maker_that_is_killed_leaves_the_whole_share_or_none(events, stride):
    found = set()

    def check(step):
        found.update(listed.version for listed in list_shares())
        assert Share.open("jobs", "second").get() in {"first", "second"}
        Share.open("jobs", create=False).unlink()
        gc.collect()

    kills = killed_at_every_step(lambda: Share.open("jobs", "first"), check, stride)
    events.count += kills
    assert kills > 3
    assert found == {1}
    # Without unnamed files one that is not whole stays, and nobody takes it for a share.
    assert all(left.startswith(".mmapshare-new-") for left in _left())


def test_a_maker_of_a_dict_that_is_killed_leaves_all_items_or_none(events, stride):
    items = {"a": 1, "b": 2}

    def check(step):
        assert SharedDict.open("jobs", {"c": 3}) in (items, {"c": 3})
        SharedDict.open("jobs", create=False).unlink()
        gc.collect()

    kills = killed_at_every_step(lambda: SharedDict.open("jobs", items), check, stride)
    events.count += kills
    assert kills > 3


def test_who_is_killed_while_opening_a_name_harms_nobody(events, stride):
    share = Share.open("jobs", 1)

    def opens():
        inside.open_here.clear()
        Share.open("jobs").set(2)

    def check(step):
        assert share.get() in {1, 2}
        assert share.set(1)

    kills = killed_at_every_step(opens, check, stride)
    events.count += kills
    assert kills > 3


def test_who_is_killed_while_unlinking_leaves_the_name_or_takes_it_away(events, stride):
    found = set()

    def check(step):
        found.add(len(list_shares()))
        share = Share.open("jobs", "again")
        assert share.get() in {"first", "again"}
        share.unlink()
        share.close()
        Share.open("jobs", "first").close()

    Share.open("jobs", "first").close()
    kills = killed_at_every_step(lambda: Share.open("jobs").unlink(), check, stride)
    events.count += kills
    assert kills > 3
    assert found == {0, 1}


def test_of_many_who_make_a_name_at_once_one_counts_whoever_is_killed(events, stride, rounds):
    rng = random.Random(events.seed)
    killed = 0
    for _ in range(rounds):
        # Some are killed somewhere on their way, by themselves.
        steps = [rng.randrange(3000) if rng.random() < 0.4 else None for _ in range(16)]

        def makes(child, number, step):
            child.hear()
            if step is None:
                return number, _opened(number)
            with trap(step, kill_self):
                return number, _opened(number)

        children = [Child(makes, *one) for one in enumerate(steps)]
        for child in children:
            child.say()
        opened = []
        for child in children:
            try:
                opened.append(child.result())
            except EOFError:
                killed += 1
                child.wait()
        assert len({value for _, value in opened}) == 1
        assert Share.open("jobs", "mine").get() == opened[0][1]
        Share.open("jobs").unlink()
        gc.collect()
    assert killed > 0
    events.count += 16 * rounds


def _opened(number):
    share = Share.open("jobs", ("made by", number, "x" * 100))
    inside.looked_ns_of.set(inside.lock_of(share), 0)
    share.update(lambda value: value)
    return share.get()


def test_recovery_after_a_boot_that_is_killed_at_any_step_is_done_again(
    events, stride, tmp_path, monkeypatch
):
    monkeypatch.setattr(*inside.at("is_memory"), lambda fd: False)
    path = tmp_path / "one"
    share = Share.open(path, "a" * 300, max_size="1M", durable=True)
    share.set("b" * 300)
    share.close()
    gc.collect()
    before = bytearray(path.read_bytes())
    before[8 * inside.BOOT[0] : 8 * inside.BOOT[1] + 8] = bytes(range(16))
    path.write_bytes(before)

    def check(step):
        found = Share.open(path)
        assert found.get() == "b" * 300
        assert found.set("c") == 3
        found.close()
        path.write_bytes(before)

    def opens():
        inside.open_here.clear()
        Share.open(path)

    kills = killed_at_every_step(opens, check, stride)
    events.count += kills
    assert kills > 3
