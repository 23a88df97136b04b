"""Forks at awkward moments: inside a block, beside threads, and again in the child."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import Child, as_somebody_else, in_child, inside, open_fds

from mmapshare import ClosedError, HandleError, LockTimeout, Share, ViewClosedError


def test_leaving_the_parents_block_in_a_child_neither_commits_nor_unlocks(make):
    share = make([1])
    with share.locked() as view:
        view.append(2)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                # Leaves the with-block below as the child.
                pass
            finally:
                code = 0
        else:
            os.waitpid(pid, 0)
            with pytest.raises(LockTimeout):
                in_child(lambda: share.lock(timeout=0))
            assert share.get() == [1]
            view.append(3)
    if pid == 0:
        os._exit(code)
    assert share.get() == [1, 2, 3]


class Covered:
    def __init__(self):
        self._inner = self
        self._owner = "somebody"


def test_a_fork_in_a_block_leaves_the_attributes_of_the_value_alone(make):
    """What the view covered was looked for among its value's attributes, and ended there."""
    share = make(Covered())
    with share.locked() as view:
        value = view.value
        assert in_child(lambda: inside.owner_of(value)) == "somebody"


def test_the_view_of_an_empty_share_is_dead_in_a_forked_child(make):
    """There that search raised in the hook, and the view lived on."""
    share = make()
    with share.locked() as view, pytest.raises(ViewClosedError):
        in_child(view.rollback)


def test_a_child_of_a_holder_can_work_once_the_holder_lets_go(make):
    share = make([])

    def work(child):
        with share.locked() as view:
            view.append("child")

    with share.locked() as view:
        child = Child(work)
        view.append("parent")
    child.result()
    assert share.get() == ["parent", "child"]


def test_a_killed_holders_lock_is_free_though_its_child_lives(make):
    """mmap keeps a duplicate of its descriptor: a lock on that would outlive the holder."""
    share = make(0)

    def hold_and_fork(child):
        with share.locked():
            grandchild = os.fork()
            if grandchild == 0:
                signal.pause()
                os._exit(0)
            child.say(grandchild)
            signal.pause()

    holder = Child(hold_and_fork)
    grandchild = holder.hear()
    try:
        holder.kill()
        with share.locked(timeout=5) as view:
            view.value += 1
    finally:
        grandchilds_end = os.pidfd_open(grandchild)
        os.kill(grandchild, signal.SIGKILL)
        select.select([grandchilds_end], [], [])
        os.close(grandchilds_end)
    assert share.get() == 1


def test_grandchildren_work_too(make):
    share = make(0)

    def generations(left):
        share.update(int.__add__, 1)
        if left:
            in_child(generations, left - 1)

    in_child(generations, 3)
    assert share.get() == 4


@pytest.mark.forks_beside_threads
def test_a_fork_beside_busy_threads_leaves_the_child_a_free_lock(make):
    share = make(0)
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            share.update(int.__add__, 1)

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            in_child(lambda: share.update(int.__add__, 1000000))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert share.get() // 1000000 == 15


def test_a_child_takes_no_more_descriptors_than_its_parent(make):
    share = make(0)
    before = sorted(open_fds().values())
    after = in_child(lambda: sorted(v for v in open_fds().values()))
    ours = [v for v in after if "mmapshare" in v]
    assert ours == [v for v in before if "mmapshare" in v]
    assert share.get() == 0


def test_a_child_without_descriptors_to_spare_gets_its_lock_later():
    """The hook that opens a forked child's own description can meet a full table."""
    share = Share(0)

    def work():
        spare = os.open("/dev/null", os.O_RDONLY)
        os.close(spare)
        share.update(int.__add__, 1)

    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(open_fds()) + 20

    def run(child):
        child.hear()
        work()

    to_close = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    try:
        pipes = [os.pipe()]
        while True:
            try:
                to_close.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        # The child's hook finds the table full; later there is room.
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for fd in to_close:
                    os.close(fd)
                work()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in [*to_close, *pipes[0]]:
            os.close(fd)
    assert share.get() == 1


def test_a_lock_whose_reopening_failed_is_reopened_when_it_is_wanted(monkeypatch):
    share = Share(0)
    lock = inside.lock_of(share)
    real = type(inside.process_lock_of(lock)).reopen
    failures = iter([OSError(24, "no descriptors")])

    def reopen(process_lock):
        for err in failures:
            raise err
        return real(process_lock)

    monkeypatch.setattr(type(inside.process_lock_of(lock)), "reopen", reopen)

    def work():
        for _ in range(3):
            share.update(int.__add__, 1)

    in_child(work)
    share.update(int.__add__, 1)
    assert share.get() == 4


def test_a_program_started_from_a_block_does_not_keep_the_lock(make):
    share = make(0)
    with share.locked():
        program = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        in_child(lambda: share.set(1))
    finally:
        program.communicate(b"\n")
    assert share.get() == 1


def _add(share):
    share.update(int.__add__, 1)


def test_a_share_of_a_process_pool_by_fork(make):
    share = make(0)
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        pool.map(_add, [share] * 10)
        pool.close()
        pool.join()
    assert share.get() == 10


def test_a_child_of_who_gave_up_privileges_is_told_why_it_cannot_lock():
    """gunicorn's workers, with --user, lock what root made; what they fork got a PermissionError.

    Its text, "Permission denied: '/proc/self/fd/6'", named neither the share nor a way out.
    """
    share = Share(1)
    before = os.getresuid()

    def forked():
        try:
            with pytest.raises(HandleError, match="can be read, but not locked here: .* user"):
                share.set(3)
            return share.get()
        finally:
            os.setresuid(*before)  # See `as_somebody_else`.

    def worker():
        os.fchmod(
            inside.segment_of(share).fd, 0
        )  # Not even for who made it, should that not be root.
        with as_somebody_else():
            share.set(2)
            return in_child(forked)

    assert in_child(worker) == 2
    assert share.get() == 2


def test_a_child_that_cannot_reopen_its_lock_lets_go_of_nothing(make, monkeypatch):
    """It has nothing but the inherited description, whose lock is the parent's."""
    share = make(0)
    kind = type(inside.process_lock_of(inside.lock_of(share)))
    real, failures = kind.reopen, iter([OSError(24, "no descriptors")] * 3)
    path = inside.path_of(inside.process_lock_of(inside.lock_of(share)))

    def reopen(process_lock):
        for err in (
            failures if inside.path_of(process_lock) == path else ()
        ):  # Other shares may be open here.
            raise err
        return real(process_lock)

    def work():
        for _ in range(2):  # And with the hook's attempt there were three: none to let go.
            with pytest.raises(OSError, match="no descriptors"):
                share.lock(timeout=0)
            assert inside.token_of(share) is None
        with pytest.raises(LockTimeout):
            share.lock(timeout=0)

    with share.locked() as view:
        monkeypatch.setattr(kind, "reopen", reopen)
        in_child(work)
        monkeypatch.undo()
        with pytest.raises(LockTimeout):
            in_child(lambda: share.lock(timeout=0))
        view.value += 1
    assert share.get() == 1


def test_a_fork_waits_until_a_late_import_is_over(monkeypatch):
    """A child that was forked in another thread's import waited for ever to import the same.

    That was the first commit of a process that found somebody asleep, and the child's first.
    """
    main = Path(f"/proc/self/task/{threading.get_native_id()}/stat")
    entered, forking = threading.Event(), threading.Event()

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == inside.FUTEX_MODULE and not entered.is_set():
                entered.set()
                forking.wait()
                while main.read_text().rsplit(")", 1)[1].split()[0] != "S":
                    pass

    share = Share(0)
    monkeypatch.delitem(sys.modules, inside.FUTEX_MODULE, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    thread = threading.Thread(target=share.wait, kwargs={"timeout": 0.001})
    thread.start()
    entered.wait()
    forking.set()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            share.wait(timeout=0.001)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    thread.join()


def test_a_fork_between_lock_and_unlock_voids_the_block_in_the_child(make):
    """The child went on with the view of the block inside, and committed without the lock."""
    share = make({"n": 0})
    share.lock()
    with share.locked() as view:

        def work():
            with pytest.raises(ViewClosedError):
                view["n"] = 666

        in_child(work)
        assert share.get() == {"n": 0}
        view["n"] = 1
    share.unlock()
    assert share.get() == {"n": 1}


def test_one_region_that_fails_in_the_fork_hook_does_not_harm_the_others(tmp_path, monkeypatch):
    """The loop over the regions ended there: the later ones kept the parent's lock."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    others = [Share(n) for n in range(4)]
    broken = Share(0, kind="file")
    others += [Share(n) for n in range(4)]
    inside.remove_folder(inside.segment_of(broken).folder)
    for share in others:
        share.lock()

    def work():
        for share in others:
            with pytest.raises(TimeoutError):
                share.lock(timeout=0)
        with pytest.raises(ClosedError, match="folder"):
            broken.set(1)
        assert broken.get() == 0

    in_child(work)
    for share in others:
        share.unlock()
    broken.close()
