"""Two workers on a `Share` against `alone.Alone`: hypothesis looks for a history that goes wrong.

`do` does the same to both; whatever it is told, be it an error, must be the same.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from alone import EMPTY, UNPICKLABLE, Alone, Blob, build, told
from hypothesis import stateful
from hypothesis import strategies as st
from two_workers import SIDES, TwoWorkers

from mmapshare import MmapShareError, Share

SMALL_CEILING = 100_000
WINDOWS = st.sampled_from([(64 << 10, 16), (64, 1)])

# --- What there is to do ---------------------------------------------------------------------


def _blobs(*sizes: int) -> st.SearchStrategy[Blob]:
    kinds = st.sampled_from(["bytes", "bytearray"])
    return st.builds(Blob, kinds, st.sampled_from(sizes), st.integers(0, 255))


ATOMS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10))
KEYS = st.sampled_from(["a", "b", "c", 1])
ITEMS = st.one_of(ATOMS, _blobs(0, 10, 300, 5000), st.just(UNPICKLABLE))
VALUES = st.one_of(
    ATOMS,
    st.lists(ATOMS, max_size=3),
    st.sets(st.one_of(st.integers(), st.text(max_size=3)), max_size=5),
    st.dictionaries(KEYS, st.one_of(ATOMS, _blobs(0, 10, 20_000)), max_size=3),
    _blobs(0, 100, 5000, 70_000, 150_000),  # The last one is too large for the small ceiling.
    st.just(UNPICKLABLE),
)
CHANGES = st.one_of(
    st.tuples(st.just("replace"), VALUES),
    st.tuples(st.just("append"), st.integers()),
    st.tuples(st.just("raise")),
)
UPDATE = st.tuples(st.just("update"), CHANGES, st.booleans())
ENDINGS = st.sampled_from(["end", "raise"])
SIMPLE_ACTIONS = st.one_of(
    st.tuples(st.just("value"), VALUES),
    st.tuples(st.just("append"), st.integers()),
    st.tuples(st.just("item"), KEYS, ITEMS),
    st.tuples(st.just("drop"), KEYS),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("read")),
    st.tuples(st.sampled_from(["get", "lock"])),
    st.tuples(st.just("set"), VALUES, st.none()),
    UPDATE,
)
ACTIONS = st.recursive(
    SIMPLE_ACTIONS,
    lambda actions: st.tuples(st.just("block"), st.lists(actions, max_size=3), ENDINGS),
    max_leaves=4,
)
BLOCK = st.tuples(st.just("block"), st.lists(ACTIONS, max_size=5), ENDINGS)
SET = st.tuples(st.just("set"), VALUES, st.sampled_from([None, None, 0, -1, 1]))
READ = st.tuples(st.sampled_from(["get", "snapshot"]))
PAIR = st.tuples(
    st.just("pair"),
    st.lists(st.one_of(SET, READ, BLOCK, UPDATE, st.tuples(st.just("lock"))), max_size=3),
)
WAIT = st.tuples(st.just("wait"), st.sampled_from([None, 0, 1]))
DEATHS = st.one_of(
    st.none(),
    st.tuples(st.just("block"), st.lists(ACTIONS, max_size=3)),
    st.tuples(st.just("pair"), st.lists(st.one_of(SET, BLOCK), max_size=2)),
)


class Undo(Exception):
    pass


class Died(BaseException):
    """Stands for the kill, where a share is alone."""


def do(share: Any, operation: Any, die: Callable[[], object]) -> list[Any]:
    """What an operation on a share, or on a model of one, is told; its last word is an error."""
    found: list[Any] = []
    try:
        _do(share, operation, found, die)
    except Undo:
        found.append("undone")
    except MmapShareError as err:
        found.append((type(err).__name__, getattr(err, "found", None)))
    return found


def _do(share: Any, operation: Any, found: list[Any], die: Callable[[], object]) -> None:
    name, *given = operation
    if name == "get":
        found.append(told(share.get()))
    elif name == "snapshot":
        snapshot = share.snapshot()
        found.append((told(snapshot.value), snapshot.version))
    elif name == "set":
        value, off = given
        expected = None if off is None else share.version + off
        found.append(share.set(build(value), if_version=expected))
    elif name == "update":
        change, optimistic = given
        value = share.update(lambda value: _changed(value, change), optimistic=optimistic)
        found.append(told(value))
    elif name == "wait":
        (off,) = given
        if off is None:
            found.append(share.wait(lambda value: value == [], timeout=0))
        else:
            found.append(share.wait(since=share.version - off, timeout=0))
    elif name == "pair":
        share.lock()
        found.extend(do(share, each, die) for each in given[0])
        share.unlock()
    elif name == "lock":
        share.lock()
    elif name == "die":
        die()
    else:
        _do_block(share, *given, found, die)


def _changed(value: Any, change: Any) -> Any:
    name, *given = change
    if name == "raise":
        raise Undo
    if name == "replace":
        return build(given[0])
    if isinstance(value, list):
        value.append(given[0])
        return None
    return [given[0]]


def _do_block(
    share: Any, actions: Any, ending: str, found: list[Any], die: Callable[[], object]
) -> None:
    with share.locked() as view:
        found.append(view.version)
        for action in actions:
            try:
                found.append(_act(share, view, action, die))
            except MmapShareError as err:
                found.append(type(err).__name__)
        if ending == "raise":
            raise Undo


def _act(share: Any, view: Any, action: Any, die: Callable[[], object]) -> Any:
    name, *given = action
    if name == "value":
        view.value = build(given[0])
    elif name == "append":
        view.value = _changed(view.value, action) or view.value
    elif name == "rollback":
        view.rollback()
    elif name == "read":
        return told(view.value)
    elif name == "item" and isinstance(view.value, dict):
        view[given[0]] = build(given[1])
    elif name == "drop" and isinstance(view.value, dict):
        return told(view.value.pop(given[0], None))
    elif name not in {"item", "drop"}:
        return do(share, action, die)
    return None


# --- The machine -----------------------------------------------------------------------------


def _work(child: Any, share: Any, *operation: Any) -> None:
    def die() -> None:
        child.say("dying")
        child.hear()

    if operation[0] == "wait for":
        child.say(share.wait(since=operation[1]))
    else:
        child.say(do(share, operation, die))


def _die() -> None:
    raise Died


class ShareMachine(TwoWorkers):
    work = staticmethod(_work)

    @stateful.initialize(value=st.one_of(st.just(EMPTY), VALUES), window=WINDOWS, low=st.booleans())
    def start(self, value, window, low):
        least, records = window
        knobs = [
            ("WINDOW_LEAST", least),
            ("WINDOW_RECORDS", records),
        ]
        self.alone = Alone(EMPTY, SMALL_CEILING if low else sys.maxsize)
        self.begin(Share(max_size=SMALL_CEILING if low else "1G"), knobs)
        if value is not EMPTY:
            self.both(0, ("set", value, None))

    def both(self, side, operation):
        expected = do(self.alone, operation, _die)
        found = self.ask(side, *operation)
        assert found == expected, (found, expected)

    @stateful.rule(side=SIDES, operation=st.one_of(READ, WAIT))
    def look(self, side, operation):
        self.both(side, operation)

    @stateful.rule(side=SIDES, operation=st.one_of(SET, UPDATE))
    def change(self, side, operation):
        self.both(side, operation)

    @stateful.rule(side=SIDES, operation=BLOCK)
    def block(self, side, operation):
        self.both(side, operation)

    @stateful.rule(side=SIDES, operation=BLOCK)
    def another_block(self, side, operation):
        self.both(side, operation)

    @stateful.rule(side=SIDES, operation=PAIR)
    def explicit(self, side, operation):
        self.both(side, operation)

    @stateful.rule(side=SIDES, value=st.integers())
    def wait_for_the_other(self, side, value):
        self.tell(side, "wait for", self.alone.version)
        self.both(1 - side, ("set", value, None))
        assert self.answer(side) is True

    @stateful.rule(side=SIDES, death=DEATHS)
    def killed(self, side, death):
        if death is None:
            self.replace(side)
            return
        name, steps = death
        operation = (name, [*steps, ("die",)], *(["end"] if name == "block" else []))
        with contextlib.suppress(Died):
            do(self.alone, operation, _die)
            raise AssertionError("it lives")
        found = self.ask(side, *operation)
        self.replace(side)
        assert found == "dying"
        self.alone.die()

    @stateful.invariant()
    def the_parent_sees_it(self):
        if self.shared is not None:
            assert self.shared.version == self.alone.version
            for operation in [("get",), ("snapshot",)]:
                assert do(self.shared, operation, _die) == do(self.alone, operation, _die)
            info = self.shared.info()
            assert (info.holder_pid, info.commits) == (None, self.alone.version)
            assert info.holders_found_dead == self.alone.found_dead
