"""The compiled core and Python's: who works by which, and that the two meet in one region."""

import gc
import inspect
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support import TESTS, Child, cores, inside
from support.inside import CORE_FILE, CORE_MODULE, IN_CORE, of_python

import mmapshare
from mmapshare import Share, SharedDict, View

HOT = [
    (Share, "get"), (Share, "set"), (Share, "locked"), (SharedDict, "__getitem__"),
    (SharedDict, "__setitem__"), (View, "__getitem__"), (View, "__setitem__"),
]  # fmt: skip


def _says(program, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": TESTS, **environment},
        cwd=TESTS,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_share_tells_by_what_it_works(core):
    share = Share(1)
    assert share.info().core == core
    assert f"core {core}" in share._repr_mimebundle_()["text/plain"]


def test_a_program_chooses_pure_python_before_it_starts():
    program = f"import mmapshare, sys; print(mmapshare.core, {CORE_MODULE!r} in sys.modules)"
    assert _says(program, MMAPSHARE_CORE="python") == "python False"
    assert _says(program, MMAPSHARE_CORE="c") in {"c True", "python False"}


def test_a_python_without_the_gil_does_not_load_it():
    """A module that does not say it can do without would turn the GIL on, for all."""
    program = "import sys; sys.abiflags = 't'; import mmapshare; print(mmapshare.core)"
    assert _says(program, MMAPSHARE_CORE="c") == "python"


def test_where_it_cannot_be_loaded_python_works():
    program = f"import sys; sys.modules[{CORE_MODULE!r}] = None\nimport mmapshare as m\n"
    program += "print(m.core, m.Share([1]).get())"
    assert _says(program, MMAPSHARE_CORE="c") == "python [1]"


@pytest.mark.core("c")
def test_one_that_is_older_than_its_source_is_left_alone(tmp_path):
    package = Path(mmapshare.__file__).parent
    shutil.copytree(package, tmp_path / "mmapshare")
    shutil.copy(sys.modules[CORE_MODULE].__file__, tmp_path / "mmapshare")
    (tmp_path / CORE_FILE).write_text("")
    os.utime(tmp_path / CORE_FILE, (0, 0))
    program = "import mmapshare; print(mmapshare.core)"
    there = {"PYTHONPATH": str(tmp_path), cores.BUILT: "", "MMAPSHARE_CORE": "c"}
    assert _says(program, **there) == "c"
    os.utime(tmp_path / CORE_FILE, (2**31, 2**31))
    assert _says(program, **there) == "python"
    with pytest.raises(ImportError, match="not handed in"):  # What it asks for is no more.
        sys.modules[CORE_MODULE].bind({})
    os.unlink(tmp_path / CORE_FILE)  # As where it was installed.
    assert _says(program, **there) == "c"


@pytest.mark.core("c")
def test_it_is_older_only_than_a_source_beside_it(tmp_path, monkeypatch):
    built, source = tmp_path / "_core.so", tmp_path / "_core.c"
    built.touch()
    assert not inside.is_of_before(str(built))
    source.touch()
    os.utime(source, (2**31, 2**31))
    assert inside.is_of_before(str(built))
    monkeypatch.setattr(*inside.at("is_of_before"), lambda built: True)
    assert inside.bound_core() is None


@pytest.mark.core("c")
def test_while_something_is_recorded_python_works():
    share, shared = Share({"n": 0}), SharedDict(n=0)
    with mmapshare.trace() as trace:
        assert share.info().core == "python"
        with share.locked() as view:
            view["n"] += 1
        share.set({"n": 2})
        with shared.locked() as view:
            view["n"] += 1
        shared["n"] = 5
    assert len(trace.recording.events) == 4
    assert share.info().core == "c"


def _hold(child, share):
    with share.locked():
        child.say()
        child.hear()


@pytest.mark.core("c")
def test_a_block_that_waits_as_a_recording_begins_goes_through():
    share = Share(0)

    def add():
        with share.locked() as view:
            view.value += 1

    child, thread = Child(_hold, share), threading.Thread(target=add)
    child.hear()
    thread.start()
    while inside.token_of(share) is None:  # From then on it waits for the child.
        time.sleep(0.001)
    with mmapshare.trace() as trace:
        child.say()
        child.result()
        thread.join()
    assert (share.get(), inside.token_of(share)) == (1, None)
    assert not trace.recording.events


@pytest.mark.core("c")
@pytest.mark.parametrize(("cls", "name"), HOT, ids=lambda one: getattr(one, "__name__", one))
def test_a_compiled_method_is_called_and_documented_as_pythons(cls, name):
    owner = next(base for base in cls.__mro__ if name in vars(base))
    compiled, pure = vars(owner)[name], of_python(owner, name)
    assert inspect.ismethoddescriptor(compiled) and inspect.isfunction(pure)
    assert compiled.__doc__ == pure.__doc__
    taken = [inspect.signature(of).parameters for of in (compiled, pure)]
    assert [*taken[0]] == [*taken[1]]
    keywords = [[one.kind is one.KEYWORD_ONLY for one in of.values()] for of in taken]
    assert keywords[0] == keywords[1]
    for call in (lambda: compiled(), lambda: compiled(1), lambda: compiled(object(), 1, 2, 3, 4)):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize("call", [
    lambda share: share.set(), lambda share: share.set(1, 2), lambda share: share.set(1, 2, 3, 4),
    lambda share: share.set(1, version=1), lambda share: share.get(1),
    lambda share: share.locked(1), lambda share: share.locked(1, 2, 3),
    lambda share: share.locked(time=1), lambda share: share.locked(timeout=1, more=2),
    lambda share: share.set(value=1, if_version=1, more=2, still=3),
])  # fmt: skip
def test_wrong_arguments_are_refused_alike(call):
    with pytest.raises(TypeError):
        call(Share(1))


def test_the_arguments_that_are_seldom_given_are_taken():
    share = Share(1)
    assert share.set(value=2, if_version=1) == 2
    assert share.set(3, if_version=2) == 3
    with pytest.raises(mmapshare.VersionConflict):
        share.set(4, if_version=2)
    with share.locked(timeout=1) as view:
        view.value += 1
    assert share.get() == 4


# --- One region, both cores ---------------------------------------------------------------------


def _add(child, core, shares, times):
    inside.use(core)
    share, shared, box = shares
    for _ in range(times):
        with share.locked() as view:
            view["n"] += 1
        with shared.locked() as view:
            view["n"] += 1
            view["last"] = child.pid
        with box.locked() as view:
            view.value += 1
        shared[core] = share.get()["n"]
        assert shared[core] >= 1


@pytest.mark.core("c")
def test_processes_with_it_and_without_lose_nothing_to_each_other(kind):
    shares = Share({"n": 0}, kind=kind), SharedDict(n=0, kind=kind), Share(0, kind=kind)
    children = [Child(_add, core, shares, 400) for core in ("c", "python", "c", "python")]
    for child in children:
        child.result()
    share, shared, box = shares
    assert (share.get()["n"], shared["n"], box.get()) == (1600, 1600, 1600)
    for core in ("c", "python"):
        inside.use(core)
        assert shared.copy() == {key: shared[key] for key in shared}


@pytest.mark.core("c")
def test_killed_ones_lose_no_acknowledged_commit_of_either(kind):
    share, shared = Share(0, kind=kind), SharedDict(n=0, kind=kind)

    def work(child, core):
        inside.use(core)
        while True:
            with share.locked() as view:
                view.value += 1
            with shared.locked() as view:
                view["n"] += 1
            os.write(child.writes, b".")

    chance, said = random.Random(1), 0
    for _ in range(6):
        children = [Child(work, core) for core in ("c", "python", "c", "python")]
        for child in children:
            child.read(1)
            said += 1
        time.sleep(chance.random() / 50)
        for child in children:
            os.kill(child.pid, signal.SIGSTOP)
        for child in children:
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            while os.read(child.reads, 1):
                said += 1
            child.reaped = 0
            os.close(child.reads)
            os.close(child.writes)
    # Each may have committed once more, and not have said so.
    for found in (share.get(), shared["n"]):
        assert said <= found <= said + 24
    for core in ("c", "python"):
        inside.use(core)
        before = share.get(), shared["n"]
        with share.locked() as view:
            view.value += 1
        shared["n"] += 1
        assert (share.get(), shared["n"]) == (before[0] + 1, before[1] + 1)


@pytest.mark.core("c")
def test_the_bytes_are_the_same_by_either():
    stored = []
    for core in ("c", "python"):
        inside.use(core)
        share, shared = Share({"n": 0}), SharedDict(n=0)
        for n in range(40):
            share.set({"n": n})
            with share.locked() as view:
                view["n"] += 1
            for key in ("n", 7, -1, 2**70, b"raw", "", "ä" * 130, "\ud800", "x" * 300, (1, "a")):
                shared[key] = n
            with shared.locked() as view:
                view["n"] += 1
        stored.append(
            [bytes(inside.map_of(inside.store_of(one))[area : area + 40_000])
             for one in (share, shared)
             for area in (256, inside.area_start(inside.store_of(one), 0),
                          inside.area_start(inside.store_of(one), 1))]
        )  # fmt: skip
    assert stored[0] == stored[1]


# --- What interrupts it -------------------------------------------------------------------------


class Nosy:
    """Uses a share while it is pickled."""

    def __init__(self, act):
        self.act = act

    def __reduce__(self):
        self.act()
        return int, ()


@pytest.mark.core("c")
def test_shares_that_are_stored_are_kept_alive():
    share, shared = Share(None), SharedDict()
    share.set([Share("set")])
    shared["set"] = Share("d[k]")
    with shared.locked() as view:
        view["block"] = Share("block of a dict")
    gc.collect()
    assert [share.get()[0].get(), *(one.get() for one in shared.values())] == [
        "set", "d[k]", "block of a dict",
    ]  # fmt: skip
    with share.locked() as view:
        view[0] = Share("block")
    gc.collect()
    assert share.get()[0].get() == "block"


@pytest.mark.parametrize(
    "use", ["set", "get", "locked", pytest.param("set", marks=pytest.mark.core("c"))]
)
def test_who_uses_the_share_in_the_middle_of_a_commit_is_told(use):
    share = Share([1])

    def act():
        if use == "get":
            assert share.get() == [1]
        elif use == "set":
            share.set(2)
        else:
            with share.locked():
                pass

    if use == "get":
        with share.locked() as view:
            view.append(Nosy(act))
        assert share.get() == [1, 0]
        return
    with pytest.raises(mmapshare.MmapShareError), share.locked() as view:
        view.append(Nosy(act))
    assert share.get() == [1]
    share.set(Nosy(lambda: None))
    assert (share.get(), inside.token_of(share)) == (0, None)


@pytest.mark.core("c")
def test_a_token_is_busy_in_the_core_only_while_that_works():
    share, seen = Share([1]), []
    with share.locked() as view:
        assert inside.busy_of(view) is False
        view.append(Nosy(lambda: seen.append(inside.busy_of(view))))
    assert seen == [IN_CORE] and inside.busy_of(view) is False
    with pytest.raises(mmapshare.UnpicklableError), share.locked() as view:
        view.append(Nosy(lambda: 1 / 0))
    assert inside.busy_of(view) is False and inside.owner_of(view) is None
