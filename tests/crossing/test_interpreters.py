"""Interpreters of one process: each is an owner of its own, as a process would be."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.hosts import ROOT, run

pytest.importorskip("concurrent.interpreters", reason="interpreters are new in Python 3.14")

COMMON = """
import threading
from concurrent.futures import InterpreterPoolExecutor
from concurrent import interpreters

from support import workers
from mmapshare import Share, SharedDict, locked

def call(func, *args):
    result = []
    def inside():
        interpreter = interpreters.create()
        try:
            result.append(interpreter.call(func, *args))
        finally:
            interpreter.close()
    thread = threading.Thread(target=inside)
    thread.start()
    return thread, result
"""


def outcome(code: str, home: Path) -> str:
    """What a program prints whose interpreters run functions of `workers`."""
    path = f"{ROOT}:{ROOT / 'tests'}"
    status, out, err = run("-c", COMMON + code, home=home, PYTHONPATH=path)
    assert status == 0, err
    assert not err
    return out.strip()


@pytest.mark.parametrize("kind", ["memfd", "file"])
def test_interpreters_of_one_process_add_up_exactly(kind: str, tmp_path: Path) -> None:
    code = f"""
share, d = Share(0, kind={kind!r}), SharedDict(kind={kind!r})
with InterpreterPoolExecutor(3) as pool:
    done = [pool.submit(workers.add_many, share, d, 200) for _ in range(3)]
    workers.add_many(share, d, 200)
    [one.result() for one in done]
print(share.get(), d["n"], share.version, share.info().holders_found_dead)
"""
    assert outcome(code, tmp_path) == "800 800 801 0"


def test_an_interpreter_waits_for_the_lock_of_another(tmp_path: Path) -> None:
    code = """
share = Share(0)
with share.locked():
    with InterpreterPoolExecutor(1) as pool:
        print(pool.submit(workers.timed_out, share).result())
    share.version
with InterpreterPoolExecutor(1) as pool:
    print(pool.submit(workers.timed_out, share).result())
"""
    assert outcome(code, tmp_path).split() == ["True", "False"]


def test_a_commit_of_one_interpreter_wakes_another(tmp_path: Path) -> None:
    code = """
share = Share(0)
thread, woken = call(workers.wait_for, share, 1)
share.wait(lambda n: n == 1, timeout=60)  # It is there.
share.set(2)
thread.join()
print(woken[0], share.get())
"""
    assert outcome(code, tmp_path) == "True 3"


def test_a_circle_of_interpreters_is_found(tmp_path: Path) -> None:
    code = """
a, b, met = Share(0), Share(0), Share(0)
thread, other = call(workers.take_both, b, a, met)
own = workers.take_both(a, b, met)
thread.join()
print("DeadlockError" in (own, other[0]))
with locked(a, b):
    print("free")
"""
    assert outcome(code, tmp_path).split() == ["True", "free"]


def test_a_share_that_an_interpreter_made_reaches_the_others(tmp_path: Path) -> None:
    code = """
shelf = Share(None)
interpreter = interpreters.create()
interpreter.call(workers.keep_a_share, shelf)
print(shelf.get().get())
interpreter.close()
"""
    assert outcome(code, tmp_path) == "kept"
