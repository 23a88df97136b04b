"""Bugs that were found by looking for them, each with its story."""

import asyncio
import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading

import pytest
from support import Child, in_child, inside, trap
from test_definitions import run

from mmapshare import ClosedError, DeadlockError, Share, TransactionError, ViewClosedError


def _block(share):
    with share.locked() as view:
        view.value += 1


@pytest.mark.parametrize("use", ["set", "update"])
@pytest.mark.parametrize(
    "action", [_block, lambda share: share.set(5), lambda share: (share.lock(), share.unlock())]
)
def test_a_signal_handler_in_mid_commit_is_refused_and_never_tears(action, use):
    """A handler that called `set` at some step took the interrupted `set` for an abandoned one
    and published the same version: two values under one version, torn reads beside it."""
    share = Share(0)
    step, outcomes, sprung = 0, set(), True
    while sprung:
        step += 1
        sprung = False
        share.set(0)
        before, stored = share.version, 0

        def spring():
            nonlocal sprung, stored
            sprung = True
            try:
                share.set(100) if use == "set" else share.update(lambda n: n + 100)
                stored = 1
            except (DeadlockError, TransactionError, ViewClosedError) as err:
                outcomes.add(type(err))

        with trap(step, spring), contextlib.suppress(TransactionError):
            action(share)
        assert inside.claim_of(share) is None, step
        assert share.version <= before + 1 + stored, step
        assert share.get() in {0, 1, 5, 100, 101, 105}, step
    assert step > 50
    assert DeadlockError in outcomes


def test_a_finaliser_that_uses_the_share_in_mid_commit_is_refused(make):
    share = make(0)
    said = []

    class Leaves:
        def __del__(self):
            try:
                share.update(int.__add__, 1)
            except DeadlockError as err:
                said.append(str(err))

    class Collects:
        def __reduce__(self):
            garbage = Leaves()
            garbage.me = garbage
            del garbage
            gc.collect()
            return (int, (7,))

    share.update(lambda n: Collects())
    assert share.get() == 7
    assert "finaliser" in said[0]


def test_a_pickling_hook_that_uses_its_own_share_is_refused(make):
    share = make(0)

    class Nested:
        def __setstate__(self, state):
            share.set(5)

        def __getstate__(self):
            return {"a": 1}

    share.set(Nested())
    with pytest.raises(DeadlockError, match="pickling hook"), share.locked():
        pass
    share.set(1)


def test_an_interrupted_release_does_not_let_go_of_anothers_claim():
    """After it had left the gate, an interrupted release unlocked what another thread had
    locked since."""
    share = Share(0)
    lock = inside.lock_of(share)
    step, sprung, taken = 0, True, 0
    while sprung:
        step += 1
        sprung = False
        entered, leave = threading.Event(), threading.Event()

        def other(entered=entered, leave=leave):
            with share.locked(timeout=5):
                entered.set()
                leave.wait()

        thread = threading.Thread(target=other)

        def spring(thread=thread, entered=entered):
            nonlocal sprung, taken
            sprung = True
            if lock.claim is None and inside.lock_words_of(lock)[inside.HOLDER] == 0:
                thread.start()
                entered.wait()
                taken += 1
            raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt), trap(step, spring):
            share.set(1)
        if thread.ident is not None:
            assert lock.claim is not None, step
            with pytest.raises(Exception, match="held"):
                in_child(lambda: share.lock(timeout=0))
            leave.set()
            thread.join()
        assert lock.claim is None, step
    assert taken > 3


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


def test_threads_that_load_one_handle_get_one_share(make):
    """Two shares, and so two locks, for one region: a block nested through both hung."""
    share = make(1)
    raw = pickle.dumps(share)

    def work():
        inside.open_here.clear()
        start = threading.Barrier(8)
        got = []

        def load():
            start.wait()
            got.append(pickle.loads(raw))

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len({id(one) for one in got}), got[0].get()

    for _ in range(5):
        assert in_child(work) == (1, 1)


def test_a_task_whose_loop_stands_still_is_not_waited_for():
    share = Share(0)

    async def keeps():
        with share.locked():
            await asyncio.sleep(3600)

    loop = asyncio.new_event_loop()
    task = loop.create_task(keeps())
    loop.run_until_complete(asyncio.sleep(0))
    with pytest.raises(DeadlockError):
        share.set(1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    share.set(1)


def test_a_joined_block_that_outlives_the_outer_one_says_so(make):
    share = make([])
    outer = share.locked()
    outer.__enter__()
    inner = share.locked()
    inner.__enter__().append(1)
    with pytest.raises(TransactionError, match="still open"):
        outer.__exit__(None, None, None)
    with pytest.raises(TransactionError, match="ended first"):
        inner.__exit__(None, None, None)
    assert share.get() == []


def test_a_share_still_works_in_an_exit_handler_that_was_registered_first():
    """The descriptor was closed at exit, before handlers that had been registered earlier ran."""
    program = """
import atexit, os
def last():
    for share in shares:
        share.set(bytes(3_000_000))
        share.update(lambda b: len(b))
        print(share.get())
atexit.register(last)
from mmapshare import Share
shares = [Share(1)]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("3000000\n", "")


def test_a_process_that_ends_inside_of_blocks_is_silent(kind):
    program = f"""
from mmapshare import Share
share = Share([1], kind={kind!r})
def generator():
    with share.locked() as view:
        yield view
kept = generator()
next(kept)
other = Share(2, kind={kind!r})
other.lock()
ring = [Share(3, kind={kind!r})]
ring.append(ring[0].locked())
ring[1].__enter__()
ring.append(ring)
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_garbage_of_a_share_and_its_block_is_silent():
    """The lock's descriptor could go first, and its number was then unlocked for a stranger."""
    for _ in range(20):
        share = Share(1)
        transaction = share.locked()
        view = transaction.__enter__()
        ring = [share, transaction, view]
        ring.append(ring)
        del share, transaction, view, ring
        gc.collect()


def test_closing_beside_readers_is_a_closed_error():
    for _ in range(20):
        share = Share(1)
        seen = []

        def read(share=share, seen=seen):
            try:
                while True:
                    share.get()
            except Exception as err:
                seen.append(type(err))

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        share.close()
        for thread in threads:
            thread.join()
        assert seen == [ClosedError, ClosedError]


def test_threads_that_store_the_first_instances_of_a_class_at_once(tmp_path):
    """One thread named the definition that the other had not finished: its body was empty, and
    every later commit of that class could not be read elsewhere."""
    run(
        """
        import threading
        shares, classes = [], []
        for n in range(30):
            space = {}
            body = "".join(f"    def m{k}(self): return {k}\\n" for k in range(30))
            exec(f"class K{n}:\\n" + body, globals())
            classes.append(globals()[f"K{n}"])
        for cls in classes:
            pair = [Share(), Share()]
            start = threading.Barrier(2)
            def store(share):
                start.wait()
                share.set(cls())
            threads = [threading.Thread(target=store, args=(share,)) for share in pair]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            shares += pair
        stranger(shares, '''
            import threading
            start = threading.Barrier(4)
            errors = []
            def load():
                start.wait()
                for share in shares:
                    try:
                        assert share.get().m29() == 29
                    except BaseException as err:
                        errors.append(repr(err))
            threads = [threading.Thread(target=load) for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            assert not errors, errors[:3]
            ''')
        """,
        tmp_path,
    )


def test_twins_after_a_fork_do_not_take_one_anothers_classes_for_their_own(tmp_path):
    """Two children made classes at the same address with the same code: only what their methods
    close over told them apart."""
    run(
        """
        def make(n):
            class Local:
                def who(self):
                    return n
            return Local
        shares = [Share(), Share()]
        def store(n):
            cls = make(n)
            shares[n].set(cls())
            other = shares[1 - n]
            return other.get().who() if other.version else None
        in_child(lambda: store(0))
        assert in_child(lambda: store(1)) == 0
        """,
        tmp_path,
    )


def test_a_method_with_other_defaults_or_another_decorated_body_is_another_definition(tmp_path):
    run(
        """
        import functools
        def deco(function):
            @functools.wraps(function)
            def wrapper(*args):
                return function(*args)
            return wrapper
        class A:
            def f(self, n=1): return n
            @deco
            def g(self): return "old"
        share = Share()
        def redefine():
            class A:
                def f(self, n=2): return n
                @deco
                def g(self): return "new"
            A.__qualname__ = "A"
            share.set(A())
        in_child(redefine)
        value = share.get()
        assert (value.f(), value.g()) == (2, "new") and type(value) is not A
        """,
        tmp_path,
    )


def test_a_waiter_whose_holder_is_just_leaving_looks_again(monkeypatch):
    share = Share(0)
    lock = inside.lock_of(share)
    claim = inside.claim_by(None)
    inside.gate_of(lock)[0] = claim
    done = threading.Thread(target=lambda: share.set(1))
    done.start()
    inside.gate_of(lock).pop(0)
    done.join()
    assert share.get() == 1


def test_a_signal_handlers_exception_is_not_lost_while_pickling(make):
    share = make(0)

    class Alarm(ValueError):
        pass

    class Slow:
        def __reduce__(self):
            signal.raise_signal(signal.SIGUSR1)
            return (int, ())

    def strike(signum, frame):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        raise Alarm

    before = signal.signal(signal.SIGUSR1, strike)
    try:
        with pytest.raises(Exception) as caught:
            share.set(Slow())
        assert isinstance(caught.value, Alarm) or isinstance(caught.value.__cause__, Alarm)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert share.get() == 0
    assert Child(lambda child: os.getpid()).result() != os.getpid()
