"""A crowd of children works on one share and one dict, and most of them are killed.

Each child says through a pipe that a block has returned. In the end what was said is there, and
of each child that was killed one change more at most. The kills come in three ways: by the parent
at any moment, by the child itself at any bytecode, and in the middle of a block, with the lock.
"""

from __future__ import annotations

import logging
import os
import random
import select
import signal
import struct
from collections import Counter
from typing import Any

from lean import Events
from planted import sometimes_no_lock
from support import inside, kill_self, trap

from mmapshare import Share, SharedDict

SHARE, DICT = 0, 1
SAID = struct.Struct("=IIQ")
"""A child, what it changed, and its how-manieth change of that: written at once or not at all."""
IN_TIME_S = 5
LONGEST_STEP = 400


def check(
    events: Events, rounds: int, children: int, changes: int, planted: str | None = None
) -> Counter[str]:
    """So many crowds. ``events.count`` counts children."""
    logging.getLogger("mmapshare").setLevel(logging.ERROR)
    if planted is not None:
        PLANTED[planted]()
    met = Counter[str]()
    for _ in events(range(rounds)):
        met += _Crowd(events.rng(), children, changes).over()
        events.count += children - 1
    return met


class _Crowd:
    def __init__(self, rng: random.Random, children: int, changes: int) -> None:
        self.rng, self.changes = rng, changes
        self.shares = Share(dict.fromkeys(range(children), 0)), SharedDict[int, int]()
        fates = ["survives", "parent kills", "strikes a step", "dies in a block"]
        self.fates = [fates[child % len(fates)] for child in range(children)]
        self.said = Counter[tuple[int, int]]()
        self.pids: dict[int, int] = {}
        self.in_block = 0

    def over(self) -> Counter[str]:
        """Let them all come and go; what is left is as it must be."""
        hear, say = os.pipe()
        try:
            for child in range(len(self.fates)):
                self._fork(child, hear, say)
                self._listen(hear)
            os.close(say)
            killed = self._kill_and_reap(hear)
        finally:
            os.close(hear)
            for pid in self.pids.values():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self._check(killed)
        for share in self.shares:
            share.close()
        return Counter(children=len(self.fates), killed=len(killed), changes=self.said.total())

    # --- The children ------------------------------------------------------------------------

    def _fork(self, child: int, hear: int, say: int) -> None:
        seed = self.rng.random()
        self.pids[child] = pid = os.fork()
        if pid:
            return
        code = 1
        try:
            os.close(hear)
            self._work(child, say, random.Random(seed))
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def _work(self, child: int, say: int, rng: random.Random) -> None:
        made, fate = [0, 0], self.fates[child]
        last = self.changes if fate == "survives" else rng.randrange(self.changes)
        # Who waits for the parent to kill it goes on until then.
        while fate == "parent kills" or sum(made) < last:
            self._change(rng.randrange(2), child, made, say)
        if fate == "strikes a step":
            with trap(rng.randrange(1, LONGEST_STEP), kill_self):
                self._change(rng.randrange(2), child, made, say)
            kill_self()
        elif fate == "dies in a block":
            with self.shares[child // 4 % 2].locked() as view:
                view[child] = made[child // 4 % 2] + 1
                kill_self()

    def _change(self, which: int, child: int, made: list[int], say: int) -> None:
        with self.shares[which].locked() as view:
            before = view.get(child, 0)
            assert before == made[which], f"child {child} had {made[which]}, there is {before}"
            view[child] = before + 1
        made[which] += 1
        os.write(say, SAID.pack(child, which, made[which]))

    # --- The parent --------------------------------------------------------------------------

    def _listen(self, hear: int) -> None:
        """Take in what was said so far."""
        while select.select([hear], [], [], 0)[0]:
            said = os.read(hear, 4096 // SAID.size * SAID.size)
            if not said:
                return
            for child, which, count in SAID.iter_unpack(said):
                self.said[child, which] = count

    def _kill_and_reap(self, hear: int) -> set[int]:
        """Kill whom the parent is to kill, each at a time of its own; who all was killed."""
        doomed = [child for child, fate in enumerate(self.fates) if fate == "parent kills"]
        self.rng.shuffle(doomed)
        killed = set()
        while self.pids:
            select.select([hear], [], [], self.rng.uniform(0, 2e-3))
            self._listen(hear)
            if doomed:
                os.kill(self.pids[doomed.pop()], signal.SIGKILL)
            for child, pid in list(self.pids.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    del self.pids[child]
                    assert status in {0, signal.SIGKILL}, "a child failed, as it says above"
                    if status:
                        killed.add(child)
        self._listen(hear)
        return killed

    def _check(self, killed: set[int]) -> None:
        assert len(killed) == sum(fate != "survives" for fate in self.fates)
        for share in self.shares:
            share.lock(timeout=IN_TIME_S)
            share.unlock()
        values = self.shares[SHARE].get(), self.shares[DICT].copy()
        for child in range(len(self.fates)):
            more = 0
            for which, value in enumerate(values):
                found, said = value.get(child, 0), self.said[child, which]
                assert found >= said, f"child {child} lost {said - found} of {said} changes"
                more += found - said
            assert more <= (child in killed), f"child {child} has {more} changes too many"
        found_dead = sum(share.info().holders_found_dead for share in self.shares)
        assert self.fates.count("dies in a block") <= found_dead <= len(killed)
        self._goes_on()

    def _goes_on(self) -> None:
        for share in self.shares:
            version = share.version
            with share.locked(timeout=IN_TIME_S) as view:
                view["next"] = 1
            assert (share.version, share.info().holder_pid) == (version + 1, None)


# --- Planted bugs ----------------------------------------------------------------------------


def _late_commit() -> None:
    """What a block returned from is published with the next block only, if there is one."""
    real, late = inside.value_commit, []

    def broken(store: Any, frames: Any) -> int:
        late.append(frames)
        return int(real(store, late.pop(0)) if len(late) > 1 else store.version)

    inside.put("value_commit", broken)


PLANTED = {"no lock": sometimes_no_lock, "late commit": _late_commit}
