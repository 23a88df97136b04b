"""Work without the lock, committed only if nothing that it looked at was changed meanwhile."""

import threading

import pytest
from support import Child, in_child, inside

from mmapshare import (
    EmptyShareError,
    LockTimeout,
    RegionFullError,
    Share,
    SharedDict,
    UnpicklableError,
)


@pytest.fixture(params=["share", "dict"])
def counted(request, medium):
    """Something that counts, and how to add to it optimistically."""
    shared = getattr(medium, request.param)({"n": 0})

    def add(by=1, **options):
        def work(value):
            value["n"] += by

        if request.param == "share":
            shared.update(work, optimistic=True, **options)
        else:
            shared.transact(work, **options)

    return shared, add


def _value(shared):
    return shared.get() if isinstance(shared, Share) else shared.copy()


@pytest.mark.needs("crosses_fork")
def test_processes_and_threads_add_up_exactly(counted):
    shared, add = counted

    def work(child):
        threads = [
            threading.Thread(target=lambda: [add(retries=3) for _ in range(40)]) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    children = [Child(work) for _ in range(3)]
    for child in children:
        child.result()
    assert _value(shared) == {"n": 240}


@pytest.mark.needs("crosses_fork")
def test_the_function_runs_without_the_lock(counted):
    shared, _ = counted

    def work(value):
        assert in_child(lambda: shared.lock(timeout=0)) is None
        value["n"] += 1

    shared.update(work, optimistic=True) if isinstance(shared, Share) else shared.transact(work)
    assert _value(shared) == {"n": 1}


@pytest.mark.needs("crosses_fork")
def test_a_conflict_runs_it_again_on_fresh_values(counted):
    shared, _ = counted
    seen = []

    def work(value):
        seen.append(value["n"])
        if len(seen) < 3:
            in_child(_add_in_a_block, shared)
        value["n"] += 10

    shared.update(work, optimistic=True) if isinstance(shared, Share) else shared.transact(work)
    assert seen == [0, 1, 2]
    assert _value(shared) == {"n": 12}


def _add_in_a_block(shared):
    with shared.locked(timeout=5) as view:
        view["n"] += 1


@pytest.mark.needs("crosses_fork")
def test_after_the_retries_it_takes_the_lock(counted):
    shared, _ = counted
    held = []

    def work(value):
        held.append(inside.token_of(shared) is not None)
        before = value["n"]
        if not held[-1]:
            in_child(_add_in_a_block, shared)
        value["n"] = before + 10

    if isinstance(shared, Share):
        shared.update(work, optimistic=True, retries=2)
    else:
        shared.transact(work, retries=2)
    assert held == [False, False, True]
    assert _value(shared) == {"n": 12}


def test_what_changes_nothing_commits_nothing(counted):
    shared, add = counted
    add(0)
    assert shared.version == 1


def test_an_exception_commits_nothing_and_is_raised_unchanged(counted):
    shared, _ = counted
    error = KeyError("as it is")

    def work(value):
        value["n"] = 99
        raise error

    act = shared.transact if isinstance(shared, SharedDict) else shared.update
    options = {} if isinstance(shared, SharedDict) else {"optimistic": True}
    with pytest.raises(KeyError) as caught:
        act(work, **options)
    assert caught.value is error
    with pytest.raises(UnpicklableError):
        act(lambda value: value.update(lock=threading.Lock()), **options)
    with pytest.raises(TypeError, match="function"):
        act(5, **options)
    assert _value(shared) == {"n": 0}


def test_wrong_arguments_say_what_is_right(counted):
    shared, add = counted

    async def coroutine(value):
        value["n"] = 1

    def generator(value):
        yield

    act = shared.transact if isinstance(shared, SharedDict) else shared.update
    for function in (coroutine, generator):
        with pytest.raises(TypeError, match="plain function"):
            act(function)
    with pytest.raises(TypeError, match="retries"):
        add(retries="x")
    with pytest.raises(ValueError, match="retries"):
        add(retries=-1)
    add(retries=0)
    assert _value(shared) == {"n": 1}


def test_within_ones_own_block_it_joins_that(counted):
    shared, add = counted
    with shared.locked() as view:
        add()
        assert view["n"] == 1
        assert _value(shared) == {"n": 0}
    assert _value(shared) == {"n": 1}


@pytest.mark.needs("crosses_fork")
def test_the_commit_waits_for_the_lock_as_others_do(medium):
    shared = medium.share({"n": 0}, timeout=0)

    def hold(child):
        with shared.locked():
            child.say()
            child.hear()

    child = Child(hold)
    child.hear()
    with pytest.raises(LockTimeout):
        shared.update(dict.update, n=1, optimistic=True)
    child.say()
    child.wait()
    shared.close()


def test_an_empty_share_has_nothing_to_update(medium):
    with pytest.raises(EmptyShareError):
        medium.share().update(list.append, 1, optimistic=True)


def test_what_is_returned_becomes_a_shares_value_and_is_a_dicts_result(medium):
    share = medium.share(40)
    assert share.update(lambda n, by: n + by, 2, optimistic=True) == 42
    assert share.update(lambda n, by: n + by, by=1, optimistic=True) == 43
    assert share.get() == 43
    shared = medium.dict(a=1)
    assert shared.transact(lambda view, by: view["a"] + by, by=5) == 6
    assert shared.version == 1


# --- Keys ----------------------------------------------------------------------------------------


@pytest.mark.needs("crosses_fork")
def test_a_change_of_another_key_is_no_conflict(medium):
    shared = medium.dict(a=0, b=0, c=0)
    runs = []

    def work(view):
        runs.append(view["a"])
        in_child(shared.update, {"b": len(runs), "new": 1})
        view["a"] += 1

    shared.transact(work)
    assert runs == [0]
    assert shared == {"a": 1, "b": 1, "c": 0, "new": 1}


@pytest.mark.needs("crosses_fork")
@pytest.mark.parametrize(
    ("look", "change"),
    [
        (lambda view: view["b"], lambda d: d.update(b=1)),
        (lambda view: view.get("missing"), lambda d: d.update(missing=1)),
        (lambda view: "b" in view, lambda d: d.pop("b")),
        (lambda view: len(view), lambda d: d.update(new=1)),
        (lambda view: list(view), lambda d: d.pop("c")),
        (lambda view: view.setdefault("b", 1), lambda d: d.update(b=2)),
        (lambda view: view.update(b=5), lambda d: d.update(b=2)),
        (lambda view: view.pop("b"), lambda d: d.update(b=2)),
        (lambda view: view.popitem(), lambda d: d.update(new=2)),
        (lambda view: view.clear(), lambda d: d.update(new=2)),
        (lambda view: next(reversed(view)), lambda d: d.update(new=2)),
    ],
)
def test_a_change_of_what_was_looked_at_is_a_conflict(medium, look, change):
    shared, model = medium.dict(a=0, b=0, c=0), {"a": 0, "b": 0, "c": 0}
    runs = []

    def work(view):
        runs.append(1)
        look(view)
        if len(runs) == 1:
            in_child(change, shared)
        view["a"] = "done"

    shared.transact(work)
    assert len(runs) == 2
    change(model)
    look(model)
    model["a"] = "done"
    assert shared == model


@pytest.mark.needs("crosses_fork")
def test_what_the_function_sees_belongs_together(medium):
    """A reader of two keys that always change together never sees them apart."""
    shared = medium.dict(a=0, b=0)
    apart = []

    def write(child):
        for n in range(1, 400):
            shared.update(a=n, b=n)

    def look(view):
        if view["a"] != view["b"]:
            apart.append(1)
        view["seen"] = view["a"]

    child = Child(write)
    while shared["a"] < 399:
        shared.transact(look, retries=1000)
    child.result()
    assert apart == []


@pytest.mark.needs("crosses_fork")
def test_snapshots_in_between_harm_nothing(medium, monkeypatch):
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), 100)
    shared = medium.dict(dict.fromkeys(range(5), 0))

    def work(child, me):
        def add(view):
            view[me] += 1
            view["all"] = view.get("all", 0) + 1

        for _ in range(60):
            shared.transact(add)

    children = [Child(work, n) for n in range(3)]
    for child in children:
        child.result()
    assert shared.copy() == {0: 60, 1: 60, 2: 60, 3: 0, 4: 0, "all": 180}


def test_a_full_dict_is_said_to_be_full(medium):
    shared = medium.dict(max_size="64K")
    with pytest.raises(RegionFullError):
        shared.transact(lambda view: view.update(a=bytes(100_000)))
    assert len(shared) == 0


@pytest.mark.needs("crosses_fork")
def test_a_rollback_forgets_what_was_changed_but_not_what_was_looked_at(medium):
    """What is written after it rests on what was read before it."""
    shared = medium.dict(a=1, b=1)
    runs = []

    def work(view):
        runs.append(view["a"])
        view["b"] = 5
        view.rollback()
        assert view["b"] == 1
        if len(runs) == 1:
            in_child(shared.update, {"a": 2})
        view["c"] = runs[-1]

    shared.transact(work)
    assert runs == [1, 2]
    assert shared == {"a": 2, "b": 1, "c": 2}


@pytest.mark.needs("is_memory")  # On a server each value has what it needs beside it.
def test_a_definition_is_stored_once_by_several_transactions(medium):
    """It is looked up among those that the log has, which others may have brought meanwhile."""

    class Point:
        def __init__(self, x):
            self.x = x

    def put(view, n):
        view[n] = Point(n)

    shared = medium.dict()
    shared.transact(put, 0)
    used_bytes, definitions = (
        shared.info().used_bytes,
        set(inside.index_of(shared).state.definitions),
    )
    for n in (1, 2):
        shared.transact(put, n)
    for n in (3, 4):
        in_child(shared.transact, put, n)
    assert len(shared) == 5
    assert inside.index_of(shared).state.definitions.keys() == definitions
    assert shared.info().used_bytes - used_bytes < 4 * 200 < used_bytes
    assert [shared[n].x for n in shared] == [0, 1, 2, 3, 4]


@pytest.mark.needs("is_memory")  # Elsewhere a place never comes again.
def test_who_meets_a_new_snapshot_runs_again(medium):
    """There a key may be in the same place as before, with another value."""
    shared = medium.dict(a=1, b=1)
    seen = []

    def rewrite():
        inside.put("SPARE_BYTES", -(1 << 30))
        shared["b"] = 2

    def count(view):
        seen.append(view["a"])
        if len(seen) == 1:
            in_child(rewrite)
        view["a"] = 10 + len(seen)

    shared.transact(count)
    assert seen == [1, 1]
    assert shared.copy() == {"a": 12, "b": 2}
