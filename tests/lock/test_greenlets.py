"""Greenlets: owners of their own, which wait without stopping their thread."""

import importlib.util
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import TESTS
from support.inside import current_owner, here, shares_thread

from mmapshare import DeadlockError, Share

greenlets = pytest.importorskip("greenlet")
PLANTED = Path(TESTS) / "support" / "planted_greenlets.py"


@pytest.mark.parametrize("kind", ["gevent", "eventlet"])
@pytest.mark.parametrize("how", ["no", "before", "after"])
def test_greenlets_of_a_hub_exclude_each_other_and_wait_their_turn(how, kind):
    """Two greenlets counted as one owner: the second joined the first, and its change was lost."""
    if importlib.util.find_spec(kind) is None:
        pytest.skip(f"{kind} is not there")
    done = subprocess.run(
        [sys.executable, PLANTED, how, kind], capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "fine\n", done.stderr


def test_without_a_hub_the_second_greenlet_gets_a_clear_error():
    share = Share([])

    def holds():
        with share.locked() as view:
            view.append(1)
            main.switch()

    main = greenlets.getcurrent()
    first = greenlets.greenlet(holds)
    first.switch()
    for other in (share.lock, greenlets.greenlet(share.lock).switch):
        with pytest.raises(DeadlockError, match="another block, task or greenlet"):
            other()
    first.switch()
    assert share.get() == [1]


def test_a_greenlet_that_is_dropped_in_its_block_lets_go():
    share = Share([])

    def holds():
        with share.locked() as view:
            view.append(1)
            main.switch()

    main = greenlets.getcurrent()
    first = greenlets.greenlet(holds)
    first.switch()
    del first
    share.set([2])
    assert share.version == 2


def test_the_threads_own_greenlet_is_the_thread():
    """Whoever imports greenlet in the middle of a block goes on being its owner."""
    assert current_owner() is here.owner
    owners = []
    other = greenlets.greenlet(lambda: owners.append(current_owner()))
    other.switch()
    assert owners[0]() is other and owners != [here.owner]


def test_whose_thread_a_greenlet_runs_in_can_be_told():
    owners = []

    def keep():
        owners.append(current_owner())
        greenlets.getcurrent().parent.switch()

    ours = greenlets.greenlet(keep)
    ours.switch()
    assert shares_thread(owners[0]) and shares_thread(here.owner)
    found = []
    thread = threading.Thread(target=lambda: found.append(shares_thread(owners[0])))
    thread.start()
    thread.join()
    assert found == [False]
