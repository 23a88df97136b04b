"""What the order of memory on 64-bit ARM allows: small programs, each of their executions judged.

An x86 shows stores in the order of the program, and so does an emulator on one: a fence that is
missing cannot be seen there by running anything. So the loads, stores and fences of a reader and a
writer are written down here as they are compiled, two words where there are many, and every way in
which the loads could find the stores is put before the axioms of the AArch64 model (Arm's manual,
B2.3; `aarch64.cat` of herd7 says the same): 1. by each location alone, an order of the program's;
2. what others observe, and what fences, acquire, release and addresses order, has no circle.

Left out are ordering by conditions and by stores to one location, which only ARM's side would
gain by: what is forbidden here is forbidden there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

FULL, LOADS = "dmb ish", "dmb ishld"


@dataclass(frozen=True)
class Op:
    """A load (with a name for what it finds), a store, or a fence."""

    kind: str
    place: str = ""
    value: int = 0
    name: str = ""
    ordered: bool = False
    """A load that acquires, a store that releases."""
    by: str = ""
    """The load whose value the address comes from."""
    part: str = ""
    """What it is of, where it can be left out, or weakened to a plain load or store."""


def load(name: str, place: str, *, acquire: bool = False, by: str = "", part: str = "") -> Op:
    return Op("load", place, name=name, ordered=acquire, by=by, part=part)


def store(place: str, value: int, *, release: bool = False, part: str = "") -> Op:
    return Op("store", place, value, ordered=release, part=part)


def fence(kind: str, part: str = "") -> Op:
    return Op(kind, part=part)


Thread = Sequence[Op]
Found = dict[str, int]
Edges = set[tuple[int, int]]


def without(threads: Iterable[Thread], part: str) -> list[list[Op]]:
    """The same, where that part is no fence any more, or a plain load or store."""
    weaker = []
    for ops in threads:
        kept = [op for op in ops if op.part != part or op.kind in {"load", "store"}]
        weaker.append([Op(op.kind, op.place, op.value, op.name, op.ordered and op.part != part,
                          op.by, op.part) for op in kept])  # fmt: skip
    return weaker


def parts_of(threads: Iterable[Thread]) -> list[str]:
    """All that can be left out, in order."""
    return list(dict.fromkeys(op.part for ops in threads for op in ops if op.part))


def _ordered(ops: Thread, first: int) -> Edges:
    """What one thread orders, by the numbers of its operations from ``first`` on."""
    edges = set()
    for (i, a), (j, b) in itertools.combinations(enumerate(ops), 2):
        if a.kind not in {"load", "store"} or b.kind not in {"load", "store"}:
            continue
        between = {op.kind for op in ops[i + 1 : j]}
        through = {op.by for op in ops[i + 1 : j]}  # An address in between holds back stores.
        if (
            FULL in between
            or (LOADS in between and a.kind == "load")
            or (a.ordered and a.kind == "load")
            or (b.ordered and b.kind == "store")
            or (a.ordered and b.ordered)  # A release, then an acquire.
            or (a.kind == "load" and b.by == a.name)
            or (a.kind == "load" and b.kind == "store" and a.name in through)
        ):
            edges.add((first + i, first + j))
    return edges


def _has_circle(edges: Edges) -> bool:
    after: dict[int, list[int]] = {}
    for a, b in edges:
        after.setdefault(a, []).append(b)
    state: dict[int, int] = {}

    def walk(one: int) -> bool:
        state[one] = 1
        for other in after.get(one, ()):
            if state.get(other) == 1 or (other not in state and walk(other)):
                return True
        state[one] = 2
        return False

    return any(one not in state and walk(one) for one in after)


class Execution:
    """The operations of some threads, numbered; before them what stood in memory."""

    def __init__(self, start: Found, threads: Sequence[Thread]) -> None:
        places = {op.place for ops in threads for op in ops if op.place}
        self.ops = [store(place, start.get(place, 0)) for place in sorted(places)]
        self.thread = [-1] * len(self.ops)
        self.same: Edges = set()
        """Pairs of one thread at one place, in order."""
        self.ordered: Edges = set()
        for number, ops in enumerate(threads):
            first = len(self.ops)
            self.ordered |= _ordered(ops, first)
            self.ops += ops
            self.thread += [number] * len(ops)
            for (i, a), (j, b) in itertools.combinations(enumerate(ops), 2):
                if a.place and a.place == b.place:
                    self.same.add((first + i, first + j))
        self.loads = [i for i, op in enumerate(self.ops) if op.kind == "load"]
        self.stores: dict[str, list[int]] = {place: [] for place in places}
        for i, op in enumerate(self.ops):
            if op.kind == "store":
                self.stores[op.place].append(i)

    def _orders(self) -> Iterator[dict[int, int]]:
        """Every order of the stores to each place, as what comes where; the first was there."""
        choices = []
        for first, *others in self.stores.values():
            orders = []
            for order in itertools.permutations(others):
                rank = {one: n for n, one in enumerate((first, *order))}
                pairs = itertools.combinations(others, 2)
                if all(rank[a] < rank[b] for a, b in pairs if self.thread[a] == self.thread[b]):
                    orders.append(rank)
            choices.append(orders)
        for ranks in itertools.product(*choices):
            yield {one: n for rank in ranks for one, n in rank.items()}

    def can(self, is_bad: Callable[[Found], bool]) -> bool:
        """Whether some execution finds what is bad."""
        orders = list(self._orders())
        sources = [self.stores[self.ops[i].place] for i in self.loads]
        for chosen in itertools.product(*sources):
            found = {self.ops[i].name: self.ops[s].value for i, s in zip(self.loads, chosen)}
            if is_bad(found):
                source = dict(zip(self.loads, chosen))
                if any(self._is_allowed(source, rank) for rank in orders):
                    return True
        return False

    def _is_allowed(self, source: dict[int, int], rank: dict[int, int]) -> bool:
        met: Edges = {(s, i) for i, s in source.items()}
        for i, s in source.items():
            met |= {(i, w) for w in self.stores[self.ops[i].place] if rank[w] > rank[s]}
        for stores in self.stores.values():
            met |= {(a, b) for a in stores for b in stores if rank[a] < rank[b]}
        if _has_circle(met | self.same):
            return False
        others = {(a, b) for a, b in met if self.thread[a] != self.thread[b]}
        return not _has_circle(others | self.ordered)


def can(start: Found, threads: Sequence[Thread], is_bad: Callable[[Found], bool]) -> bool:
    """Whether ARM lets these threads find what is bad."""
    return Execution(start, threads).can(is_bad)


# --- What is done in the core, and in Python, as it is compiled ----------------------------------


def in_order(part: str = "", *, at: str = "a lock") -> list[Op]:
    """`_store.areas.in_order`: a lock let go of, and taken once more."""
    if not part:
        return [store(at, 1, release=True), load(f"{at} taken", at, acquire=True)]
    return [store(at, 1, release=True, part=part), load(f"{at} taken", at, acquire=True, part=part)]


def syscall(of: str) -> list[Op]:
    """A system call that takes a lock of the kernel's and lets go of it; no more is certain."""
    at = f"kernel, {of}"
    return [load(f"{at} taken", at, acquire=True), store(at, 1, release=True)]


HANDED: Final = "flock"


def hand_over() -> Op:
    """flock is let go of: all that was done before comes before."""
    return store(HANDED, 1, release=True)


def taken_over(name: str = "handed") -> Op:
    """flock is had, if what it finds is 1; then all that comes from here on comes behind."""
    return load(name, HANDED, acquire=True)
