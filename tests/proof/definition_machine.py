"""Three processes make, edit, store, read and drop classes, and fork one another: hypothesis looks
for a value that is loaded with another class than its writer's.

The processes stand in slots, whose pipes all have, so that each may be forked into any slot. The
model knows by number which classes each has, and how often they have been edited there.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools
import os
import pickle
import sys
import traceback
from typing import Any

from hypothesis import stateful
from hypothesis import strategies as st
from two_workers import turn

from mmapshare import SharedDict

SLOTS = range(3)
NAMES = st.sampled_from(["Task", "Job"])
KEYS = st.sampled_from(["a", "b", "c"])
SLOT = st.sampled_from(SLOTS)
CELLS = {
    "data": "class {name}:\n    tag = {n}",
    "private": "class {name}:\n    _n = [{n}]\n    tag = property(lambda self: self._n[0])",
    "method": "class {name}:\n    def tag(self): return {n}",
    "closure": (
        "def outer(cell):\n    global {name}\n    class {name}:\n"
        "        def tag(self): return cell[0]\nouter([{n}])"
    ),
    "default": "class {name}:\n    def tag(self, *, cell={{1: {n}}}): return cell[1]",
    "global": "G{name} = [{n}]\nclass {name}:\n    def tag(self): return G{name}[0]",
    "derived": "class Base:\n    tag = {n}\nclass {name}(Base): pass",
    "meta": "class M(type):\n    n = {n}\nclass {name}(metaclass=M):\n"
    "    tag = property(lambda self: type(type(self)).n)",
    "type": "{name} = type('{name}', (), {{'tag': {n}}})",
    "dataclass": "import dataclasses\n"
    "{name} = dataclasses.make_dataclass('{name}', [('tag', int, {n})])",
    "row": "import collections\n{name} = collections.namedtuple('{name}', 'tag', defaults=[{n}])",
    "enum": "import enum\nclass {name}(enum.Enum):\n    ONLY = frozenset([{n}])\n"
    "    tag = property(lambda self: min(self.value))",
    "ring": "class {name}:\n    tag = {n}\n    def other(self): return Other()\n"
    "class Other:\n    def other(self): return {name}",
}


def _instance(cls: Any) -> Any:
    return cls.ONLY if hasattr(cls, "ONLY") else cls()


def _tag(value: Any) -> Any:
    return value.tag() if callable(value.tag) else value.tag


class _Worker:
    """What a process in a slot does."""

    def __init__(self, shared: Any, pipes: Any) -> None:
        self.shared, self.pipes = shared, pipes
        self.classes: dict[int, Any] = {}

    def make(self, number: int, name: str, kind: str, n: int) -> None:
        main = vars(sys.modules["__main__"])
        exec(CELLS[kind].format(name=name, n=n), main)
        self.classes[number] = main[name]

    def edit(self, number: int, n: int) -> None:
        self.classes[number].tag = lambda self: n

    def drop(self, number: int) -> None:
        del self.classes[number]
        gc.collect()

    def store(self, number: int, key: str, beside: Any) -> Any:
        value = _instance(self.classes[number])
        self.shared[key] = [value, value, beside, (lambda: beside)]
        return _tag(value)

    def read(self, key: str, block: bool) -> Any:
        if block:
            with self.shared.locked() as view:
                found = view[key]
        else:
            found = self.shared[key]
        value, again, beside, function = found
        assert value is again
        assert function() == beside
        numbers = [number for number, cls in self.classes.items() if cls is type(value)]
        return _tag(value), numbers, beside

    def fork(self, slot: int) -> int:
        pid = os.fork()
        if pid == 0:
            gc.freeze()  # What is there stays; looking through it takes longer than all else.
            _serve(self, slot)
        return pid


def _send(fd: int, message: Any) -> None:
    raw = pickle.dumps(message)
    os.write(fd, len(raw).to_bytes(4, "little") + raw)


def _receive(fd: int) -> Any:
    size = int.from_bytes(os.read(fd, 4), "little")
    raw = b""
    while len(raw) < size:
        raw += os.read(fd, size - len(raw))
    return pickle.loads(raw)


def _serve(worker: _Worker, slot: int) -> None:
    """Do what is asked for until told to end; never returns."""
    (commands, _), (_, answers) = worker.pipes[slot]
    try:
        while True:
            name, *args = _receive(commands)
            if name == "end":
                _send(answers, ("done", None))  # From now on another one may hear here.
                break
            try:
                answer = "done", getattr(worker, name)(*args)
            except BaseException:
                answer = "failed", traceback.format_exc()
            _send(answers, answer)
    finally:
        os._exit(0)


class DefinitionMachine(stateful.RuleBasedStateMachine):
    """The model: by slot the numbers of classes by name, and how each one has been edited."""

    steps = 0
    shared: Any = None

    @stateful.initialize(spare=st.sampled_from([0, 2000]), hot=st.sampled_from([1, 4, 256]))
    def start(self, spare: int, hot: int) -> None:
        knobs = [("SPARE_BYTES", spare), ("HOT_MOST", hot)]
        self.before = turn(knobs)
        self.shared = SharedDict()
        self.pipes = [(os.pipe(), os.pipe()) for _ in SLOTS]
        self.numbers = itertools.count(1)
        self.names: list[dict[str, int]] = [{} for _ in SLOTS]
        self.edits: list[dict[int, int]] = [{} for _ in SLOTS]
        self.stored: dict[str, tuple[Any, int, int, int]] = {}
        worker = _Worker(self.shared, self.pipes)
        self.pids = [worker.fork(slot) for slot in SLOTS]
        self.waited_for = set(self.pids)

    def ask(self, slot: int, *message: Any) -> Any:
        (_, commands), (answers, _) = self.pipes[slot]
        _send(commands, message)
        how, found = _receive(answers)
        assert how == "done", found
        return found

    @stateful.rule(slot=SLOT, name=NAMES, kind=st.sampled_from(sorted(CELLS)))
    def make(self, slot: int, name: str, kind: str) -> None:
        """Also a cell that is run again; what it defined before is still in use."""
        number = next(self.numbers)
        self.ask(slot, "make", number, name, kind, number % 3)
        self.names[slot][name] = number
        self.edits[slot][number] = 0

    @stateful.rule(slots=st.permutations(SLOTS), name=NAMES, kind=st.sampled_from(sorted(CELLS)))
    def make_alike(self, slots: list[int], name: str, kind: str) -> None:
        """In two processes at once: memory is laid out alike, the more so after a fork."""
        self.fork(slots[0], slots[1])
        for slot in slots[:2]:
            self.make(slot, name, kind)

    @stateful.rule(slot=SLOT, name=NAMES)
    def edit(self, slot: int, name: str) -> None:
        number = self.names[slot].get(name)
        if number is not None:
            edit = next(self.numbers)
            self.ask(slot, "edit", number, edit)
            self.edits[slot][number] = edit

    @stateful.rule(slot=SLOT, name=NAMES)
    def drop(self, slot: int, name: str) -> None:
        """Its name remains, in the program's module."""
        number = self.names[slot].pop(name, None)
        if number is not None:
            self.ask(slot, "drop", number)
            del self.edits[slot][number]

    @stateful.rule(slots=st.permutations(SLOTS))
    def forks(self, slots: list[int]) -> None:
        self.fork(slots[0], slots[1])

    def fork(self, source: int, slot: int) -> None:
        self._end(slot)
        self.pids[slot] = self.ask(source, "fork", slot)
        self.names[slot] = dict(self.names[source])
        self.edits[slot] = dict(self.edits[source])

    @stateful.rule(slot=SLOT, name=NAMES, key=KEYS)
    def store(self, slot: int, name: str, key: str) -> None:
        number = self.names[slot].get(name)
        if number is not None:
            beside = next(self.numbers)
            tag = self.ask(slot, "store", number, key, beside)
            self.stored[key] = (tag, number, self.edits[slot][number], beside)

    @stateful.rule(key=KEYS)
    def take_out(self, key: str) -> None:
        if self.stored.pop(key, None) is not None:
            del self.shared[key]

    @stateful.rule(slot=SLOT, block=st.booleans())
    def read(self, slot: int, block: bool) -> None:
        version, edited = self.shared.version, False
        for key, (tag, number, edit, beside) in copy.copy(self.stored).items():
            found, numbers, with_it = self.ask(slot, "read", key, block)
            assert with_it == beside
            edits = self.edits[slot]
            if edits.get(number) == edit:
                assert numbers == [number], (numbers, number)  # It is the very class.
            elif number not in edits:
                assert not numbers, (numbers, number)
            elif numbers:
                # It has edited the class after it had met the value: it is its own all the same.
                assert numbers == [number], (numbers, number)
                edited = True
                continue
            assert found == tag, (key, found, tag)
        assert edited or self.shared.version == version, "a look was a commit"

    def _end(self, slot: int) -> None:
        self.ask(slot, "end")
        if self.pids[slot] in self.waited_for:
            os.waitpid(self.pids[slot], 0)
            self.waited_for.discard(self.pids[slot])

    def teardown(self) -> None:
        if self.shared is None:
            return
        for slot in SLOTS:
            with contextlib.suppress(OSError):
                self._end(slot)
        for pair in self.pipes:
            for fd in itertools.chain(*pair):
                os.close(fd)
        self.shared.close()
        turn(self.before)

    @stateful.invariant()
    def a_step_is_made(self) -> None:
        type(self).steps += 1
