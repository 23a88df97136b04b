"""Waits that can never end are found out, across processes, threads and tasks; others are not."""

import asyncio
import os
import random
import signal
import sys
import threading
import time

import pytest
from support import Child, as_somebody_else, in_child, inside

from mmapshare import DeadlockError, LockTimeout, Share, SharedDict

SEED = int.from_bytes(os.urandom(4), "little")


def _name(share):
    return inside.region_id_of(share).hex()[:8]


def _crossing(child, first, second):
    """Take one share, then, when told, the other; how that ended, and after how long."""
    with first.locked():
        child.say()
        child.hear()
        begin = time.monotonic()
        try:
            with second.locked():
                return "got it"
        except DeadlockError as err:
            return err, time.monotonic() - begin


@pytest.mark.parametrize("kind", ["memfd", "file"])
@pytest.mark.parametrize("make", [Share, SharedDict])
def test_two_processes_that_cross_are_told_at_once(kind, make):
    a, b = make({}, kind=kind), make({}, kind=kind)
    children = [Child(_crossing, a, b), Child(_crossing, b, a)]
    for child in children:
        child.hear()
    children[0].say()
    children[0].sleeps()
    children[1].say()
    results = [child.result() for child in children]
    errors = [result for result in results if result != "got it"]
    assert errors
    for err, took_s in errors:
        for name in (_name(a), _name(b), str(children[0].pid), str(children[1].pid)):
            assert name in str(err)
        assert set(err.pids) == {child.pid for child in children}
        assert took_s < 5  # How long it took the machine is not for a test to say.
    in_child(lambda: (a.lock(timeout=5), b.lock(timeout=5)))
    a.close()
    b.close()


def test_a_circle_of_three_is_found_though_nobody_has_all_three_open():
    a, b, c = (Share({}) for _ in range(3))

    def work(child, first, second, third):
        third.close()
        return _crossing(child, first, second)

    children = [Child(work, *order) for order in [(a, b, c), (b, c, a), (c, a, b)]]
    for child in children:
        child.hear()
    for child in children[:2]:
        child.say()
        child.sleeps()
    children[2].say()
    results = [child.result() for child in children]
    errors = [result for result in results if result != "got it"]
    assert errors
    assert all(len(err.pids) == 4 or len(err.pids) == 3 for err, _ in errors)
    assert all(str(child.pid) in str(errors[0][0]) for child in children)


def test_two_threads_that_cross_are_told(kind):
    a, b = Share({}, kind=kind), Share({}, kind=kind)
    both = threading.Barrier(2)
    results = []

    def work(first, second):
        with first.locked():
            both.wait()
            try:
                with second.locked():
                    results.append("got it")
            except DeadlockError as err:
                results.append(err)

    threads = [threading.Thread(target=work, args=order) for order in [(a, b), (b, a)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any(isinstance(result, DeadlockError) for result in results)
    a.close()
    b.close()


def test_a_thread_and_a_process_that_cross_are_told():
    a, b = Share({}), Share({})
    child = Child(_crossing, b, a)
    child.hear()
    results = []

    def work():
        with a.locked():
            child.say()
            try:
                with b.locked():
                    results.append("got it")
            except DeadlockError as err:
                results.append(err)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    results.append(child.result())
    assert any(result != "got it" for result in results)


def test_two_tasks_that_cross_are_told():
    a, b = Share({}), Share({})

    async def work(first, second, mine, others):
        async with first.locked():
            mine.set()
            await others.wait()
            try:
                async with second.locked():
                    return "got it"
            except DeadlockError:
                return "told"

    async def main():
        one, other = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(work(a, b, one, other), work(b, a, other, one))

    assert "told" in asyncio.run(main())


@pytest.mark.parametrize("below", [True, False])
def test_a_task_that_crosses_with_what_it_holds_up_is_told(below):
    """The thread that the loop runs in holds a share; or a task that a plain block holds up."""
    a, b = Share({}), Share({})

    def work(child):
        async def main():
            if below:
                child.say()
                child.hear()
                async with b.locked():
                    return "got it"
            inside, leave = asyncio.Event(), asyncio.Event()

            async def holder():
                async with a.locked():
                    inside.set()
                    await leave.wait()

            task = asyncio.create_task(holder())
            await inside.wait()
            child.say()
            child.hear()
            try:
                with b.locked():
                    return "got it"
            finally:
                leave.set()
                await task

        try:
            if below:
                with a.locked():
                    return asyncio.run(main())
            return asyncio.run(main())
        except DeadlockError:
            return "told"

    children = [Child(work), Child(_crossing, b, a)]
    for child in children:
        child.hear()
    for child in children:
        child.say()
    results = [child.result() for child in children]
    assert results != ["got it", "got it"]


def test_shares_that_come_and_go_disturb_nobody_who_waits():
    """The set of all locks changed its size while it was looked through."""
    share, stop, errors = Share(0), threading.Event(), []

    def contend():
        try:
            while not stop.is_set():
                share.update(int.__add__, 1)
        except Exception as err:
            errors.append(err)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=contend) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for _ in range(300):
            Share(1).close()
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_with_a_timeout_it_is_a_deadlock_all_the_same():
    a, b = Share({}, timeout=60), Share({}, timeout=60)
    children = [Child(_crossing, a, b), Child(_crossing, b, a)]
    for child in children:
        child.hear()
    for child in children:
        child.say()
    assert [child.result() for child in children] != ["got it"] * 2


def test_waiting_in_one_order_is_no_deadlock():
    """Owners that hold one share and wait for the next, over and over, with timeouts between."""
    print("seed", SEED)
    shares = [Share({"n": 0}) for _ in range(3)]

    def work(child, seed):
        rng = random.Random(seed)
        done = 0
        for _ in range(200):
            first, second = sorted(rng.sample(range(3), 2))
            try:
                with shares[first].locked() as a:
                    with shares[second].locked(timeout=rng.choice([None, 0, 0.001])) as b:
                        a["n"] += 1
                        b["n"] += 1
                        done += 2
            except LockTimeout:
                pass
        return done

    def threads(child, seed):
        done = []
        workers = [
            threading.Thread(target=lambda n=n: done.append(work(child, seed + n)))
            for n in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(done)

    children = [Child(threads, SEED + 10 * n) for n in range(3)]
    done = sum(child.result() for child in children)
    assert sum(share.get()["n"] for share in shares) == done
    assert all(inside.lock_of(share).words[inside.WAITS_ID] == 0 for share in shares)


def test_what_a_killed_waiter_left_behind_is_no_deadlock():
    a, b = Share({}), Share({})
    holder = Child(lambda child: _hold(child, b))
    holder.hear()
    victim = Child(_crossing, a, b)
    victim.hear()
    victim.say()
    while not inside.lock_of(a).words[inside.WAITS_ID]:
        pass
    victim.kill()  # Holding a, waiting for b: so says the header of a.
    with b_held_by_us(holder, b), a.locked(timeout=5):
        assert inside.lock_of(a).words[inside.WAITS_ID] == 0


def _hold(child, share):
    with share.locked():
        child.say()
        child.hear()


class b_held_by_us:
    """Take over what another process holds."""

    def __init__(self, holder, share):
        self.holder, self.transaction = holder, share.locked()

    def __enter__(self):
        self.holder.say()
        self.holder.wait()
        self.transaction.__enter__()

    def __exit__(self, *exc):
        self.transaction.__exit__(*exc)


def test_an_interrupted_wait_leaves_no_trace():
    a, b = Share({}), Share({})
    holder = Child(_hold, b)
    holder.hear()

    def wait(child):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with a.locked():
            child.say()
            try:
                b.lock()
            except KeyboardInterrupt:
                child.say(inside.lock_of(a).words[inside.WAITS_ID])
                child.hear()

    waiter = Child(wait)
    waiter.hear()
    while not inside.lock_of(a).words[inside.WAITS_ID]:
        pass
    os.kill(waiter.pid, signal.SIGINT)
    assert waiter.hear() == 0
    waiter.say()
    waiter.result()
    holder.say()
    holder.wait()


def test_a_timeout_names_the_holders_command():
    share = Share(0)
    holder = Child(_hold, share)
    holder.hear()
    with open(f"/proc/{holder.pid}/comm") as name:
        expected = f"pid {holder.pid} ({name.read().strip()})"
    with pytest.raises(LockTimeout) as caught:
        share.lock(timeout=0)
    assert expected in str(caught.value)
    holder.say()
    holder.wait()


@pytest.mark.parametrize("leads", ["nowhere", "to another region", "to a closed one", "round"])
def test_a_wait_whose_track_is_lost_is_no_deadlock(leads, monkeypatch):
    """Who gives up has seen the whole circle, and oneself in it: nothing else will do."""
    a, b, other = Share({}), Share({}), Share({})
    holder = Child(_hold, b)
    holder.hear()
    locks, others = inside.all_locks, inside.lock_of(other)
    waits_id, pid, fd = {
        "nowhere": (1, 2**22 + 1, 0),
        "to another region": (1, os.getpid(), others.process_lock.fd),
        "to a closed one": (others.region_id, os.getpid(), others.process_lock.fd),
        "round": (inside.lock_of(b).region_id, holder.pid, inside.lock_of(b).process_lock.fd),
    }[leads]
    if leads == "to a closed one":
        other.close()  # By another thread, after one has looked which there are.
        monkeypatch.setattr(*inside.at("all_locks"), lambda: [*locks(), others])
    if leads == "to another region":  # Whose holder does wait for us.
        others.words[inside.HOLDER] = os.getpid()
        others.words[inside.WAITS_ID] = inside.lock_of(a).region_id
    words = inside.lock_of(b).words
    words[inside.WAITS_PID], words[inside.WAITS_FD] = pid, fd
    words[inside.WAITS_ID] = waits_id
    with a.locked(), pytest.raises(LockTimeout):
        b.lock(timeout=0)
    holder.say()
    holder.wait()


def test_a_holder_that_has_died_or_never_was_is_not_told_as_one():
    share = Share(0)
    gone = Child(lambda child: None)
    gone.wait()
    words = inside.lock_of(share).words
    words[inside.SINCE] = time.monotonic_ns()
    for pid in (gone.pid, 2**64 - 1):
        words[inside.HOLDER] = pid
        assert share.info().holder_pid is None
    assert inside.called(gone.pid) == f"pid {gone.pid}"


def test_another_users_holder_is_alive_though_one_may_not_signal_it():
    share = Share(0)

    def look():
        with as_somebody_else():
            return share.info().holder_pid

    with share.locked():
        assert in_child(look) == os.getpid()
        inside.lock_of(share).words[inside.HOLDER] = 1  # Root's, whoever runs this.
        assert in_child(look) == 1
