"""Two worker processes against a plain dict: hypothesis looks for a history that goes wrong."""

import contextlib
import copy

import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st
from support import Child

from mmapshare import SharedDict, _index

KEYS = st.sampled_from(["a", "b", "c", 1, 1.0, True, (1, 2), None])
VALUES = st.one_of(st.integers(), st.text(max_size=20), st.lists(st.integers(), max_size=3))
SIDES = st.sampled_from([0, 1])


class Undo(Exception):
    pass


def _apply(target, operations):
    """Do the operations to a dict, or to the view of a block; what each of them returned."""
    found = []
    for name, *args in copy.deepcopy(operations):  # What is set is the target's own.
        if name == "append":
            key, item = args
            if isinstance(target.get(key), list):
                target[key].append(item)
            else:
                target[key] = [item]
        elif name == "set":
            target[args[0]] = args[1]
        elif name == "len":
            found.append((len(target), list(target)))
        else:
            try:
                found.append(copy.deepcopy(getattr(target, name)(*args)))
            except KeyError:
                found.append(KeyError)
    return found


OPERATIONS = st.one_of(
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.just("append"), KEYS, st.integers()),
    st.tuples(st.just("pop"), KEYS),
    st.tuples(st.just("pop"), KEYS, st.just("missing")),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("setdefault"), KEYS, VALUES),
    st.tuples(st.just("popitem")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("update"), st.dictionaries(KEYS, VALUES, max_size=4)),
    st.tuples(st.just("len")),
)


def _work(child, shared):
    """Do what is heard until there is nothing more to do."""
    while True:
        what, operations = child.hear()
        if what == "block":
            with shared.locked() as view:
                found = _apply(view, operations)
        elif what == "undone":
            found = None
            with contextlib.suppress(Undo), shared.locked() as view:
                found = _apply(view, operations)
                raise Undo
        elif what == "rolled back":
            with shared.locked() as view:
                found = _apply(view, operations)
                view.rollback()
        elif what == "single":
            found = [_single(shared, operation) for operation in operations]
        elif what == "read":
            snapshot = shared.snapshot()
            found = (
                list(shared.items()),
                list(snapshot.items()),
                [shared[key] for key in shared],
                len(shared),
                shared.version == snapshot.version,
            )
        else:
            return
        child.say(found)


def _single(shared, operation):
    if operation[0] in {"append", "len"}:
        with shared.locked() as view:
            return _apply(view, [operation])
    return _apply(shared, [operation])


class TwoWorkers(stateful.RuleBasedStateMachine):
    @stateful.initialize(items=st.dictionaries(KEYS, VALUES), spare=st.sampled_from([0, 200, 5000]))
    def start(self, items, spare):
        self._spare, _index._SPARE_BYTES = _index._SPARE_BYTES, spare
        self.model = dict(items)
        self.shared = SharedDict(items)
        self.workers = [Child(_work, self.shared) for _ in range(2)]

    def teardown(self):
        if hasattr(self, "shared"):
            for worker in self.workers:
                worker.say(("stop", None))
                worker.result()
            self.shared.close()
            _index._SPARE_BYTES = self._spare

    def _ask(self, side, what, operations):
        self.workers[side].say((what, operations))
        return self.workers[side].hear()

    @stateful.rule(side=SIDES, operations=st.lists(OPERATIONS, max_size=5))
    def block(self, side, operations):
        assert self._ask(side, "block", operations) == _apply(self.model, operations)

    @stateful.rule(side=SIDES, operations=st.lists(OPERATIONS, max_size=5))
    def single(self, side, operations):
        expected = [_apply(self.model, [operation]) for operation in operations]
        assert self._ask(side, "single", operations) == expected

    @stateful.rule(
        side=SIDES,
        what=st.sampled_from(["undone", "rolled back"]),
        operations=st.lists(OPERATIONS, max_size=5),
    )
    def nothing(self, side, what, operations):
        unchanged = copy.deepcopy(self.model)
        assert self._ask(side, what, operations) == _apply(unchanged, operations)

    @stateful.rule(side=SIDES)
    def read(self, side):
        items, again, values, count, same = self._ask(side, "read", None)
        assert items == again == list(self.model.items())
        assert [type(key) for key, _ in items] == [type(key) for key in self.model]
        assert values == list(self.model.values())
        assert count == len(self.model)
        assert same

    @stateful.invariant()
    def the_parent_sees_it(self):
        if hasattr(self, "shared"):
            assert list(self.shared.items()) == list(self.model.items())


TestTwoWorkers = TwoWorkers.TestCase
TestTwoWorkers.settings = hypothesis.settings(
    max_examples=80, stateful_step_count=25, deadline=None, print_blob=True
)
