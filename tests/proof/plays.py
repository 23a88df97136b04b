"""What the actors of `schedules` do: writers and readers of one share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from blobs import Blob
from stepping import Points
from support import inside
from support.inside import VERSION

from mmapshare import Share, SharedDict, VersionConflict

TOUCHED_BYTES = 40_000
Value = Callable[[int], dict[str, Any]]
Act = Callable[[Any, Value], Any]


@attrs.define
class Play:
    """What the actors do, each for itself.

    Attributes:
        make: the share as it stands in the beginning, with the value of its version.
        writers: they commit ``commits`` versions together.
        readers: each returns a version and its value.
        value: what is committed as a version.
        points: where they stop.
        aware: writers stop at what they read too.
        warm: everybody has read before what was there.
    """

    make: Callable[[Value], Any]
    writers: Sequence[Act]
    readers: Sequence[Act]
    commits: int = 2
    points: Points = attrs.Factory(Points)
    value: Value = attrs.field(kw_only=True)
    aware: bool = False
    warm: bool = True


def small(version: int) -> dict[str, Any]:
    """Other bytes from end to end, and as many of them."""
    return {"n": version, "pad": f"{version:03}" * 30}


def number(version: int) -> dict[str, Any]:
    """One key alone."""
    return {"n": version}


def large_first(version: int) -> dict[str, Any]:
    """Large, then small."""
    return {"n": version, "pad": f"{version:03}" * (20_000 if version == 1 else 30)}


def array(version: int) -> dict[str, Any]:
    """Frames out of band, and their table."""
    return {"n": version, "pad": bytearray([version]) * 5000, "more": bytearray([version]) * 4500}


def blob(version: int) -> dict[str, Any]:
    """What can be held; another one from end to end."""
    return {"n": version, "pad": Blob(bytearray([version]) * 5000)}


def touched(version: int) -> dict[str, Any]:
    """What can be held; another one in two pages of many."""
    raw = bytearray(TOUCHED_BYTES)
    raw[0] = raw[TOUCHED_BYTES // 2] = version
    return {"n": version, "pad": Blob(raw)}


def _share(value: Value) -> Any:
    return Share(value(1))


def _dict(value: Value) -> Any:
    return SharedDict(value(1))


def _each_moves(value: Value) -> Any:
    """No record fits behind the one before it: each goes to the other area."""
    inside.put("WINDOW_LEAST", 64)
    inside.put("WINDOW_RECORDS", 1)
    return _share(value)


def _large(value: Value) -> Any:
    """Values of this size can be held."""
    inside.put("LARGE_BYTES", 4096)
    return _share(value)


def _large_keys(value: Value) -> Any:
    """The same in a dict, where two patches find no end."""
    inside.put("LARGE_BYTES", 4096)
    inside.put("SPENT_PART", 0.5)
    return _dict(value)


def _gives_back(value: Value) -> Any:
    inside.put("WINDOW_LEAST", 64)
    inside.put("WINDOW_RECORDS", 1)
    inside.put("VALUE_KEEP_BYTES", 4096)
    return _share(value)


def _rewrites(value: Value) -> Any:
    """Each commit writes a new snapshot."""
    inside.put("SPARE_BYTES", -(1 << 30))
    inside.put("LOG_KEEP_BYTES", 4096)
    return _dict(value)


# --- Writers -----------------------------------------------------------------------------------


def _sets(*versions: int) -> Act:
    return lambda share, value: [share.set(value(version)) for version in versions]


def _updates(*versions: int) -> Act:
    return lambda share, value: [share.update(value(version)) for version in versions]


def _adds(share: Any, value: Value) -> None:
    with share.locked() as view:
        view.value = value(view["n"] + 1)


def _touches_twice(share: Any, value: Value) -> None:
    """Write some pages of the draft: the first time aside, then over the version before."""
    for _ in range(2):
        _touches(share)


def _touches(share: Any) -> None:
    with share.locked() as view:
        view["n"] += 1
        raw = view["pad"].raw
        raw[0] = raw[TOUCHED_BYTES // 2] = view["n"]


def _touches_and_rewrites(share: Any, value: Value) -> None:
    """Write some pages of a key's value, and then everything anew."""
    _touches(share)
    inside.put("SPARE_BYTES", -(1 << 30))
    _touches(share)


def _adds_optimistically(share: Any, value: Value) -> None:
    share.update(lambda found: value(found["n"] + 1), optimistic=True)


def _adds_by_transact(share: Any, value: Value) -> None:
    share.transact(lambda view: view.update(value(view["n"] + 1)))


def _adds_by_compare_and_set(share: Any, value: Value) -> None:
    while True:
        seen = share.snapshot()
        try:
            share.set(value(seen.value["n"] + 1), if_version=seen.version)
        except VersionConflict:
            continue
        return


# --- Readers -----------------------------------------------------------------------------------


def _gets(share: Any, value: Value) -> Any:
    found = share.get()
    return found["n"], found


def _snapshots(share: Any, value: Value) -> Any:
    snapshot = share.snapshot()
    return snapshot.version, dict(snapshot.value if isinstance(share, Share) else snapshot)


def _holds(share: Any, value: Value) -> Any:
    """What is held is told when a writer may have gone on."""
    snapshot = share.snapshot(copy=False)
    for _ in range(3):
        assert share.version >= snapshot.version
    return snapshot.version, snapshot.value


def _holds_key(share: Any, value: Value) -> Any:
    """The same of one key, which tells what belongs to it."""
    pad = share.get("pad", copy=False)
    for _ in range(3):
        assert share.version >= pad.raw[0]
    return pad.raw[0], {"n": pad.raw[0], "pad": pad}


def _gets_item(share: Any, value: Value) -> Any:
    found = share["n"]
    return found, {"n": found}


ONLY_VERSION = Points(frozenset({VERSION}), slot=0, record=0, lock=True)

PLAYS: dict[str, Callable[[], Play]] = {
    "three sets": lambda: Play(_share, [_sets(2, 3, 4)], [_gets], 3, value=small),
    "halves of values": lambda: Play(
        _share, [_sets(2, 3)], [_gets], points=Points(record=2), value=small
    ),
    "halves of slots": lambda: Play(
        _share,
        [_sets(2, 3)],
        [_snapshots],
        points=Points(slot=2, record=0),
        value=small,
        warm=False,
    ),
    "other area": lambda: Play(_each_moves, [_sets(2, 3)], [_gets], value=small, warm=False),
    "other area, read in halves": lambda: Play(
        _each_moves, [_sets(2, 3)], [_gets], points=Points(record=2), value=small, warm=False
    ),
    "memory given back": lambda: Play(
        _gives_back, [_sets(2)], [_gets], 1, value=large_first, warm=False
    ),
    "arrays": lambda: Play(_each_moves, [_sets(2, 3)], [_gets], value=array),
    "held": lambda: Play(_large, [_sets(2, 3)], [_holds], points=Points(holds=True), value=blob),
    "held, and written by pages": lambda: Play(
        _large, [_touches_twice], [_holds], points=Points(holds=True), value=touched
    ),
    "read, and written by pages": lambda: Play(_large, [_touches_twice], [_gets], value=touched),
    "key held, and patched": lambda: Play(
        _large_keys, [_touches_twice], [_holds_key], points=Points(holds=True), value=touched
    ),
    "key held, and patched, by who comes late": lambda: Play(
        _large_keys,
        [_touches_and_rewrites],
        [_holds_key],
        points=Points(holds=True),
        value=touched,
        warm=False,
    ),
    "keys read, and patched": lambda: Play(
        _large_keys, [_touches_and_rewrites], [_snapshots], value=touched
    ),
    "two blocks": lambda: Play(
        _share, [_adds, _adds], [_gets], points=Points(lock=True), value=small
    ),
    "two optimistic updates": lambda: Play(
        _share, [_adds_optimistically] * 2, [], points=ONLY_VERSION, value=small, aware=True
    ),
    "two compare-and-sets": lambda: Play(
        _share, [_adds_by_compare_and_set] * 2, [], points=ONLY_VERSION, value=small, aware=True
    ),
    "one key": lambda: Play(_dict, [_updates(2, 3)], [_gets_item], value=number),
    "several keys": lambda: Play(_dict, [_updates(2, 3)], [_snapshots], value=small),
    "late reader": lambda: Play(_dict, [_updates(2, 3)], [_snapshots], value=small, warm=False),
    "snapshots of keys": lambda: Play(_rewrites, [_updates(2, 3)], [_gets_item], value=number),
    "late reader of snapshots": lambda: Play(
        _rewrites, [_updates(2, 3)], [_snapshots], value=small, warm=False
    ),
    "two transacts": lambda: Play(
        _dict, [_adds_by_transact] * 2, [], points=ONLY_VERSION, value=small, aware=True
    ),
}
