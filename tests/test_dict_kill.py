"""SIGKILL at every bytecode of what changes a `SharedDict`: all of the change or nothing."""

import pytest
from support import killed_at_every_step, trap

from mmapshare import CorruptRegionError, SharedDict, _index, _log

OLD = {"a": {"n": 1}, "b": [2], "c": "x" * 30}


def _block(shared):
    with shared.locked() as view:
        view["a"]["n"] = 99
        view["b"].append(3)
        del view["c"]
        view["d"] = 4


ACTIONS = {
    "one key": (
        lambda shared: shared.__setitem__("a", {"n": 99}),
        {"a": {"n": 99}, "b": [2], "c": "x" * 30},
    ),
    "a block": (_block, {"a": {"n": 99}, "b": [2, 3], "d": 4}),
    "update": (lambda shared: shared.update(b=5, e=6), {**OLD, "b": 5, "e": 6}),
    "pop": (lambda shared: shared.pop("a"), {"b": [2], "c": "x" * 30}),
    "clear": (lambda shared: shared.clear(), {}),
}


def _back(shared):
    with shared.locked(timeout=1) as view:
        view.value = OLD


@pytest.mark.parametrize("name", ACTIONS)
def test_a_kill_at_any_step_of_a_delta_leaves_all_or_nothing(name):
    action, new = ACTIONS[name]
    shared = SharedDict(OLD)
    run = shared._index.state.position[_log.RUN]
    seen = set()

    def check(step):
        value = shared.copy()
        assert value in (OLD, new), f"step {step}"
        seen.add(value == new)
        _back(shared)
        assert shared.copy() == OLD, f"step {step}"

    assert killed_at_every_step(lambda: action(shared), check, stride=5) > 40
    assert seen == {True, False}
    assert name != "one key" or shared._index.state.position[_log.RUN] == run


@pytest.mark.parametrize("name", ["one key", "a block"])
def test_a_kill_at_any_step_of_a_new_snapshot_leaves_all_or_nothing(monkeypatch, name):
    """With memory given back on the way, which is most of the work."""
    monkeypatch.setattr(_index, "_SPARE_BYTES", -(1 << 30))
    monkeypatch.setattr(_log, "_KEEP_BYTES", 4096)
    action, new = ACTIONS[name]
    padding = {n: bytes(9000) for n in range(5)}
    shared = SharedDict(OLD | padding)
    seen, runs = set(), set()

    def check(step):
        value = shared.copy()
        assert value in (OLD | padding, new | padding), f"step {step}"
        seen.add(value == new | padding)
        with shared.locked(timeout=1) as view:
            view.value = OLD | padding
        runs.add(shared._index.state.position[_log.RUN])
        assert shared.copy() == OLD | padding, f"step {step}"

    assert killed_at_every_step(lambda: action(shared), check, stride=7) > 40
    assert seen == {True, False}
    assert len(runs) > 40


def test_a_kill_at_any_step_of_the_first_store():
    shared = SharedDict()

    def check(step):
        nonlocal shared
        assert shared.copy() in ({}, OLD), f"step {step}"
        shared.update(b=1)
        assert shared["b"] == 1
        shared = SharedDict()

    assert killed_at_every_step(lambda: shared.update(OLD), check, stride=5) > 40


def test_a_kill_while_catching_up_harms_nobody():
    shared = SharedDict(OLD)

    def check(step):
        assert shared["a"] == {"n": 1}
        shared.update(f=step, g=1)
        shared["a"] = {"n": 1}

    def action():
        shared._index.state = _index.State(_log.BEGIN, {}, 0, 0)
        assert shared["a"] == {"n": 1}

    assert killed_at_every_step(action, check, stride=7) > 20


@pytest.mark.parametrize("exception", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("name", ["one key", "a block"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_at_any_step_leaves_the_lock_free_and_all_or_nothing(name, exception):
    action, new = ACTIONS[name]
    shared = SharedDict(OLD)
    step, sprung = 0, True

    def spring():
        nonlocal sprung
        sprung = True
        raise exception

    while sprung:
        step += 1
        sprung = False
        try:
            with trap(step, spring):
                action(shared)
        except exception:
            pass
        assert shared._region.lock.claim is None, f"step {step}"
        assert shared.copy() in (OLD, new), f"step {step}"
        _back(shared)
    assert step > 100


def test_a_planted_bug_is_caught_by_the_sweep(monkeypatch):
    """An append that stores the version before the record must not pass."""
    shared = SharedDict(OLD)
    real = _log.Log.append_one

    def broken(log, key, value, position):
        log._map[position[_log.END] - 20 : position[_log.END]] = b"t" * 20
        return real(log, key, value, position)

    monkeypatch.setattr(_log.Log, "append_one", broken)

    def check(step):
        assert shared.copy() in (OLD, ACTIONS["one key"][1])

    with pytest.raises((AssertionError, CorruptRegionError)):
        killed_at_every_step(lambda: ACTIONS["one key"][0](shared), check, stride=10)
