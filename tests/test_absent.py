"""Handles to what cannot be reached: loading them raises nothing, the first use says why."""

import asyncio
import concurrent.futures
import copy
import errno
import multiprocessing
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import threading
import zlib

import pytest
from support import (
    Child,
    as_somebody_else,
    in_child,
    inside,
    no_more_descriptors,
    open_fds,
    workers,
)

import mmapshare
from mmapshare import ClosedError, CorruptRegionError, HandleError, Share, SharedDict

NOT_HERE = "cannot be opened here"


def _of_the_dead(make, *args):
    """The pickle of what a process made that has ended."""
    return in_child(lambda: pickle.dumps(make(*args)))


def _dead_share():
    return Share(1)


def _dead_file():
    return Share(1, kind="file")


def _dead_dict():
    return SharedDict(a=1)


def test_a_result_whose_worker_has_ended_does_not_hang_its_pool():
    """A worker made a share and returned it, and had ended when the pool's own thread loaded it:
    that raised there, and the pool hung for ever."""
    raw = _of_the_dead(_dead_share)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        absent = pool.apply_async(workers.give_what_loads_as, (raw,)).get(timeout=10)
        with pytest.raises(HandleError, match=NOT_HERE):
            absent.get()
        assert pool.apply_async(os.getpid).get(timeout=10) != os.getpid()
        pool.close()
        pool.join()


def test_a_result_whose_worker_has_ended_does_not_break_its_executor():
    raw = _of_the_dead(_dead_dict)
    with concurrent.futures.ProcessPoolExecutor(1) as executor:
        absent = executor.submit(workers.give_what_loads_as, raw).result(timeout=10)
        assert repr(absent) == "<SharedDict, unreachable>"
        assert executor.submit(int, "3").result(timeout=10) == 3


USES = {
    Share: {
        "get": lambda share: share.get(),
        "set": lambda share: share.set(2),
        "set if": lambda share: share.set(2, if_version=1),
        "locked": lambda share: share.locked().__enter__(),
        "async locked": lambda share: asyncio.run(share.locked().__aenter__()),
        "locked together": lambda share: mmapshare.locked(share).__enter__(),
        "lock": lambda share: share.lock(),
        "unlock": lambda share: share.unlock(),
        "update": lambda share: share.update(int.__add__, 1),
        "update optimistic": lambda share: share.update(int.__add__, 1, optimistic=True),
        "wait": lambda share: share.wait(timeout=0),
        "wait for": lambda share: share.wait(bool, timeout=0),
        "wait_async": lambda share: asyncio.run(share.wait_async(timeout=0)),
        "changes": lambda share: list(share.changes(timeout=0)),
        "watch": lambda share: share.watch(timeout=0),
        "info": lambda share: share.info(),
        "version": lambda share: share.version,
        "snapshot": lambda share: share.snapshot(),
    },
    SharedDict: {
        "get": lambda shared: shared.get("a"),
        "item": lambda shared: shared["a"],
        "set item": lambda shared: shared.update(a=1),
        "in": lambda shared: "a" in shared,
        "len": lambda shared: len(shared),
        "bool": lambda shared: bool(shared),
        "iter": lambda shared: iter(shared),
        "reversed": lambda shared: reversed(shared),
        "keys": lambda shared: shared.keys(),
        "values": lambda shared: shared.values(),
        "items": lambda shared: shared.items(),
        "copy": lambda shared: shared.copy(),
        "==": lambda shared: shared == {},
        "|": lambda shared: shared | {},
        "pop": lambda shared: shared.pop("a"),
        "popitem": lambda shared: shared.popitem(),
        "setdefault": lambda shared: shared.setdefault("a"),
        "clear": lambda shared: shared.clear(),
        "transact": lambda shared: shared.transact(dict.get, "a"),
        "locked": lambda shared: shared.locked().__enter__(),
        "wait for": lambda shared: shared.wait(bool, timeout=0),
        "snapshot": lambda shared: shared.snapshot(),
        "info": lambda shared: shared.info(),
        "version": lambda shared: shared.version,
    },
}


@pytest.mark.parametrize("make", [_dead_share, _dead_file, _dead_dict])
def test_an_absent_share_says_at_each_use_that_it_cannot_be_reached(make):
    """It was the loading that raised, of everything in which the handle stood."""
    before = open_fds()
    absent, other = pickle.loads(_of_the_dead(lambda: (make(), 5)))
    assert other == 5
    for name, use in USES[type(absent)].items():
        with pytest.raises(HandleError, match=r"gone"):
            use(absent)
            raise AssertionError(name)
    assert not absent.closed
    assert repr(absent) == f"<{type(absent).__name__}, unreachable>"
    assert "gone" in absent._repr_mimebundle_()["text/plain"]
    assert absent not in inside.open_shares()
    absent.close()
    absent.close()
    assert absent.closed
    assert repr(absent) == f"<{type(absent).__name__}, closed>"
    with pytest.raises(ClosedError):
        len(absent) if isinstance(absent, SharedDict) else absent.get()
    assert open_fds() == before


def test_functions_and_instances_say_it_too():
    counter, add, count, share = pickle.loads(
        in_child(lambda: pickle.dumps([*_made_anew(), workers.count.share]))
    )
    for use in (
        counter.add,
        lambda: counter.n,
        lambda: len(counter),
        lambda: counter.share.get(),
        add,
        count,
        count.reset,
        share.get,
    ):
        with pytest.raises(HandleError, match="gone"):
            use()
    assert repr(counter) == "<Counter on <Share, unreachable>>"
    assert "unreachable" in repr(count)
    assert "unreachable" in count._repr_mimebundle_()["text/plain"]
    counter.share.close()
    assert repr(counter) == "<Counter on <Share, closed>>"
    assert repr(workers.Counter(3)) == "Counter(3)"


def _made_anew():
    """A shared class's instance, its method and a function whose regions this process made."""
    inside.share_of.set(workers.count, Share(0))
    return workers.Counter(3), workers.Counter(3).add, workers.count


def test_an_absent_share_is_one_object_and_is_pickled_as_what_it_came_from():
    raw = _of_the_dead(_dead_share)
    absent = pickle.loads(raw)
    assert pickle.loads(raw) is absent
    assert pickle.loads(pickle.dumps(absent)) is absent
    assert copy.copy(absent) is absent
    assert copy.deepcopy([absent])[0] is absent
    assert in_child(lambda: repr(pickle.loads(raw))) == "<Share, unreachable>"
    absent.close()
    again = pickle.loads(raw)
    assert again is not absent
    assert not again.closed
    again.close()


def test_what_could_not_be_reached_here_is_reached_where_its_handle_goes_next(kind):
    share = Share(1, kind=kind)
    raw = pickle.dumps(share)

    def pass_on():
        inside.open_here.clear()
        with no_more_descriptors():
            return pickle.dumps({"passed on": pickle.loads(raw)})

    again = in_child(pass_on)
    assert pickle.loads(again)["passed on"] is share

    def look():
        inside.open_here.clear()
        return pickle.loads(again)["passed on"].get()

    assert in_child(look) == 1
    share.close()


def test_a_share_that_came_without_descriptors_to_spare_is_opened_at_its_first_use():
    share, shared = Share(1), SharedDict(a=1)
    raw = pickle.dumps((share, shared))

    def load():
        inside.open_here.clear()
        with no_more_descriptors():
            absent, other = pickle.loads(raw)
            with pytest.raises(OSError) as caught:
                absent.set(5)
            assert caught.value.errno == errno.EMFILE
            assert repr(other) == "<SharedDict, unreachable>"
            caught = None
        assert repr(other) == "{'a': 1}"
        with other.locked() as view:
            view["a"] += 1
        absent.set(2)
        assert absent in inside.open_shares()
        assert pickle.loads(pickle.dumps(absent)) is absent
        return absent.get(), other["a"]

    assert in_child(load) == (2, 2)
    assert (share.get(), shared["a"]) == (2, 2)


def test_a_lack_of_descriptors_in_the_middle_of_the_search_is_told_as_that(monkeypatch):
    raw = _of_the_dead(_dead_share)

    def listdir(folder):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    absent = pickle.loads(raw)
    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(OSError, match="Too many open files"):
        absent.get()


def test_threads_that_reach_a_share_at_once_have_one_region_of_it(monkeypatch):
    shared = SharedDict(a=0)
    raw = pickle.dumps(shared)
    real, together = inside.open_handle, threading.Barrier(2)

    def slow_open(*args):
        region = real(*args)
        together.wait()
        return region

    def load():
        inside.open_here.clear()
        before = len(open_fds())
        with no_more_descriptors():
            absent = pickle.loads(raw)
        monkeypatch.setattr(*inside.at("open_handle"), slow_open)
        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            add = [threads.submit(workers.add_to_key, absent, "a") for _ in range(2)]
            assert [one.result() for one in add] == [None, None]
        return len(open_fds()) - before

    assert in_child(load) == _descriptors()
    assert shared["a"] == 2


def _descriptors():
    """How many a share takes."""
    before = len(open_fds())
    share = Share(1)
    taken = len(open_fds()) - before
    share.close()
    return taken


def test_a_share_that_another_thread_closes_while_it_is_reached_stays_closed(monkeypatch):
    share = Share(1)
    raw = pickle.dumps(share)
    real = inside.open_handle

    def load():
        inside.open_here.clear()
        before = len(open_fds())
        with no_more_descriptors():
            absent = pickle.loads(raw)

        def open_and_close(*args):
            region = real(*args)
            absent.close()
            return region

        monkeypatch.setattr(*inside.at("open_handle"), open_and_close)
        with pytest.raises(ClosedError):
            absent.get()
        assert absent.closed
        assert len(open_fds()) == before

    in_child(load)


def test_a_signal_handlers_error_while_a_handle_is_loaded_is_not_kept_quiet(monkeypatch):
    raw = _of_the_dead(_dead_share)

    def interrupted(*args):
        raise TimeoutError  # As an alarm's handler does: it has no errno.

    monkeypatch.setattr(*inside.at("open_handle"), interrupted)
    with pytest.raises(TimeoutError):
        pickle.loads(raw)


def _spoilt(spoil):
    """The pickle of a share of a living process whose region is spoilt."""

    def make_one(child):
        share = Share(1)
        spoil(inside.segment_of(share).map)
        child.say(pickle.dumps(share))
        child.hear()

    return Child(make_one)


def _overwrite(region):
    region[0:8] = b"elsewise"


def _other_format(region):
    body = bytearray(region[: inside.IDENTITY_BYTES - 8])
    body[8:16] = (99).to_bytes(8, "little")
    region[: inside.IDENTITY_BYTES] = body + zlib.crc32(body).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("spoil", "said"), [(_overwrite, "no mmapshare region"), (_other_format, "has format 99")]
)
def test_a_region_that_is_damaged_or_of_another_format_says_so_at_its_first_use(spoil, said):
    before = open_fds()
    maker = _spoilt(spoil)
    absent = pickle.loads(maker.hear())
    with pytest.raises(CorruptRegionError, match=said):
        absent.get()
    assert repr(absent) == "<Share, unreachable>"
    maker.say()
    maker.result()
    assert open_fds() == before


def test_a_folder_that_the_user_may_not_look_into_is_no_gone_one():
    share = Share(1, kind="file")
    raw = pickle.dumps(share)

    def stranger():
        inside.open_here.clear()
        with as_somebody_else():
            absent = pickle.loads(raw)
            with pytest.raises(HandleError, match="may not look into"):
                absent.get()

    if os.geteuid() != 0:  # Whoever is not root has nobody else to be.
        os.chmod(inside.segment_of(share).folder, 0)
    try:
        in_child(stranger)
    finally:
        os.chmod(inside.segment_of(share).folder, 0o700)
        share.close()


def test_a_folder_with_another_region_in_it_is_not_taken_for_the_shares():
    share, other = Share(1, kind="file"), Share(2, kind="file")
    raw = pickle.dumps(share)
    to, source = (os.path.join(inside.segment_of(one).folder, "region") for one in (share, other))

    def load():
        inside.open_here.clear()
        os.rename(source, to)
        with pytest.raises(HandleError, match="another region is in its place"):
            pickle.loads(raw).get()

    in_child(load)
    for one in (share, other):
        folder = inside.segment_of(one).folder
        one.close()
        shutil.rmtree(folder, ignore_errors=True)


# --- What a process does not see: no /proc, another pid namespace --------------------------------


def test_without_proc_it_is_proc_that_is_said_to_be_missing(monkeypatch, tmp_path):
    """A share whose process was alive was told to be gone, or it was a bare FileNotFoundError."""
    share = Share(1)
    raw = pickle.dumps(share)
    monkeypatch.setattr(*inside.at("PROC"), str(tmp_path))

    def load():
        inside.open_here.clear()
        absent = pickle.loads(raw)
        with pytest.raises(HandleError, match=f"sees no {tmp_path}"):
            absent.get()
        made = Share(1)
        with pytest.raises(HandleError, match="needs"):
            Share(1, kind="memfd")
        with pytest.raises(HandleError, match="needs"):
            SharedDict(kind="memfd")
        return made.info().kind, pickle.loads(pickle.dumps(made)) is made

    assert in_child(load) == ("file", True)


def test_another_pid_namespace_is_said_to_be_another(monkeypatch):
    absent = pickle.loads(_of_the_dead(_dead_share))
    monkeypatch.setattr(*inside.at("own_namespace"), lambda: 1)
    with pytest.raises(HandleError, match="another pid namespace"):
        absent.get()


def test_a_process_number_that_came_round_is_no_process_that_has_the_share():
    """Another user's process that has the number now was told to have the share."""
    own, refused = os.getpid(), PermissionError(errno.EACCES, "refused")
    namespace = inside.own_namespace()
    assert "may not look" in inside.why_not(own, inside.start_of(own), namespace, refused)
    assert "is gone" in inside.why_not(own, 0, namespace, refused)


def test_a_process_that_has_ended_and_is_not_waited_for_is_gone():
    """Who is not root may not look into one: that was told instead."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert inside.start_of(pid) is None
    os.waitpid(pid, 0)
    assert inside.start_of(pid) is None


def test_who_lost_sight_of_proc_before_it_forked_says_why_it_cannot_lock(monkeypatch):
    """It was a bare FileNotFoundError, of /proc/self/fd/3."""
    share = Share(1)

    def refuse(*args):
        raise FileNotFoundError(errno.ENOENT, "no such file")

    def forked():
        monkeypatch.setattr(os, "open", refuse)

        def lock():
            assert share.get() == 1
            with pytest.raises(HandleError, match="lost sight of /proc"):
                share.set(2)

        in_child(lock)

    in_child(forked)


_LOAD = (
    "import os, pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer)\n"
    "absent = pickle.load(sys.stdin.buffer)\n"
    "try: print(absent.get())\n"
    "except Exception as err: print(type(err).__name__, err)"
)


def _unshared(options, before, share):
    """What a new interpreter says of a share, in namespaces of its own."""
    python = f"{before} exec {shlex.quote(sys.executable)} -c '{_LOAD}'"
    command = ["unshare", *options, "sh", "-c", python]
    tried = subprocess.run([*command[:-1], f"{before} true"], capture_output=True)
    if tried.returncode:
        pytest.skip(f"unshare is not permitted here: {tried.stderr.decode().strip()}")
    given = pickle.dumps(sys.path) + pickle.dumps(share)
    done = subprocess.run(command, input=given, capture_output=True)
    assert not done.stderr, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare(1)")
@pytest.mark.parametrize(
    ("options", "before", "said"),
    [
        (["--pid", "--fork", "--mount-proc"], "", "another pid namespace"),
        (["--pid", "--fork"], "", "1\n"),  # Its /proc is still the outer one.
        (["--mount"], "mount -t tmpfs none /proc;", "sees no /proc"),
    ],
)
def test_namespaces_of_its_own_are_told_by_what_they_hide(options, before, said):
    share = Share(1)
    assert said in _unshared(options, before, share)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare(1)")
def test_what_an_inner_pid_namespace_made_is_found_from_the_outer_one():
    """Its number there is another one than its number here."""
    make = (
        "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); import mmapshare;"
        "share = mmapshare.Share(7); sys.stdout.buffer.write(pickle.dumps(share));"
        "sys.stdout.flush(); sys.stdin.read()"
    )
    options = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*options, "true"], capture_output=True).returncode:
        pytest.skip("unshare is not permitted here")
    maker = subprocess.Popen(
        [*options, sys.executable, "-c", make], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert maker.stdin is not None and maker.stdout is not None
    maker.stdin.write(pickle.dumps(sys.path))
    maker.stdin.flush()
    share = pickle.load(maker.stdout)
    assert share.get() == 7
    share.close()
    maker.communicate()


def test_zombies_of_another_user_are_gone_too():
    """Of a process that has ended /proc shows nothing to who is not root."""

    def maker(child):
        child.say(pickle.dumps(Share(1)))

    child = Child(maker)
    raw = child.hear()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    def stranger():
        with as_somebody_else():
            absent = pickle.loads(raw)
            with pytest.raises(HandleError, match="is gone"):
                absent.get()

    in_child(stranger)
    child.result()
