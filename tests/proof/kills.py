"""SIGKILL at every bytecode: the old value or the new one, and the lock free at once."""

from __future__ import annotations

import itertools
import os
from collections import Counter

from lean import Events
from scenes import SCENES, Scene
from support import inside, kill_self, trap


def sweep(events: Events, name: str, planted: str | None = None) -> Counter[str]:
    """Kill a child at each bytecode of a scene; how often what was left was old, and new."""
    scene = SCENES[name]()
    if planted is not None:
        PLANTED[planted]()
    left = Counter[str]()
    for step in events(itertools.count(1)):
        killed = _killed_at(scene, step)
        left[scene.check(killed)] += 1
        scene.usable()
        if not killed:
            break
    return left


def pairs(events: Events, name: str, count: int) -> None:
    """Kill a child at some bytecode, and whoever comes after it at some other."""
    scene = SCENES[name]()
    steps = 1
    while _killed_at(scene, steps):
        steps *= 2
    scene.usable()
    for _ in events(range(count)):
        rng = events.rng()
        for _ in range(2):
            scene.check(_killed_at(scene, rng.randrange(1, steps)))
        scene.usable()


def _killed_at(scene: Scene, step: int) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            with trap(step, kill_self):
                scene.act()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


# --- Planted bugs ----------------------------------------------------------------------------


def _torn_value() -> None:
    """Bytes of the value that is committed are overwritten, as an update in place would do."""
    real = inside.value_commit

    def broken(store, frames):
        start = store.newest()[inside.VALUE_START]
        inside.map_of(store)[start : start + 4] = b"torn"
        return real(store, frames)

    inside.put_commit(broken)


def _torn_record() -> None:
    """The same to the last record of a log."""
    real = inside.log_append_one

    def broken(log, key, value, position):
        inside.log_map_of(log)[position[inside.LOG_END] - 20 : position[inside.LOG_END]] = b"t" * 20
        return real(log, key, value, position)

    inside.put("log_append_one", broken)


def _early_version() -> None:
    """The version is stored before what it names."""
    real = inside.region_publish_with_care

    def broken(store, frames, base):
        inside.words_of(store)[inside.VERSION] = base[inside.VALUE_V] + 1
        return real(store, frames, base)

    inside.put("region_publish_with_care", broken)


def _inherited_description() -> None:
    """A child locks on the description that it inherited, which outlives it."""
    inside.put("process_lock_reopen", lambda self: self)


def _not_laid_over_in_snapshots() -> None:
    """A new snapshot has of a patched value what it was before."""
    real, lay_over = inside.compaction_commit, inside.lay_over

    def commit(*args):
        inside.put("lay_over", lambda place, later, raw, base=0: None)
        try:
            return real(*args)
        finally:
            inside.put("lay_over", lay_over)

    inside.put("compaction_commit", commit)


PLANTED = {
    "torn value": _torn_value,
    "torn record": _torn_record,
    "early version": _early_version,
    "inherited description": _inherited_description,
    "not laid over in snapshots": _not_laid_over_in_snapshots,
}
