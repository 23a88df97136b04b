"""Bytes of a region that something else has written: the right value, or an error that says so.

Nothing crashes, nothing hangs, no error of Python's own gets out, and what was not committed
never reaches ``pickle.loads``. Only what is wrong in the payload, which has no checksum, does:
what comes of it is some value, or a CorruptRegionError or UnloadableError with its cause.
"""

from __future__ import annotations

import gc
import random
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
from attended import Progress, attended
from lean import Events
from mutants_planted import PLANTED
from mutations import Mutant, draw
from regions import ACTS, READS, REGIONS, WRITES, Damaged, all_of_it, outcome
from support import inside
from support.inside import IDENTITY_BYTES, OLDEST_READABLE, VERSION

from mmapshare import CorruptRegionError, HandleError, SharedDict, UnloadableError

SPARE_BYTES = 512 << 20
"""What a child may map beyond what it has: damaged pickles ask for any amount of memory."""
KINDS = ("memfd", "memfd", "memfd", "file")


def check(
    events: Events, name: str, count: int, planted: str | None = None, most_s: float = 20
) -> Counter[str]:
    """So many mutants of a region; how often the outcome was right, refused, or another value."""

    def work(progress: Progress) -> Counter[str]:
        _limit_memory()
        guard = Guard()
        trials: dict[str, Trial] = {}
        found = Counter[str]()
        for number in events(range(count)):
            kind = KINDS[number // 2 % len(KINDS)]  # Both shards get both.
            if kind not in trials:
                trials[kind] = Trial(REGIONS[name](kind), guard)
                if planted is not None and len(trials) == 1:
                    PLANTED[planted]()
                gc.freeze()
            progress.at(number)
            trials[kind].event(events.rng(), found)
            progress.over()
        return found

    return attended(events, work, most_s)


def _limit_memory() -> None:
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + SPARE_BYTES,) * 2)


class StrayBytesError(BaseException):
    """Bytes that were not committed have reached ``pickle.loads``."""


class Guard:
    """Stands before ``pickle.loads``: learns what was committed, and lets nothing else pass."""

    def __init__(self) -> None:
        self.known: set[bytes] = set()
        self.own: set[bytes] = set()
        """Keys and directories that are made in this event."""
        self.learns = self.watches = False
        self._loads, self._encode = inside.loads_of_codec, inside.encode_key
        inside.put("loads_of_codec", self.loads)
        inside.put("loads_in_dict", self.loads)
        inside.put("loads_in_share", self.loads)
        inside.put("encode_key", self.encode)

    def loads(self, raw: Any, *, buffers: Any = ()) -> Any:
        if self.learns or self.watches:
            frames = {bytes(raw), *map(bytes, buffers)}
            if self.learns:
                self.known |= frames
            elif not frames - self.own <= self.known:
                raise StrayBytesError(
                    f"bytes that were never committed: {len(raw)} {bytes(raw)[:80]!r}"
                )
        return self._loads(raw, buffers=buffers)

    def encode(self, key: Any) -> bytes:
        raw: bytes = self._encode(key)
        self.own.add(raw)
        return raw


class Trial:
    """A region, what is right at each of its versions, and one mutant after the other."""

    def __init__(self, damaged: Damaged, guard: Guard) -> None:
        self.damaged, self.guard = damaged, guard
        self.words = inside.words_of(damaged.store)
        self.is_dict = isinstance(damaged.share, SharedDict)
        self.acts = ACTS[self.is_dict]
        self.right: dict[int, dict[str, Any]] = {}
        """What comes out of each act, and all of the region after it, by version and act."""
        guard.learns = True
        for version in range(len(damaged.stages)):
            self.right[version] = {}
            for name, act in self.acts.items():
                damaged.put_back(version, None)
                found = outcome(act, damaged.share)
                self.right[version][name] = found, all_of_it(damaged.share)
        guard.learns = False

    def event(self, rng: random.Random, found: Counter[str]) -> None:
        """A mutant, some reads of it and a write, by a process that has seen it or has not."""
        damaged = self.damaged
        newest = len(damaged.stages) - 1
        mind = rng.choice((None, newest, rng.randrange(newest + 1)))
        damaged.put_back(newest, mind)
        mutant, floor = draw(rng, damaged), self.words[OLDEST_READABLE]
        names = rng.sample(list(READS[self.is_dict]), 2) + [rng.choice(list(WRITES[self.is_dict]))]
        mutant.strike(damaged)
        self.mind, self.newest = mind, newest
        anew = mutant.where == "identity" or rng.random() < 0.1
        if self._forged(floor):
            mutant = attrs.evolve(mutant, where="mixed")
        self.guard.watches = mutant.where not in {"payload", "mixed"}
        try:
            share = outcome(lambda share: damaged.opened_anew(), None) if anew else damaged.share
            if isinstance(share, Exception):
                assert type(share) is CorruptRegionError or (
                    type(share) is HandleError and mutant.writes[0][0] < IDENTITY_BYTES
                ), f"{mutant}: opening: {share!r}"
                found["not opened"] += 1
            else:
                for name in names:
                    found[self._judged(share, mutant, name)] += 1
                assert inside.token_of(share) is None, "the lock is held"
                if anew:
                    damaged.close_again(share)
        finally:
            self.guard.watches = False
            self.guard.own.clear()

    def _forged(self, floor: int) -> bool:
        """Whether the header says of an older version all that it says of the newest.

        A dict's process takes what it knows for the newest if that is what the version says. And
        two words together may say that an older version stands whose memory was given back.
        """
        version = self.words[VERSION]
        if version == self.newest:
            return False
        return (self.is_dict and version == self.mind) or self.words[OLDEST_READABLE] < floor

    def _right(self, name: str) -> Any:
        """What comes out of an act, at the version that the region names.

        That can be the one before the newest, as a kill just before the commit leaves it, or the
        one that this process has read last. Others are found out.
        """
        version = self.words[VERSION]
        possible = version in {self.newest, self.newest - 1, self.mind}
        return self.right[version][name] if possible else None

    def _judged(self, share: Any, mutant: Mutant, name: str) -> str:
        """Do one act, and ask for all of the region behind it; "right", "refused" or "changed"."""
        right = self._right(name)
        answer = outcome(self.acts[name], share)
        what = f"{mutant}: {name}: {answer!r}"
        if mutant.where == "payload":
            if isinstance(answer, CorruptRegionError | UnloadableError):
                assert answer.__cause__ is not None, what
                return "refused"
            outcome(all_of_it, share)
            return "changed"
        if mutant.where == "mixed":
            return "changed"
        refused = type(answer) is CorruptRegionError
        if not refused and (name != "wait" or self.words[VERSION]):
            assert right and _same(answer, right[0]), what
        if name in WRITES[self.is_dict]:
            # What was refused has changed nothing.
            after = outcome(all_of_it, share)
            if type(after) is not CorruptRegionError:
                assert right, what
                if refused:
                    right = self._right("info")
                assert _same(after, right[1]), f"{what}, and then {after!r}"
        return "refused" if refused else "right"


def _same(found: Any, right: Any) -> bool:
    return type(found) is type(right) and (isinstance(found, Exception) or found == right)
