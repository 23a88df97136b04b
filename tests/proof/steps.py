"""One commit, a machine instruction at a time: at each one the value is old, or new from then on.

A sweep over bytecodes cannot look into the interpreter's own C code: a word that is stored in two
pieces is torn between two bytecodes of nobody's. Here a child is stepped through its commit, and
after each instruction that changed the region another process reads it as it stands.

Instructions that store into the region are found by comparing what a commit may change: the
header, the newest record and what comes behind it, and the begins of both areas. What lies
further inside of a large record is read whole at each of these stores. One that repeats itself,
as a long copy does, counts as one step for each byte but as one store.
"""

from __future__ import annotations

import copy
import itertools
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final

import scenes
import tracing
from lean import Events
from scenes import SCENES, Scene
from support import in_child, inside

from mmapshare import Share


def _small_compaction() -> Scene:
    inside.put("SPARE_BYTES", -(1 << 30))
    return SCENES["one key"]()


def _patch() -> Scene:
    """A block that writes some pages of a large array over the version before."""
    import numpy

    inside.put("LARGE_BYTES", 16 << 10)
    share = Share(numpy.zeros(10_000), max_size="1M")
    while share.version < _CARRY:
        with share.locked() as view:
            view.value[0] = view.version

    def act() -> None:
        with share.locked() as view:
            view.value[[5, 600]] = 7

    before = share.get()
    after = before.copy()
    after[[5, 600]] = 7
    assert inside.words_of(inside.store_of(share))[inside.LAG] == _CARRY
    return Scene([share], act, [before], [after])


ALL: Final = {**SCENES, "small compaction": _small_compaction, "patch": _patch}
NAMES: Final = [name for name in ALL if name != "catching up"]  # Which stores nothing.
KINDS: Final = (
    "block", "set", "lock, set, unlock", "portable block", "first store", "other area", "shrink",
    "one key", "several keys", "small compaction", "first items", "several shares", "patch",
    "patched again",
)  # fmt: skip
"""One of each kind; the others publish in one of these ways, or copy for seconds."""

COMPILED: Final = ("block", "set", "block on a name", "one key")
"""Those whose commits the compiled core makes itself, one of each kind."""

_CARRY: Final = 255
"""The version that the commit begins at: in its successor more than one byte is another."""
_LOCK_STORES: Final = 2
"""The holder's pid and its time."""
_PIECE_BYTES: Final = 4096
_ORDER: Final = ("old", "parted", "new")


def sweep(
    events: Events, name: str, whole: bool, planted: str | None = None, core: str = "python"
) -> int:
    """All of one scene: event 0 walks through it, event k kills after the k-th store.

    Unless it is ``whole``, the kills after the lock's stores are those of its publishing, which
    is reached at full speed; by the compiled core all of it is so short. Returns how many stores
    the walk has seen. Each event counts its instructions.
    """
    tracing.stay_on_one_core(events.shard)
    assert inside.use(core) == core
    if planted is not None:
        PLANTED[planted]()
    found = 0
    for number in events(itertools.count()):
        scene = _scene(name)
        if number == 0:
            steps, found = _walk(scene)
        else:
            late = number > _LOCK_STORES and not whole and core == "python"
            wanted = number - _LOCK_STORES * late
            steps, stores = _kill(scene, wanted, late)
        events.count += steps - 1
        _close(scene)
        if number and stores < wanted:
            break
    return found


def tour(events: Events, names: list[str], core: str) -> list[tuple[str, int, int]]:
    """A walk through the commit of each scene, from publishing to letting go of the lock.

    By the compiled core it is all of the operation. Returns names with instructions and stores.
    """
    tracing.stay_on_one_core(events.shard)
    found = []
    for number in events(range(len(names))):
        # Scenes change the library's constants: each one in a process of its own.
        steps, stores = in_child(_walk_alone, names[number], core)
        events.count += steps - 1
        found.append((names[number], steps, stores))
    return found


def _walk_alone(name: str, core: str) -> tuple[int, int]:
    inside.use(core)
    scene = _scene(name)  # Perhaps it changes a constant, which is Python's: it goes on by that.
    return _walk(scene, late=inside.used() == "python")


def _only_publishing() -> None:
    """Have the interesting part begin and end there."""
    for act, say in (
        ("value_commit", tracing.begin),
        ("value_put", tracing.begin),
        ("log_append_one", tracing.begin),
        ("log_append", tracing.begin),
        ("log_rewrite", tracing.begin),
        ("lock_release", tracing.end),
        ("lock_let_go", tracing.end),
    ):
        inside.put(act, _saying(say, getattr(inside, act)))


def _saying(say: Callable[[], None], act: Callable[..., Any]) -> Callable[..., Any]:
    def says(*args: Any) -> Any:
        say()
        return act(*args)

    return says


def _scene(name: str) -> Scene:
    """A scene whose shares are at a version whose successor differs in more than one byte."""
    # Large enough to have areas grow and memory given back, small enough to be stepped through.
    scenes.BIG_OLD, scenes.BIG_NEW = b"o" * 90_000, b"n" * 120_000
    scene = ALL[name]()
    for share, before in zip(scene.shares, scene.before, strict=True):
        if share.version not in {0, _CARRY}:
            # More than 1 to go, so that the last one but one is another value.
            more = (_CARRY - share.version - 2) % 256 + 2
            for left in reversed(range(more)):
                with share.locked() as view:
                    view.value = {"left": left} if left else copy.copy(before)
            assert share.version & 255 == _CARRY
    return scene


def _close(scene: Scene) -> None:
    for share in scene.shares:
        share.close()


# --- Walking -----------------------------------------------------------------------------------


def _walk(scene: Scene, late: bool = False) -> tuple[int, int]:
    """How many instructions there were, and how many stores: each has left old or new."""
    pid = _started(scene, late)
    try:
        count = stores = reached = 0
        for count, stored in _steps(pid, scene):
            if stored:
                stores += 1
                stands = _ORDER.index(_seen(scene, count))
                assert stands >= reached, f"old again after instruction {count:,}"
                reached = stands
        while tracing.run_to(pid, tracing.END):
            pass
    except BaseException:
        tracing.kill(pid)
        raise
    assert scene.check(killed=False) == "new"
    scene.usable()
    return count, stores


def _kill(scene: Scene, number: int, late: bool) -> tuple[int, int]:
    """Kill the child after that store; instructions and stores until then."""
    pid = _started(scene, late)
    count = stores = 0
    try:
        for count, stored in _steps(pid, scene):
            stores += stored
            if stores == number:
                break
    finally:
        tracing.kill(pid)
    _seen(scene, count)
    scene.usable()
    return count, stores


def _seen(scene: Scene, count: int) -> str:
    try:
        return scene.check(killed=True)
    except Exception as err:
        raise AssertionError(f"Error after instruction {count:,}: {err!r}") from err


def _started(scene: Scene, late: bool = False) -> int:
    def act() -> None:
        if late:
            _only_publishing()
        else:
            tracing.begin()
        scene.act()
        tracing.end()

    pid = tracing.start(act)
    assert tracing.run_to(pid, tracing.BEGIN), "the child has not begun"
    return pid


def _steps(pid: int, scene: Scene) -> Iterator[tuple[int, bool]]:
    """Each instruction's number, and whether it changed a region, until the child says so."""
    places = [place for share in scene.shares for place in _places(share)]
    before = [mapping[piece] for mapping, piece in places]
    step, again = tracing.step, (0, 0)
    for count in itertools.count(1):
        stop = step(pid)
        if stop == tracing.END:
            return
        # The begin of a later commit, of several shares, is none.
        assert stop in {signal.SIGTRAP, tracing.BEGIN}, f"the child stopped by {stop}"
        now = [mapping[piece] for mapping, piece in places]
        stored = now != before
        if stored:
            repeated, again = again, (count + 1, tracing.instruction(pid))
            stored = repeated != (count, again[1])
        yield count, stored
        before = now


def _places(share: Any) -> list[tuple[Any, slice]]:
    """What the next commit may change, and what it must not."""
    store = inside.store_of(share)
    head = inside.load_slot(store)
    starts = [(0, inside.HEADER_BYTES), *[(inside.area_start(store, area), 0) for area in (0, 1)]]
    if head is not None:
        starts.append((max(head.start, head.end - _PIECE_BYTES), head.end - head.start))
    return [
        (inside.map_of(store), slice(start, start + min(more, _PIECE_BYTES) + _PIECE_BYTES))
        for start, more in starts
    ]


# --- Planted bugs ------------------------------------------------------------------------------


class _Words:
    """The header's words, of which the version is stored in a way of its own."""

    def __init__(self, region: Any, store: Callable[[Any, int], None]) -> None:
        self._region, self.real, self._store = region, inside.region_words_of(region), store

    def __getitem__(self, word: int) -> int:
        return self.real[word]

    def __setitem__(self, word: int, value: int) -> None:
        if word == inside.VERSION:
            self._store(self._region, value)
        else:
            self.real[word] = value


def _storing(store: Callable[[Any, int], None]) -> Callable[[], None]:
    """Plant that way of storing the version."""

    def plant() -> None:
        real = inside.region_publish

        def broken(region: Any, *args: Any) -> None:
            words = inside.region_words_of(region)
            inside.region_words_of.set(region, _Words(region, store))
            try:
                real(region, *args)
            finally:
                inside.region_words_of.set(region, words)

        inside.put("region_publish", broken)

    return plant


def _in_two_pieces(region: Any, version: int) -> None:
    raw, at = inside.pack_word(version), inside.VERSION * 8
    inside.region_map_of(region)[at : at + 1] = raw[:1]
    inside.region_map_of(region)[at + 1 : at + 8] = raw[1:]


def _and_back(region: Any, version: int) -> None:
    for stored in (version, version - 1, version):
        inside.region_words_of(region).real[inside.VERSION] = stored


def _early_version() -> None:
    """The version is stored before the record's bytes, and not after them."""

    def broken(store: Any, frames: Any) -> int:
        base = store.newest()
        inside.words_of(store)[inside.VERSION] = base[inside.VALUE_V] + 1
        return int(inside.commit_with_care(store, frames, base))

    inside.put_commit(broken)


def _early_record() -> None:
    """A log's head is stored before the record that it takes in, and its version with it."""
    real = inside.log_append_one

    def broken(log: Any, key: Any, value: Any, position: Any) -> Any:
        inside.log_words_of(log)[inside.VERSION] = position[inside.LOG_V] + 1
        return real(log, key, value, position)

    inside.put("log_append_one", broken)


PLANTED: dict[str, Callable[[], None]] = {
    "version in two pieces": _storing(_in_two_pieces),
    "version and back": _storing(_and_back),
    "early version": _early_version,
    "early record": _early_record,
}
