"""What the sweeps of kills and of exceptions strike: everything that locks or publishes.

A scene says what is done, how the value may stand afterwards, and how to put it back by ordinary
operations, which are the proof that the region is usable.
"""

from __future__ import annotations

import copy
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import attrs
from blobs import Blob
from support import inside
from support.inside import ENDED, RELEASE, TRY, token_by

from mmapshare import Share, SharedDict, locked, shared_state

OLD = {"n": 1, "pad": "x" * 50}
NEW = {"n": 2, "pad": "x" * 50}
IN_TIME_S = 0.05


@attrs.define
class Scene:
    """One action on one or several shares.

    Attributes:
        shares: what is changed.
        act: does it; runs in a child that is killed, or here with an exception on the way.
        before, after: the values that ``shares`` may have in the end, as `stands` lists them.
        parts: whether one share may be old while another is new: "never", when "killed" between
            the two, or "anyway", being two transactions.
        anew: makes new shares in place of those, where nothing leads back.
    """

    shares: list[Any]
    act: Callable[[], object]
    before: list[Any]
    after: list[Any]
    parts: str = "never"
    anew: Callable[[], list[Any]] | None = None

    def stands(self) -> list[Any]:
        """What others see."""
        return [_value(share) for share in self.shares]

    def check(self, killed: bool) -> str:
        """Each value is old or new; returns "old", "new" or "parted" for all of them."""
        found = self.stands()
        for share in self.shares:
            forget(share)
        assert _same(self.stands(), found), "a stranger reads something else"
        for value, old, new in zip(found, self.before, self.after, strict=True):
            assert _same(value, old) or _same(value, new), value
        if _same(found, self.after):
            return "new"
        if _same(found, self.before):
            return "old"
        assert self.parts == "anyway" or (killed and self.parts == "killed"), found
        return "parted"

    def usable(self) -> None:
        """The lock is had at once, the next operation works, and all is as it was before."""
        for share in self.shares:
            assert inside.token_of(share) is None, "the lock is held"
            assert _is_free(share), "the lock's description is held"
        for share, old in zip(self.shares, self.before, strict=True):
            with share.locked(timeout=IN_TIME_S) as view:
                view.value = copy.copy(NEW if old is None else old)
        if self.anew is not None:
            for share in self.shares:
                share.close()
            self.shares[:] = self.anew()
        assert _same(self.stands(), self.before), self.stands()


def _is_free(share: Any) -> bool:
    """Whether another process could take the lock: asked through a description of our own."""
    theirs = inside.process_lock_of(inside.lock_of(share))
    own = type(theirs)(inside.path_of(theirs))
    try:
        own.flock(own.fd, TRY)
    except BlockingIOError:
        return False
    else:
        own.flock(own.fd, RELEASE)
        return True
    finally:
        own.close()


def forget(share: Any) -> None:
    """Have a share read the region again, as one does who has never seen it."""
    store = inside.store_of(share)
    if isinstance(share, SharedDict):
        store.state = inside.unread_state(store)
    else:
        inside.commit_of.set(store, inside.UNREAD_COMMIT)
        inside.seen_of.set(store, inside.NOTHING_SEEN)


def _value(share: Any) -> Any:
    if isinstance(share, SharedDict):
        return share.copy()
    return share.get() if share.version else None


def _same(found: Any, expected: Any) -> bool:
    if hasattr(expected, "tolist"):
        return found is not None and found.tolist() == expected.tolist()
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(_same, found, expected))
    return bool(found == expected)


# --- A share ---------------------------------------------------------------------------------


def _on_a_share(act: Callable[[Any], object], **how: Any) -> Scene:
    share = Share(OLD, **how)
    return Scene([share], lambda: act(share), [OLD], [NEW])


def _durable(act: Callable[[Any], object]) -> Scene:
    share: Any = Share.open(_path(), OLD, max_size="1M", durable=True)
    return Scene([share], lambda: act(share), [OLD], [NEW])


def _named(act: Callable[[Any], object]) -> Scene:
    share: Any = Share.open(f"scene-{os.getpid()}", OLD)
    share.unlink()
    return Scene([share], lambda: act(share), [OLD], [NEW])


_folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
"""In memory: what is killed here is the process, and the disk takes its time."""


def _path() -> str:
    inside.put("is_memory", lambda fd: False)
    return os.path.join(_folder.name, os.urandom(4).hex())


def _block(share: Any) -> None:
    with share.locked() as view:
        view["n"] = 2


def _nested(share: Any) -> None:
    with share.locked() as view, share.locked():
        view["n"] = 2


def _joined_by_a_generator(share: Any) -> None:
    def flow() -> Any:
        with share.locked() as view:
            view["n"] = 2
            yield

    with share.locked():
        for _ in flow():
            pass


def _rolled_back(share: Any) -> None:
    with share.locked() as view:
        view["n"] = 99
        view.rollback()
        view["n"] = 2


def _explicit(share: Any) -> None:
    try:
        share.lock()
        share.set(NEW)
        share.unlock()
    except BaseException:
        if inside.lock_of(share).holds_own():  # The pair is the caller's to end.
            share.unlock()
        raise


def _after_one_that_ended(share: Any) -> None:
    """A block that takes the lock from an owner that has ended; so does who comes after it."""
    token = token_by(ENDED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            inside.lock_of(share).acquire(token, None)
            _block(share)
            return
        except BaseException as err:
            struck = err.with_traceback(None)
        with share.locked(timeout=IN_TIME_S):
            raise struck


def _change(value: Any) -> None:
    value["n"] = 2


async def _async_block(share: Any) -> None:
    async with share.locked() as view:
        view["n"] = 2


def _to_the_end(coroutine: Any) -> None:
    try:
        while True:
            coroutine.send(None)
    except StopIteration:
        pass


def first_store() -> Scene:
    """The first value of a share."""
    shares = [Share()]
    return Scene(shares, lambda: shares[0].set(OLD), [None], [OLD], anew=lambda: [Share()])


BIG_OLD, BIG_NEW, SMALL = b"o" * 300_000, b"n" * 400_000, b"s"


def _resizing(before: bytes, after: bytes) -> Scene:
    inside.put("VALUE_KEEP_BYTES", 64 << 10)
    inside.put("WINDOW_MOST", 64 << 10)
    share = Share(SMALL)
    share.set(before)
    return Scene([share], lambda: share.set(after), [before], [after])


def arrays() -> Scene:
    """Frames out of band, and their table."""
    import numpy

    old, new = [numpy.zeros(3000)] * 2, [numpy.ones(5000)] * 2
    share = Share(old)
    return Scene([share], lambda: share.set(new), [old], [new])


def other_area() -> Scene:
    """A value that finds no room behind the one before it."""
    inside.put("WINDOW_LEAST", 64)
    inside.put("WINDOW_RECORDS", 1)
    return _on_a_share(lambda share: share.set(NEW))


# --- A shared dict -----------------------------------------------------------------------------

ITEMS = {"a": {"n": 1}, "b": [2], "c": "x" * 30}
ONE = {"a": {"n": 99}, "b": [2], "c": "x" * 30}
SEVERAL = {"a": {"n": 99}, "b": [2, 3], "d": 4}


def _on_a_dict(
    act: Callable[[Any], object], after: dict[Any, Any], durable: bool = False, **more: Any
) -> Scene:
    shared: Any = SharedDict(ITEMS | more)
    if durable:
        shared = SharedDict.open(_path(), ITEMS | more, max_size="1M", durable=True)
    return Scene([shared], lambda: act(shared), [ITEMS | more], [after | more])


def _set_one(shared: Any) -> None:
    shared["a"] = {"n": 99}


def _set_several(shared: Any) -> None:
    with shared.locked() as view:
        view["a"]["n"] = 99
        view["b"].append(3)
        del view["c"]
        view["d"] = 4


def _compacting(
    act: Callable[[Any], object], after: dict[Any, Any], durable: bool = False
) -> Scene:
    """A new snapshot at each commit, with memory given back on the way."""
    inside.put("SPARE_BYTES", -(1 << 30))
    inside.put("LOG_KEEP_BYTES", 4096)
    scene = _on_a_dict(act, after, durable, **{f"padding {n}": bytes(9000) for n in range(5)})
    (shared,) = scene.shares
    run = inside.store_of(shared).state.position[inside.LOG_EPOCH]
    scene.act()
    assert inside.store_of(shared).state.position[inside.LOG_EPOCH] > run, "this is no compaction"
    scene.usable()
    return scene


def first_items() -> Scene:
    """The first items of a shared dict."""
    shares = [SharedDict[Any, Any]()]
    return Scene(
        shares, lambda: shares[0].update(ITEMS), [{}], [ITEMS], anew=lambda: [SharedDict()]
    )


def catching_up() -> Scene:
    """Reading what others added, from the begin."""
    shared = SharedDict(ITEMS)

    def act() -> None:
        forget(shared)
        assert shared["a"] == {"n": 1}

    return Scene([shared], act, [ITEMS], [ITEMS])


def _blob(*marked: int) -> Blob:
    raw = bytearray(60_000)
    for number, at in enumerate(marked, 1):
        raw[at] = number
    return Blob(raw)


def patched_value() -> Scene:
    """A block that changes a few bytes of a large value."""
    inside.put("LARGE_BYTES", 16 << 10)
    before, after = {"a": _blob()}, {"a": _blob(100, 40_000)}
    share: Any = Share(before, max_size="1M")

    def act() -> None:
        with share.locked() as view:
            view["a"].raw[100], view["a"].raw[40_000] = 1, 2

    return Scene([share], act, [before], [after])


def patched_key() -> Scene:
    """A block that changes a few bytes of a large value, and a small one."""
    before, after = {"a": _blob(), "n": 1}, {"a": _blob(100, 40_000), "n": 2}
    inside.put("LARGE_BYTES", 16 << 10)

    def made() -> list[Any]:
        return [SharedDict(before, max_size="1M")]

    shares = made()

    def act() -> None:
        with shares[0].locked() as view:
            view["a"].raw[100], view["a"].raw[40_000], view["n"] = 1, 2, 2

    return _patching(shares, act, before, after, made)


def _patched_before() -> Any:
    """A dict one of whose values was patched."""
    inside.put("LARGE_BYTES", 16 << 10)
    shared: Any = SharedDict({"a": _blob(), "b": _blob(9), "n": 1}, max_size="1M")
    with shared.locked() as view:
        view["a"].raw[200] = 1
    return shared


def patched_again() -> Scene:
    """The same to a value that was patched before, where that was and elsewhere."""
    shares = [_patched_before()]

    def act() -> None:
        with shares[0].locked() as view:
            view["a"].raw[100], view["a"].raw[200], view["b"].raw[9] = 2, 5, 2

    before = {"a": _blob(200), "b": _blob(9), "n": 1}
    after = {"a": _blob(200, 100), "b": _blob(9), "n": 1}
    after["a"].raw[200], after["b"].raw[9] = 5, 2
    return _patching(shares, act, before, after, lambda: [_patched_before()])


def snapshot_of_patched_keys() -> Scene:
    """Everything is written anew, patched values whole."""

    def made() -> list[Any]:
        inside.put("SPARE_BYTES", 64 << 10)
        shared = _patched_before()
        inside.put("SPARE_BYTES", -(1 << 30))
        return [shared]

    shares = made()

    def act() -> None:
        shares[0]["n"] = 2

    before = {"a": _blob(200), "b": _blob(9), "n": 1}
    scene = Scene(shares, act, [before], [before | {"n": 2}], anew=made)
    scene.usable()
    return scene


def _patching(
    shares: list[Any],
    act: Callable[[], object],
    before: Any,
    after: Any,
    anew: Callable[[], list[Any]],
) -> Scene:
    scene = Scene(shares, act, [before], [after], anew=anew)
    used = shares[0].info().used_bytes
    act()
    assert 0 < shares[0].info().used_bytes - used < 20_000, "this is no patch"
    scene.usable()
    return scene


# --- What is made of them ------------------------------------------------------------------------


def several_shares() -> Scene:
    """A block over two shares and a dict."""
    shares = [Share({"n": 1}), SharedDict({"n": 1}), Share({"n": 1})]

    def act() -> None:
        with locked(*shares) as views:
            for view in views:
                view["n"] = 2

    return Scene(shares, act, [{"n": 1}] * 3, [{"n": 2}] * 3, parts="killed")


def decorated() -> Scene:
    """A call of a function with a state."""

    @shared_state(initial={"calls": 1})
    def tally(state: Any) -> Any:
        state["calls"] = 2
        return state["calls"]

    return Scene([tally.share], tally, [{"calls": 1}], [{"calls": 2}])


def decorated_method() -> Scene:
    """A call of a method with a state."""

    class Tally:
        @shared_state(initial={"calls": 1})
        def call(self, state: Any) -> None:
            state["calls"] = 2

    return Scene([Tally.call.share], Tally().call, [{"calls": 1}], [{"calls": 2}])


def decorated_async() -> Scene:
    """A call of a coroutine function with a state."""

    @shared_state(initial={"calls": 1})
    async def tally(state: Any) -> None:
        state["calls"] = 2

    return Scene([tally.share], lambda: _to_the_end(tally()), [{"calls": 1}], [{"calls": 2}])


def decorated_class() -> Scene:
    """A method of an instance whose attributes are shared."""

    @shared_state
    class Tally:
        def __init__(self) -> None:
            self.calls = 1

        def call(self) -> None:
            self.calls = 2

    tally: Any = Tally()
    share = tally.__share__ if hasattr(tally, "__share__") else tally.share
    return Scene([share], tally.call, [{"calls": 1}], [{"calls": 2}])


def handle() -> Scene:
    """A share pickled, loaded again and changed through what came back."""
    share = Share(OLD)

    def act() -> None:
        again = pickle.loads(pickle.dumps(share))
        again.set(NEW)

    return Scene([share], act, [OLD], [NEW])


def second_look() -> Scene:
    """A look and a change that are told apart by loading what is stored once more."""
    old = {"numerator": Fraction(1, 3), "n": {"a", "b"}}
    new = {"numerator": Fraction(2, 3), "n": {"a", "b"}}
    share, shared = Share(old), SharedDict(k=old)

    def act() -> None:
        for number in (1, 2):
            with share.locked() as view:
                view["numerator"] = Fraction(number, 3)
        with shared.locked() as view:
            view["k"]["numerator"] = Fraction(2, 3)

    return Scene([share, shared], act, [old, {"k": old}], [new, {"k": new}], parts="anyway")


def share_in_share() -> Scene:
    """A value that names another share."""
    inner = Share(OLD)
    outer = Share({"n": 1, "share": None})

    def act() -> None:
        outer.set({"n": 2, "share": inner})
        outer.get()["share"].set(NEW)

    before, after = {"n": 1, "share": None}, {"n": 2, "share": inner}
    return Scene([outer, inner], act, [before, OLD], [after, NEW], parts="anyway")


def share_in_dict() -> Scene:
    """Beside a value that names another share, an item that names none."""
    inner = Share(OLD)
    outer = SharedDict[Any, Any]({"n": 1, "share": inner})

    def act() -> None:
        outer["n"] = 2
        outer["share"].set(NEW)

    before, after = {"n": 1, "share": inner}, {"n": 2, "share": inner}
    return Scene([outer, inner], act, [before, OLD], [after, NEW], parts="anyway")


SCENES: dict[str, Callable[[], Scene]] = {
    "block": lambda: _on_a_share(_block),
    "nested block": lambda: _on_a_share(_nested),
    "joined by a generator": lambda: _on_a_share(_joined_by_a_generator),
    "rollback": lambda: _on_a_share(_rolled_back),
    "set": lambda: _on_a_share(lambda share: share.set(NEW)),
    "compare and set": lambda: _on_a_share(lambda s: s.set(NEW, if_version=s.version)),
    "update": lambda: _on_a_share(lambda share: share.update(_change)),
    "optimistic update": lambda: _on_a_share(lambda s: s.update(_change, optimistic=True)),
    "lock, set, unlock": lambda: _on_a_share(_explicit),
    "after one that ended": lambda: _on_a_share(_after_one_that_ended),
    "async block": lambda: _on_a_share(lambda share: _to_the_end(_async_block(share))),
    "portable block": lambda: _on_a_share(_block, kind="file"),
    "portable set": lambda: _on_a_share(lambda share: share.set(NEW), kind="file"),
    "block on a name": lambda: _named(_block),
    "durable block": lambda: _durable(_block),
    "durable set": lambda: _durable(lambda share: share.set(NEW)),
    "first store": first_store,
    "growth": lambda: _resizing(SMALL, BIG_NEW),
    "shrink": lambda: _resizing(BIG_OLD, SMALL),
    "large for large": lambda: _resizing(BIG_OLD, BIG_NEW),
    "arrays": arrays,
    "other area": other_area,
    "one key": lambda: _on_a_dict(_set_one, ONE),
    "several keys": lambda: _on_a_dict(_set_several, SEVERAL),
    "dict update": lambda: _on_a_dict(lambda s: s.update(b=5, e=6), {**ITEMS, "b": 5, "e": 6}),
    "durable keys": lambda: _on_a_dict(_set_several, SEVERAL, durable=True),
    "durable compaction": lambda: _compacting(_set_one, ONE, durable=True),
    "pop": lambda: _on_a_dict(lambda s: s.pop("a"), {"b": [2], "c": "x" * 30}),
    "clear": lambda: _on_a_dict(lambda shared: shared.clear(), {}),
    "transact": lambda: _on_a_dict(lambda s: s.transact(_set_one), ONE),
    "compaction by one key": lambda: _compacting(_set_one, ONE),
    "compaction by a block": lambda: _compacting(_set_several, SEVERAL),
    "patched value": patched_value,
    "patched key": patched_key,
    "patched again": patched_again,
    "snapshot of patched keys": snapshot_of_patched_keys,
    "first items": first_items,
    "catching up": catching_up,
    "several shares": several_shares,
    "decorated function": decorated,
    "decorated coroutine function": decorated_async,
    "decorated method": decorated_method,
    "decorated class": decorated_class,
    "second look": second_look,
    "handle": handle,
    "share in share": share_in_share,
    "share in dict": share_in_dict,
}
