"""What histories are made of: the operations on a share or a dict, done and specified.

Each operation stands here twice: as it is done to the shared thing, with what it is told, and as
it would change the plain state of that thing, alone in the world. Values are numbers that are
never used twice, so that what is read says which write it was.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from typing import Any

import attrs
from support import inside

from mmapshare import Share, SharedDict, StoreUnreachableError, VersionConflict

Outcome = tuple[int, ...]
MISSING = -1
KEYS = ("a", "b", "c", "d")
_spread = 1


def spread(longest: int) -> None:
    """How long values may be from now on, in units of 8 bytes."""
    global _spread
    _spread = longest


def made(number: int) -> bytes | bytearray:
    """The value that stands for a number; some travel out of band."""
    kind = bytearray if number % 5 == 4 else bytes
    return kind(number.to_bytes(8, "little") * (1 + number % _spread))


def number(value: Any) -> int:
    """The number that a value stands for; the whole value is looked at."""
    if value is None:
        return MISSING
    found = int.from_bytes(value[:8], "little")
    assert value == made(found), f"{found} is torn"
    return found


@attrs.frozen
class Subject:
    """A kind of shared thing.

    Attributes:
        make: a new one, and the state that it begins in.
        kills: of processes, in one history.
        lingers_ns: for how long an act may happen after its process was gone.
        acts: how each operation is done; returns what it is told.
        specified: the operation alone: from a state and an act to the next state and the outcome.
        drawn: arguments of an operation: ``(shared, name, rng, n)``, n being a new number.
    """

    make: Callable[[random.Random], tuple[Any, Any]]
    kills: int = attrs.field(default=40, kw_only=True)
    lingers_ns: int = attrs.field(default=0, kw_only=True)
    acts: dict[str, Callable[..., Outcome]]
    specified: Callable[[Any, tuple[Any, ...]], tuple[Any, Outcome]]
    drawn: Callable[[Any, str, random.Random, int], Outcome]


# --- A share ---------------------------------------------------------------------------------


def _snapshot(share: Any) -> Outcome:
    snapshot = share.snapshot()
    return number(snapshot.value), snapshot.version


def _compare_and_set(share: Any, n: int, version: int) -> Outcome:
    try:
        return (share.set(made(n), if_version=version),)
    except VersionConflict as err:
        return MISSING, err.found


def _block(share: Any, n: int) -> Outcome:
    with share.locked() as view:
        before, version = number(view.value), view.version
        view.value = made(n)
    return before, version


def _undone(share: Any, n: int) -> Outcome:
    with contextlib.suppress(KeyError), share.locked() as view:
        before, version = number(view.value), view.version
        view.value = made(n)
        raise KeyError
    return before, version


def _explicit(share: Any, n: int) -> Outcome:
    share.lock()
    try:
        before = number(share.get())
        version = share.set(made(n))
    finally:
        share.unlock()
    return before, version


def _update(share: Any, n: int, optimistic: bool) -> Outcome:
    seen = []

    def change(value: Any) -> Any:
        seen.append(number(value))
        return made(n)

    share.update(change, optimistic=optimistic)
    return (seen[-1],)


SHARE_ACTS: dict[str, Callable[..., Outcome]] = {
    "get": lambda share: (number(share.get()),),
    "version": lambda share: (share.version,),
    "snapshot": _snapshot,
    "set": lambda share, n: (share.set(made(n)),),
    "compare and set": _compare_and_set,
    "block": _block,
    "undone block": _undone,
    "lock, get, set, unlock": _explicit,
    "update": lambda share, n: _update(share, n, False),
    "optimistic update": lambda share, n: _update(share, n, True),
}


def _share_alone(state: tuple[int, int], act: tuple[Any, ...]) -> tuple[Any, Outcome]:
    value, version = state
    name, *given = act
    if name == "get":
        return state, (value,)
    if name == "version":
        return state, (version,)
    if name in {"snapshot", "undone block"}:
        return state, state
    if name == "compare and set" and given[1] != version:
        return state, (MISSING, version)
    after = (given[0], version + 1)
    if name in {"set", "compare and set"}:
        return after, (version + 1,)
    if name == "block":
        return after, state
    return after, (value, version + 1) if name == "lock, get, set, unlock" else (value,)


def _make_share(rng: random.Random) -> tuple[Any, Any]:
    least, records = rng.choice([(64 << 10, 16), (64, 1)])
    inside.put("WINDOW_LEAST", least)
    inside.put("WINDOW_RECORDS", records)
    return Share(made(0)), (0, 1)


def _share_drawn(share: Any, name: str, rng: random.Random, n: int) -> Outcome:
    if name == "compare and set":
        return n, share.version - (rng.random() < 0.2)
    return () if name in {"get", "version", "snapshot"} else (n,)


# --- A dict ----------------------------------------------------------------------------------


def _items(shared: Any) -> Outcome:
    snapshot = shared.snapshot()
    return snapshot.version, *[number(snapshot.get(key)) for key in KEYS]


def _set_item(shared: Any, key: int, n: int) -> Outcome:
    shared[KEYS[key]] = made(n)
    return ()


def _set_items(shared: Any, first: int, second: int, n: int) -> Outcome:
    shared.update({KEYS[first]: made(n), KEYS[second]: made(n + 1)})
    return ()


def _move(view: Any, first: int, second: int, n: int) -> Outcome:
    before = number(view.get(KEYS[first])), number(view.get(KEYS[second]))
    view[KEYS[first]], view[KEYS[second]] = made(n), made(n + 1)
    return before


def _dict_block(shared: Any, first: int, second: int, n: int) -> Outcome:
    with shared.locked() as view:
        return *_move(view, first, second, n), view.version


DICT_ACTS: dict[str, Callable[..., Outcome]] = {
    "get": lambda shared, key: (number(shared.get(KEYS[key])),),
    "snapshot": _items,
    "length": lambda shared: (len(shared),),
    "set": _set_item,
    "pop": lambda shared, key: (number(shared.pop(KEYS[key], None)),),
    "set default": lambda shared, key, n: (number(shared.setdefault(KEYS[key], made(n))),),
    "update": _set_items,
    "block": _dict_block,
    "transact": lambda shared, *given: shared.transact(_move, *given),
}


def _dict_alone(state: tuple[int, ...], act: tuple[Any, ...]) -> tuple[Any, Outcome]:
    version, *values = state
    name, *given = act
    if name == "snapshot":
        return state, state
    if name == "length":
        return state, (sum(value != MISSING for value in values),)
    before = values[given[0]]
    if name == "get":
        return state, (before,)
    outcome: Outcome = ()
    if name == "pop":
        values[given[0]], outcome = MISSING, (before,)
    elif name == "set":
        values[given[0]] = given[1]
    elif name == "set default":
        values[given[0]] = given[1] if before == MISSING else before
        outcome = (values[given[0]],)
    else:
        first, second, n = given
        if name != "update":
            outcome = before, values[second]
        if name == "block":
            outcome = *outcome, version
        values[first], values[second] = n, n + 1
    return (version + (values != list(state[1:])), *values), outcome


def _make_dict(rng: random.Random) -> tuple[Any, Any]:
    inside.put("SPARE_BYTES", rng.choice([64 << 10, 2000, -(1 << 30)]))
    return SharedDict({key: made(0) for key in KEYS[:3]}), (1, 0, 0, 0, MISSING)


def _dict_drawn(shared: Any, name: str, rng: random.Random, n: int) -> Outcome:
    first, second = rng.sample(range(len(KEYS)), 2)
    if name in {"snapshot", "length"}:
        return ()
    if name in {"get", "pop"}:
        return (first,)
    return (first, n) if name in {"set", "set default"} else (first, second, n)


# --- The same on a server, whose URL is in the environment ----------------------------------------

SERVER = "MMAPSHARE_PROOF_SERVER"


def _make_remote(kind: Any, first: Any, state: Any) -> Callable[[random.Random], tuple[Any, Any]]:
    def make(rng: random.Random) -> tuple[Any, Any]:
        server, mark, options = os.environ[SERVER].partition("?")
        url = f"{server}/history-{os.getpid()}-{rng.getrandbits(60):x}{mark}{options}"
        while True:
            with contextlib.suppress(StoreUnreachableError):  # It may have little patience.
                return kind.open(url, first()), state

    return make


_remote_share = _make_remote(Share, lambda: made(0), (0, 1))
_remote_dict = _make_remote(
    SharedDict, lambda: {key: made(0) for key in KEYS[:3]}, (1, 0, 0, 0, MISSING)
)

SUBJECTS = {
    "share": Subject(_make_share, SHARE_ACTS, _share_alone, _share_drawn),
    "dict": Subject(_make_dict, DICT_ACTS, _dict_alone, _dict_drawn),
}
REMOTE: dict[str, Any] = {"kills": 6, "lingers_ns": 300_000_000}
REMOTE_SUBJECTS = {
    "share on a server": Subject(_remote_share, SHARE_ACTS, _share_alone, _share_drawn, **REMOTE),
    "dict on a server": Subject(_remote_dict, DICT_ACTS, _dict_alone, _dict_drawn, **REMOTE),
}
