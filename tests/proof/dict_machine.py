"""Two workers on a `SharedDict` against a plain dict: hypothesis looks for what goes wrong."""

import contextlib
import copy

from hypothesis import stateful
from hypothesis import strategies as st
from two_workers import SIDES, TwoWorkers

from mmapshare import SharedDict

KEYS = st.sampled_from(["a", "b", "c", 1, 1.0, True, (1, 2), None])
VALUES = st.one_of(st.integers(), st.text(max_size=20), st.lists(st.integers(), max_size=3))


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


def _work(child, shared, what, operations):
    if what == "block":
        with shared.locked() as view:
            found = _apply(view, operations)
    elif what == "transaction":
        found = shared.transact(_apply, operations)
    elif what == "dying":
        with shared.locked() as view:
            child.say(_apply(view, operations))
            child.hear()
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
    else:
        snapshot = shared.snapshot()
        found = (
            list(shared.items()),
            list(snapshot.items()),
            [shared[key] for key in shared],
            len(shared),
            snapshot.version,
        )
    child.say(found)


def _single(shared, operation):
    if operation[0] in {"append", "len"}:
        with shared.locked() as view:
            return _apply(view, [operation])
    return _apply(shared, [operation])


class DictMachine(TwoWorkers):
    work = staticmethod(_work)

    @stateful.initialize(items=st.dictionaries(KEYS, VALUES), spare=st.sampled_from([0, 200, 5000]))
    def start(self, items, spare):
        self.model = dict(items)
        self.version = int(bool(items))
        self.deaths = 0
        self.begin(SharedDict(items), [("SPARE_BYTES", spare)])

    @contextlib.contextmanager
    def _committing(self, most=1):
        """What is done here to the model is at most so many commits; none if nothing changes."""
        before = list(map(repr, self.model.items()))
        yield
        # A key that was taken out and set again is a commit, though it may look the same.
        least = before != list(map(repr, self.model.items()))
        version = self.shared.version
        assert least <= version - self.version <= most
        self.version = version

    @stateful.rule(side=SIDES, operations=st.lists(OPERATIONS, max_size=5))
    def block(self, side, operations):
        with self._committing():
            assert self.ask(side, "block", operations) == _apply(self.model, operations)

    @stateful.rule(side=SIDES, operations=st.lists(OPERATIONS, max_size=5))
    def transaction(self, side, operations):
        with self._committing():
            assert self.ask(side, "transaction", operations) == _apply(self.model, operations)

    @stateful.rule(side=SIDES, operations=st.lists(OPERATIONS, max_size=5))
    def single(self, side, operations):
        with self._committing(most=len(operations)):
            expected = [_apply(self.model, [operation]) for operation in operations]
            assert self.ask(side, "single", operations) == expected

    @stateful.rule(
        side=SIDES,
        what=st.sampled_from(["undone", "rolled back", "dying"]),
        operations=st.lists(OPERATIONS, max_size=5),
    )
    def nothing(self, side, what, operations):
        unchanged = copy.deepcopy(self.model)
        with self._committing(most=0):
            found = self.ask(side, what, operations)
            if what == "dying":  # First: it waits in its block, whatever it found.
                self.replace(side)
                self.deaths += 1
            assert found == _apply(unchanged, operations)

    @stateful.rule(side=SIDES)
    def read(self, side):
        items, again, values, count, version = self.ask(side, "read", None)
        assert items == again == list(self.model.items())
        assert [type(key) for key, _ in items] == [type(key) for key in self.model]
        assert values == list(self.model.values())
        assert count == len(self.model)
        assert version == self.version

    @stateful.invariant()
    def the_parent_sees_it(self):
        if self.shared is not None:
            assert list(self.shared.items()) == list(self.model.items())
            assert self.shared.version == self.version
            assert self.deaths - 1 <= self.shared.info().holders_found_dead <= self.deaths
