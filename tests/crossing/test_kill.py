"""What others find when a holder was killed. Kills at every bytecode: see proof/test_kills.py."""

import logging
import os
import signal

from support import Child


def test_the_next_holder_logs_who_died_holding_the_lock(make, caplog):
    share = make(1)

    def hold(child):
        with share.locked():
            child.say()
            signal.pause()

    child = Child(hold)
    child.hear()
    child.kill()
    with caplog.at_level(logging.WARNING, logger="mmapshare"):
        share.set(2)
        share.set(3)
    assert [record.getMessage() for record in caplog.records] == [
        f"pid {child.pid} died holding the lock; "
        "its unfinished change is dropped, the value is whole"
    ]
    assert share.info().holders_found_dead == 1


def test_the_logger_is_silent_by_default():
    assert any(isinstance(h, logging.NullHandler) for h in logging.getLogger("mmapshare").handlers)


def test_a_waiter_gets_a_killed_holders_lock(make):
    share = make(1)

    def hold(child):
        with share.locked():
            child.say()
            signal.pause()

    holder = Child(hold)
    holder.hear()
    waiter = Child(lambda child: share.update(int.__add__, 1))
    holder.kill()
    assert waiter.result() == 2


def test_workers_killed_at_random_lose_no_acknowledged_commit(make):
    share = make(0)

    def work(child):
        while True:
            share.update(int.__add__, 1)
            os.write(child.writes, b".")

    acknowledged = 0
    for _ in range(8):
        child = Child(work)
        for _ in range(20):
            child.read(1)
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        acknowledged += 20
        while piece := os.read(child.reads, 1000):
            acknowledged += len(piece)
        child.reaped = -9
        os.close(child.reads)
        os.close(child.writes)
    # A worker may have been killed between its commit and its word of it.
    assert acknowledged <= share.get() <= acknowledged + 8
    assert share.info().holders_found_dead <= 8
