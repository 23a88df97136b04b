"""How a share reaches other processes: every start method, every kind of pool."""

import concurrent.futures
import multiprocessing
import os
import pickle
import subprocess
import sys

import cloudpickle
import pytest
from support import (
    Wanted,
    workers,
)

from mmapshare import LockTimeout

joblib = Wanted("joblib")
METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture(params=METHODS)
def context(request):
    return multiprocessing.get_context(request.param)


def _run(context, target, *args):
    process = context.Process(target=target, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_process_gets_a_share_as_an_argument(make, context):
    share = make(0)
    _run(context, workers.add, share)
    assert share.get() == 1


def test_a_grandchild_gets_it_too(make, context):
    share = make(0)
    _run(context, workers.spawn_grandchild, share, context.get_start_method())
    assert share.get() == 11


def test_a_pool_works_on_one_share_and_gives_it_back(make, context):
    share = make(0)
    with context.Pool(2) as pool:
        pids = pool.map(workers.add, [share] * 8)
        back = pool.apply(workers.give_back, (share,))
        pool.close()
        pool.join()
    assert share.get() == 8
    assert os.getpid() not in pids
    assert back is share


def test_an_executor_works_on_one_share(make, context):
    share = make([])
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        list(executor.map(workers.append, [share] * 6, range(6)))
        with share.locked(), pytest.raises(LockTimeout) as caught:
            executor.submit(workers.lock_timeout, share).result()
    assert sorted(share.get()) == list(range(6))
    assert caught.value.holder_pid == os.getpid()


def test_joblib_works_on_one_share(make):
    get_reusable_executor = joblib.externals.loky.get_reusable_executor

    share = make(0)
    try:
        joblib.Parallel(n_jobs=2)(joblib.delayed(workers.add)(share) for _ in range(6))
        joblib.Parallel(n_jobs=2)(
            joblib.delayed(lambda s: s.update(int.__add__, 1))(share) for _ in range(4)
        )
    finally:
        get_reusable_executor().shutdown(wait=True)
    assert share.get() == 10


def test_a_share_made_in_a_worker_comes_back(context):
    with context.Pool(2) as pool:
        share = pool.apply(workers.make, ([1, 2],))
        many = pool.apply(workers.make_many, (range(20),))
        assert share.get() == [1, 2]
        assert [one.get() for one in many] == list(range(20))
        share.set("parent")
        assert pool.apply(workers.read, (share,)) == "parent"
        pool.close()
        pool.join()
    assert share.get() == "parent"


def test_a_handle_is_pickled_twice_and_loaded_many_times(make):
    share = make(0)
    first, second = pickle.dumps(share), cloudpickle.dumps(share)
    assert pickle.loads(first) is share
    for raw in (first, second):
        program = (
            "import sys, pickle; sys.path[:] = pickle.load(sys.stdin.buffer);"
            "from support import workers;"
            "print(workers.loads_into(sys.stdin.buffer.read(), 5))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], input=pickle.dumps(sys.path) + raw, capture_output=True
        )
        assert done.stdout == b"1\n", done.stderr.decode()
    assert share.get() == 2


def test_a_share_stored_in_a_share_is_the_same_share(make, context):
    inner = make(5)
    outer = make({"inner": inner})
    assert outer.get()["inner"] is inner
    _run(context, workers.read_inner, outer)
    inner.set(6)
    with context.Pool(1) as pool:
        assert pool.apply(workers.read_inner, (outer,)) == 6
        pool.close()
        pool.join()


def test_a_fork_of_an_attached_process_passes_the_share_on(make):
    share = make(0)
    _run(multiprocessing.get_context("spawn"), workers.spawn_grandchild, share, "fork")
    assert share.get() == 11
