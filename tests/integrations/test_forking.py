"""Children that a cell is run in: what is heard of them, and what is left when forking fails."""

import os
import sys

import pytest
from support import no_more_descriptors, open_fds

from mmapshare.integrations.forking import fork_all, listen


def _heard(work, count=1):
    children = fork_all(count, work)
    for _ in listen(children, None):
        pass
    return [(child.code, child.take()) for child in children]


def test_what_a_child_prints_is_heard_and_is_no_terminals():
    def work(rank, speaker):
        print(rank, sys.stdout.isatty(), flush=True)
        print("wrong", file=sys.stderr)

    for rank, (code, heard) in enumerate(_heard(work, 2)):
        assert code == 0
        for kind, said in ("stdout", f"{rank} False\n"), ("stderr", "wrong\n"):
            assert "".join(what for how, what in heard if how == kind) == said


def test_a_child_that_exits_has_ended_well_and_one_that_fails_says_why():
    def work(rank, speaker):
        if rank == 0:
            sys.exit("enough")
        raise KeyboardInterrupt("as any other")

    (exited, nothing), (failed, heard) = _heard(work, 2)
    assert (exited, nothing) == (0, [])
    assert failed == 1
    ((kind, said),) = heard
    assert kind == "traceback"
    assert said.endswith("KeyboardInterrupt: as any other\n")


@pytest.mark.parametrize("free", [3, 5, 7])
def test_where_there_are_not_enough_descriptors_none_is_left_and_no_child(free):
    """The pipes of those that had been forked stayed open, and half of the next one's."""
    before = open_fds()
    with pytest.raises(OSError, match="Too many open files"), no_more_descriptors(free):
        fork_all(5, lambda rank, speaker: os.read(ours, 1))
    assert open_fds() == before


@pytest.fixture(autouse=True)
def forever():
    """What a child may read from until it is killed."""
    global ours
    ours, theirs = os.pipe()
    yield
    os.close(ours)
    os.close(theirs)
