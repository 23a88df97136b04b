"""What children run that cannot inherit functions: importable by name."""

import os
import pickle

from mmapshare import DeadlockError, LockTimeout, Share, SharedDict, shared_state


def add(share, by=1):
    with share.locked() as view:
        view.value += by
    return os.getpid()


def append(share, item):
    share.update(list.append, item)


def read(share):
    return share.get()


def read_inner(outer):
    return outer.get()["inner"].get()


def make(value):
    return Share(value)


def make_many(values):
    return [Share(value) for value in values]


def give_back(share):
    return share


def lock_timeout(share):
    share.lock(timeout=0)


def spawn_grandchild(share, method):
    import multiprocessing

    child = multiprocessing.get_context(method).Process(target=add, args=(share, 10))
    child.start()
    child.join()
    add(share)


def loads_into(raw, count):
    shares = [pickle.loads(raw) for _ in range(count)]
    assert all(share is shares[0] for share in shares)
    add(shares[0])
    return len({id(share) for share in shares})


def add_to_key(shared, key):
    with shared.locked() as view:
        view[key] = view.get(key, 0) + 1


class LoadsAs:
    """What an object of a process that has ended is to who loads it."""

    def __init__(self, raw):
        self.raw = raw

    def __reduce__(self):
        return pickle.loads, (self.raw,)


def give_what_loads_as(raw):
    return LoadsAs(raw)


@shared_state(initial=0)
def count(state):
    state.value += 1
    return state.value


@shared_state
class Counter:
    def __init__(self, n=0):
        self.n = n

    def add(self):
        self.n += 1
        return self.n

    def __repr__(self):
        return f"Counter({self.n})"

    def __len__(self):
        return self.n


class Cache(SharedDict):
    """A subclass with attributes of its own."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def put(self, key, value):
        with self.locked() as view:
            view[key] = value
            while len(view) > self.limit:
                del view[next(iter(view))]


def put(cache, key, value):
    cache.put(key, value)
    return cache


def attributes_of(share):
    return {name: getattr(share, name, None) for name in ("limit", "name", "_Slotted__secret")}


def store_and_stay(outer, kind, ready, leave):
    outer["inner"] = Share(1, kind=kind)
    ready.set()
    leave.wait()


def look_inside(outer, expected):
    return outer["inner"].get()


def add_many(share, shared, times):
    for _ in range(times):
        add(share)
        add_to_key(shared, "n")


def timed_out(share):
    try:
        with share.locked(timeout=0.05):
            return False
    except LockTimeout:
        return True


def wait_for(share, value):
    share.set(value)
    seen = share.wait(lambda now: now == value + 1, timeout=60)
    share.set(value + 2)
    return seen


def take_both(first, second, met):
    """Take two shares, the second one when somebody else has it."""
    try:
        with first.locked():
            met.update(lambda n: n + 1)
            met.wait(lambda n: n == 2, timeout=60)
            with second.locked():
                return "both"
    except DeadlockError:
        return "DeadlockError"


def keep_a_share(shelf):
    global kept
    kept = Share("kept")
    shelf.set(kept)
