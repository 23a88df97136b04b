"""The compiled core and memory: what is refused leaves nothing behind, and nothing is leaked."""

import contextlib
import gc
import os
import subprocess
import sys
import threading

import pytest
from support import TESTS, Child, in_child, inside

import mmapshare
from mmapshare import Share, SharedDict

pytestmark = pytest.mark.core("c")


@pytest.mark.untraced  # The tracer itself finds none.
def test_an_operation_that_finds_no_memory_leaves_nothing_behind():
    """`set_nomemory` refuses the n-th allocation; here each n, of each kind of operation."""
    pytest.importorskip("_testcapi")
    in_child(_find_no_memory)  # What the interpreter itself loses then goes with it.


def _find_no_memory():
    import _testcapi as testing

    share, shared = Share({"n": 0}), SharedDict({"n": 0, "m": {}})
    share.get(), shared["n"]

    def block():
        with share.locked() as view:
            view["n"] += 1

    def keys():
        with shared.locked() as view:
            view["m"][1] = view["m"].get(1, 0) + 1

    operations = {
        "get": share.get, "set": lambda: share.set({"n": 0}), "block": block, "keys": keys,
        "dict get": lambda: shared["m"],
        "dict set": lambda: shared.__setitem__("n", shared.version),
    }  # fmt: skip
    for name, act in operations.items():
        act()
        for number in range(1, 400):
            before = share.version, shared.version
            try:
                testing.set_nomemory(number, number + 1)
                try:
                    act()
                finally:
                    testing.remove_mem_hooks()
            except MemoryError:
                moved = share.version - before[0], shared.version - before[1]
                assert moved in {(0, 0), (1, 0), (0, 1)}, (name, number)
                assert inside.token_of(share) is inside.token_of(shared) is None, (name, number)
                assert isinstance(share.get()["n"], int) and isinstance(shared["m"], dict)
            else:
                break
        else:
            raise AssertionError(f"{name} never came through")
        act()


def test_nothing_is_leaked():
    """Of each operation many times, blocks and references are as many as before."""
    share, shared = Share({"n": 0}), SharedDict({"n": 0, "m": {}})
    foreign = [share, shared]

    def block():
        with share.locked() as view:
            view["n"] += 1

    def failing():
        with pytest.raises(KeyError), share.locked():
            raise KeyError

    def keys():
        with shared.locked() as view:
            view["m"][1] = view["m"].get(1, 0) + 1

    def behind():
        child = Child(lambda child: (foreign[0].set({"n": 5}), foreign[1].__setitem__("n", -1)))
        child.result()
        assert (share.get(), shared["n"]) == ({"n": 5}, -1)

    def refused():
        with pytest.raises(mmapshare.UnpicklableError):
            share.set({"n": sys._getframe()})

    often = {
        share.get: 20_000, lambda: share.set({"n": 0}): 20_000, block: 20_000, keys: 20_000,
        lambda: shared["m"]: 20_000, lambda: shared.__setitem__("n", shared.version): 20_000,
        failing: 200, refused: 200, behind: 10,
    }  # fmt: skip
    for act, times in often.items():
        for _ in range(times // 10):
            act()
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(times):
            act()
        gc.collect()
        assert sys.getallocatedblocks() - before < max(60, times // 100), act


def test_views_that_hold_one_another_are_freed_without_end():
    def chain():
        view = [1]
        for _ in range(300_000):
            before = view
            with contextlib.suppress(KeyError), share.locked() as view:
                view.value = before
                raise KeyError
        del view, before
        done.append(True)

    share, done = Share([1]), []
    size = threading.stack_size(4 << 20)  # 3.13 goes 10 000 calls deep, whatever the stack.
    try:
        thread = threading.Thread(target=chain)
        thread.start()
    finally:
        threading.stack_size(size)
    thread.join()
    assert done == [True]


_CLOSED_MEANWHILE = """
import gc
from mmapshare import ClosedError, Share, SharedDict

class Closes:
    def __init__(self, share):
        self.own, self.share = self, share
    def __del__(self):
        self.share.close()

for share in [*(Share([0]) for _ in range(100)), *(SharedDict(a=0) for _ in range(100))]:
    enter = share.locked().__enter__
    gc.disable()
    Closes(share)
    filled = [[] for _ in range(1000)]
    gc.enable()
    try:
        enter()
    except ClosedError:
        pass
print("done")
"""


def test_a_share_that_a_finalizer_closes_while_a_block_begins_is_closed_or_waited_for():
    done = subprocess.run(
        [sys.executable, "-c", _CLOSED_MEANWHILE],
        env={**os.environ, "PYTHONPATH": TESTS, "PYTHONMALLOC": "debug"},
        cwd=TESTS,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "done\n", done.stderr
