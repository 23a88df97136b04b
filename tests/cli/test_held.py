"""What is held without a copy, as it is told from outside."""

import numpy
from support import Child
from support.command import as_json, id_of, printed, row_of

from mmapshare import Share

MIB = 1 << 20


def test_held_views_are_told_with_how_many_processes_hold_them():
    share = Share.open("jobs", numpy.zeros(MIB))  # Of 8 MiB.
    assert "held" not in printed("ls", "jobs").splitlines()[0]
    assert (row_of(share)["held_bytes"], row_of(share)["held_by"]) == (0, 0)

    def hold(child):
        held = share.get(copy=False)
        child.say(held.nbytes)
        child.hear()

    holders = [Child(hold) for _ in range(2)]
    for holder in holders:
        assert holder.hear() == 8 * MIB
    row = as_json("ls", "jobs")["shares"][0]
    assert 8 * MIB <= row["held_bytes"] < 9 * MIB
    assert row["held_by"] == 2
    assert "held without a copy  8.0 MiB by 2 processes" in printed("show", "jobs")
    holders[0].say()
    holders[0].result()
    assert "8.0 MiB by 1 process\n" in printed("show", "jobs")
    for args in (("ls", "jobs"), ("top", "jobs", "--times", "1")):
        header, line = printed(*args).splitlines()
        assert line[: header.index("held") + len("held")].endswith("  8.0 MiB")
    holders[1].say()
    holders[1].result()
    assert as_json("show", id_of(share))["held_bytes"] == 0
    share.unlink()
    share.close()


def test_top_follows_what_it_was_given_alone():
    share, other = Share.open("jobs", 1), Share.open("other", 1)
    assert "other" not in printed("top", "jobs", "--times", "1")
    for one in (share, other):
        one.unlink()
        one.close()
