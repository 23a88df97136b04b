"""What children run that cannot inherit functions: importable by name."""

import os
import pickle

from mmapshare import Share


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
