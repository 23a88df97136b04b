"""Greenlets that contend for a share, in a process of its own: HOW it is patched is an argument."""

import os
import select
import sys

how, kind = sys.argv[1:]
if kind == "gevent":
    import gevent as green
    from gevent import monkey

    def patch():
        monkey.patch_all()

    def together(*jobs):
        started = [green.spawn(job) for job in jobs]
        green.joinall(started, raise_error=True)

else:
    import warnings

    warnings.simplefilter("ignore")
    import eventlet as green

    def patch():
        green.monkey_patch()

    def together(*jobs):
        for started in [green.spawn(job) for job in jobs]:
            started.wait()


if how == "before":
    patch()

from mmapshare import DeadlockError, Share, SharedDict, ViewClosedError, locked  # noqa: E402

if how == "after":
    patch()

share, shared = Share({"n": 0, "log": []}), SharedDict(n=0)


def add():
    with share.locked() as view:
        n = view["n"]
        green.sleep(0)
        with share.locked() as inner:  # Its own: it joins.
            inner["n"] = n + 1
    with shared.locked(timeout=60) as view:
        n = view["n"]
        green.sleep(0.0001)
        view["n"] = n + 1
    share.update(lambda value: value["log"].append(1))


def fails():
    try:
        with share.locked() as view:
            view["n"] = -1
            green.sleep(0.01)
            raise ValueError
    except ValueError:
        pass


together(fails, *[add] * 20, fails)
assert share.get() == {"n": 20, "log": [1] * 20}, share.get()
assert shared["n"] == 20

# The thread's own greenlet is another owner; a view is not another greenlet's.
with share.locked() as view:
    view["n"] = 0

    def looks():
        try:
            with share.locked(timeout=0):
                raise AssertionError("it is not its own")
        except Exception as err:
            assert type(err).__name__ == "LockTimeout", err

    together(looks)
views = []


def lends():
    with share.locked() as view:
        views.append(view)
        green.sleep(0.01)


def borrows():
    green.sleep(0)
    try:
        views[0].value
    except ViewClosedError:
        views.append("refused")


together(lends, borrows)
assert views[1] == "refused"

# Crossing blocks are found out among greenlets too.
other, found = Share(0), []


def crosses(first, second):
    try:
        with first.locked():
            green.sleep(0.01)
            with second.locked():
                pass
    except DeadlockError:
        found.append(1)


together(lambda: crosses(share, other), lambda: crosses(other, share))
assert found
with locked(share, other, timeout=0):
    pass


# wait() lets the others go on.
def waits():
    assert other.wait(lambda n: n == 5, timeout=60)


together(waits, lambda: other.set(5))


# Threads that have no greenlets but their own, among them.
def in_thread():
    for _ in range(20):
        share.update(lambda value: value["log"].append(2))


def runs_a_thread():
    if kind == "gevent":
        green.get_hub().threadpool.apply(in_thread)
    else:
        from eventlet import tpool

        tpool.execute(in_thread)


before = len(share.get()["log"])
together(runs_a_thread, *[add] * 10, runs_a_thread)
assert len(share.get()["log"]) == before + 50


# Another process, whose lock is waited for.
ours, theirs = os.pipe()
more, enough = os.pipe()
child = os.fork()
if child == 0:
    with share.locked() as view:
        os.write(theirs, b"x")
        view["n"] = 1000
        select.select([more], [], [], 10)
    os._exit(0)
os.read(ours, 1)
ticks = []


def ticks_on():
    while not ticks or ticks[-1] != "done":
        ticks.append(1)
        if len(ticks) == 4:
            os.write(enough, b"x")
        green.sleep(0.001)


def takes():
    with share.locked() as view:
        assert view["n"] == 1000
    ticks.append("done")


together(ticks_on, takes)
assert len(ticks) > 3, ticks
os.waitpid(child, 0)
print("fine")
