"""The regions that `mutants` damages, and what is done with them before and after.

A region is made by some commits. At each of them it is remembered as a `Stage`: its bytes, and
what a process that had just read it would keep in mind. What a right answer is, is not written
down: every act is done at every stage of the region while it is whole, by a process that has
never seen it, and what comes out is what is right at that version.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from support import inside

from mmapshare import EmptyShareError, MmapShareError, Share, SharedDict, locked

SLACK_BYTES = 4096
STRAY = pickle.dumps("these bytes were never committed".ljust(200)).ljust(256, b".")
"""Stands wherever nothing was committed: it loads well, and is nobody's value."""
assert SLACK_BYTES % len(STRAY) == 0


class Parts:
    """A value whose buffers are stored as frames of their own."""

    def __init__(self, name: str, *buffers: Any) -> None:
        self.name = name
        self.buffers = [bytes(buffer) for buffer in buffers]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parts) and vars(self) == vars(other)

    def __reduce_ex__(self, protocol: int) -> Any:
        return Parts, (self.name, *map(pickle.PickleBuffer, self.buffers))

    def __repr__(self) -> str:
        return f"Parts({self.name!r}, {len(self.buffers)})"


def parts(name: str, *sizes: int) -> Parts:
    return Parts(name, *(name[-1:].encode() * size for size in sizes))


@attrs.define
class Stage:
    """A region as it was at one version: pieces of its bytes, and a process's memory of it."""

    pieces: list[tuple[int, bytes]]
    mind: Any


class Damaged:
    """One region with its stages, to be damaged, used and put back.

    Attributes:
        share: what it is used through.
        stages: by version; the last one is what is damaged.
        heads: begin and end of what the format checks: tables, heads of records, directories.
        payload: begin and end of what it does not check.
    """

    def __init__(self, share: Any, steps: Sequence[Callable[[Any], object]]) -> None:
        self.share = share
        self.store = inside.store_of(share)
        self.map = inside.map_of(self.store)
        self.handle = pickle.dumps(share)
        self.stages: list[Stage] = []
        used = [0, 0]
        self._remember(used)
        for step in steps:
            step(share)
            self._remember(used)
        assert share.version == len(self.stages) - 1
        self.heads, self.payload = _zones(self.store)

    def _remember(self, used: list[int]) -> None:
        """This version, with stray bytes behind all that was committed until now."""
        head = inside.load_slot(self.store)
        if head is not None:
            area = inside.area_of(head.start, inside.area_bytes_of(self.store))
            used[area] = max(used[area], head.end - inside.area_start(self.store, area))
        pieces = [(0, self.map[: inside.HEADER_BYTES])]
        for area in (0, 1):
            begin = inside.area_start(self.store, area)
            end = begin + used[area]
            slack = STRAY * (SLACK_BYTES // len(STRAY))
            pieces.append((begin, self.map[begin:end] + slack))
        self.stages.append(Stage(pieces, _mind(self.share)))

    def put_back(self, version: int, mind: int | None) -> None:
        """The region as it was at one version, for a process that last read ``mind``, or never."""
        for begin, piece in self.stages[version].pieces:
            self.map[begin : begin + len(piece)] = piece
        _bear_in_mind(self.share, None if mind is None else self.stages[mind].mind)

    def opened_anew(self) -> Any:
        """The share as a process that is given its handle opens it."""
        inside.open_here.pop(self.store.region_id, None)
        share = pickle.loads(self.handle)
        inside.reach_handle(share)  # Loading raises nothing.
        return share

    def close_again(self, other: Any) -> None:
        other.close()
        inside.register_open(self.share)


def _zones(store: Any) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    head = inside.load_slot(store)
    if head is None:
        return [], []
    if not isinstance(store, inside.Index):
        frames = inside.extents(store, head)
        return [(head.start, frames[0][0])] if len(frames) > 1 else [], frames
    heads, payload = [], []
    newest = store.log.newest()
    begin = newest[inside.LOG_BASE]
    for raw, values_at, end, _ in store.log.records(begin, newest[inside.LOG_EPOCH], newest):
        heads.append((begin, begin + inside.RECORD_BYTES + len(raw)))
        if end > values_at:
            payload.append((values_at, end))
        begin = end + 7 & -8
    return heads, payload


def _mind(share: Any) -> Any:
    store = inside.store_of(share)
    if not isinstance(share, SharedDict):
        return inside.commit_of(store), inside.seen_of(store)
    return _copied(store.current())


def _bear_in_mind(share: Any, mind: Any) -> None:
    store = inside.store_of(share)
    if not isinstance(share, SharedDict):
        commit, seen = mind or (inside.UNREAD_COMMIT, inside.NOTHING_SEEN)
        inside.commit_of.set(store, commit)
        inside.seen_of.set(store, seen)
    else:
        store.state = _copied(mind) if mind else inside.unread_state(store)


def forget(share: Any) -> None:
    """Read the region again, as one does who has never seen it."""
    _bear_in_mind(share, None)


def _copied(state: inside.State) -> inside.State:
    copy = inside.State(state.position, inside.Places(state.places), 0, 0)
    for name in ("version", "live", "dead", "snapshot_keys", "most"):
        setattr(copy, name, getattr(state, name))
    copy.definitions = dict(state.definitions)
    return copy


# --- What is done with them ------------------------------------------------------------------

Act = Callable[[Any], Any]


def outcome(act: Act, share: Any) -> Any:
    """What comes out of it, in a form to be compared; an error of ours or a KeyError counts too."""
    try:
        return act(share)
    except (MmapShareError, KeyError) as err:
        return err


def _info(share: Any) -> Any:
    info = share.info()
    return info.version, info.used_bytes, info.max_size, info.kind, info.commits


def _wait(share: Any) -> Any:
    assert share.wait(timeout=0) is False
    seen: list[Any] = []
    share.wait(lambda value: seen.append(_plain(value)) or True, timeout=0)
    return seen


def _plain(value: Any) -> Any:
    return dict(value) if hasattr(value, "keys") else value


def _card(share: Any) -> None:
    said = share._repr_mimebundle_()
    assert all(type(said[kind]) is str for kind in ("text/plain", "text/html"))


def _block(share: Any) -> Any:
    with share.locked(timeout=1) as view:
        return view.version, _plain(view.value)


def _block_that_sets(share: Any) -> None:
    with share.locked(timeout=1) as view:
        view.value = {"a": NEW}


def _together(share: Any) -> None:
    with locked(share, timeout=1) as (view,):
        view.value = {"a": NEW, "b": parts("of b", 5000, 9000)}


def _explicit(share: Any) -> Any:
    share.lock(timeout=1)
    try:
        return share.set(NEW)
    finally:
        share.unlock()


def _read_in_order(share: Any) -> Any:
    return [(key, share.get(key)) for key in share]


def _block_of_several(share: Any) -> None:
    with share.locked(timeout=1) as view:
        view["a"], view["new"] = NEW, parts("new", 6000)
        del view["b"]


def _transact(share: Any) -> Any:
    def work(view: Any) -> Any:
        before = view.get("b")
        view["a"] = [NEW, before]
        return before

    return share.transact(work)


NEW = {"new": [1, 2, 3], "text": "x" * 40}
LARGE = "L" * 90_000

READS: dict[bool, dict[str, Act]] = {
    False: {
        "get": lambda share: share.get(),
        "snapshot": lambda share: (share.snapshot().value, share.snapshot().version),
        "info": _info,
        "wait": _wait,
        "card": _card,
        "summary": lambda share: inside.summary(share),
        "block": _block,
    },
    True: {
        "item": lambda share: share["a"],
        "many": lambda share: [share.get(key) for key in ("b", "c", "a", "none")],
        "copy": lambda share: list(share.copy().items()),
        "len": len,
        "in": lambda share: ("a" in share, "none" in share),
        "read in order": _read_in_order,
        "items": lambda share: list(share.items()),
        "info": _info,
        "wait": _wait,
        "card": _card,
        "summary": lambda share: inside.summary(share),
        "block": _block,
    },
}
"""By whether it is a `SharedDict`."""

WRITES: dict[bool, dict[str, Act]] = {
    False: {
        "set": lambda share: share.set(NEW),
        "set large": lambda share: share.set(LARGE),
        "set parts": lambda share: share.set(parts("set", 5000, 4500)),
        "compare and set": lambda share: share.set(NEW, if_version=share.version),
        "update": lambda share: share.update(lambda value: [NEW, value]),
        "optimistic": lambda share: share.update(lambda value: [NEW, value], optimistic=True),
        "changing block": _block_that_sets,
        "together": _together,
        "lock, set, unlock": _explicit,
    },
    True: {
        "one key": lambda share: share.__setitem__("a", NEW),
        "new key": lambda share: share.__setitem__("new", NEW),
        "large": lambda share: share.__setitem__("b", LARGE),
        "parts": lambda share: share.__setitem__("a", parts("set", 5000, 4500)),
        "several": lambda share: share.update(a=NEW, b=3, z=LARGE),
        "pop": lambda share: share.pop("b"),
        "clear": lambda share: share.clear(),
        "changing block": _block_of_several,
        "transact": _transact,
        "together": _together,
    },
}

ACTS = {which: READS[which] | WRITES[which] for which in (False, True)}


def all_of_it(share: Any) -> Any:
    """The value and its version, read by one who has never seen the region."""
    forget(share)
    if isinstance(share, SharedDict):
        snapshot = share.snapshot()
        return list(snapshot.items()), snapshot.version
    try:
        snapshot = share.snapshot()
    except EmptyShareError:
        return None, 0
    return snapshot.value, snapshot.version


# --- The regions -----------------------------------------------------------------------------


def small(kind: str) -> Damaged:
    """A share with a few small values behind one another."""
    steps = [lambda share, n=n: share.set({"n": n, "pad": "x" * 50}) for n in range(3)]
    return Damaged(Share(max_size="64K", kind=kind), steps)


def first(kind: str) -> Damaged:
    """A share whose first value is there."""
    return Damaged(Share(max_size="64K", kind=kind), [lambda share: share.set([1, "one"])])


def empty(kind: str) -> Damaged:
    return Damaged(Share(max_size="64K", kind=kind), [])


def arrays(kind: str) -> Damaged:
    """A share whose values have several frames, and a table of them."""
    sizes = [(4096,), (4097, 5000), (5001, 4099, 4100)]
    steps = [lambda share, s=s: share.set(parts("arrays", *s)) for s in sizes]
    return Damaged(Share(max_size="1M", kind=kind), steps)


def wandering(kind: str) -> Damaged:
    """A share that goes to the other area with each commit, and gives back what it left."""
    inside.put("WINDOW_LEAST", 64)
    inside.put("WINDOW_RECORDS", 1)
    inside.put("VALUE_KEEP_BYTES", 64 << 10)
    inside.put("WINDOW_MOST", 64 << 10)
    steps = [lambda share, n=n: share.set([n, "x" * 300]) for n in range(4)]
    return Damaged(Share(max_size="256K", kind=kind), steps)


def keys(kind: str) -> Damaged:
    """A dict with a snapshot, and records of one key and of several behind it."""
    steps = [
        lambda share: share.update(a=1, b=[2, "two"], c="x" * 30),
        lambda share: share.__setitem__("a", {"n": 2}),
        lambda share: share.__setitem__("d", "four"),
        lambda share: share.update(b=[3], e=parts("keys", 4096, 4500)),
        lambda share: share.pop("c"),
        lambda share: share.__setitem__("a", {"n": 3}),
    ]
    return Damaged(SharedDict(max_size="1M", kind=kind), steps)


def long_directory(kind: str) -> Damaged:
    """A dict whose directories are larger than the pieces that a log is read in."""
    inside.put("LOG_WALK_BYTES", 128)
    names = [f"key {n}" for n in range(40)]
    steps = [
        lambda share: share.update(dict.fromkeys(names, 1), a=1, b=2),
        lambda share: share.__setitem__("a", 3),
        lambda share: share.update(dict.fromkeys(names[20:], "two")),
    ]
    return Damaged(SharedDict(max_size="256K", kind=kind), steps)


def compacting(kind: str) -> Damaged:
    """A dict that is written anew with each commit, in the other area."""
    inside.put("SPARE_BYTES", -(1 << 30))
    inside.put("LOG_KEEP_BYTES", 4096)
    steps = [
        lambda share: share.update(a=1, b=[2, "two"], c="x" * 9000),
        lambda share: share.__setitem__("a", 3),
        lambda share: share.pop("c"),
    ]
    return Damaged(SharedDict(max_size="256K", kind=kind), steps)


def empty_dict(kind: str) -> Damaged:
    return Damaged(SharedDict(max_size="256K", kind=kind), [])


REGIONS: dict[str, Callable[[str], Damaged]] = {
    make.__name__.replace("_", " "): make
    for make in (small, first, empty, arrays, wandering, keys, long_directory, compacting,
                 empty_dict)
}  # fmt: skip
