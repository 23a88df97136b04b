"""An exception at every bytecode, and at random moments: nothing is held, nothing is torn."""

from __future__ import annotations

import contextlib
import dis
import itertools
import signal
import sys
from collections.abc import Callable
from typing import Any

from lean import Events
from scenes import SCENES, Scene
from support import PACKAGE, inside, trap
from support.inside import Transaction

from mmapshare import MmapShareError, SharedDict

KINDS = (KeyboardInterrupt, MemoryError, OSError)


def sweep(events: Events, name: str, rounds: int, planted: str | None = None) -> int:
    """Raise at each bytecode of a scene, each round another kind of exception; how often."""
    sys.unraisablehook = _silent  # What strikes inside of a finaliser can only be reported.
    scene = SCENES[name]()
    if planted is not None:
        PLANTED[planted]()
    last = [False] * rounds
    struck = 0
    for number in events(itertools.count()):
        step, turn = divmod(number, rounds)
        at = _strike(scene, step + 1, KINDS[(step + turn + events.seed) % len(KINDS)])
        sprung = at is not None
        struck += sprung
        _release_indexes(scene, at)
        scene.check(killed=False)
        scene.usable()
        last[turn] = not sprung
        if not sprung:
            break
    return struck


def _strike(scene: Scene, step: int, kind: type[BaseException]) -> str | None:
    """Raise in the middle of a scene; at what kind of instruction, None where it was over."""
    at = None

    def spring() -> None:
        nonlocal at
        at = _instruction(sys._getframe(1))
        raise kind("struck")

    # What strikes on the way in or out of pickling may come as the cause of an error of ours.
    with contextlib.suppress(kind, MmapShareError), trap(step, spring):
        scene.act()
    return at


def _instruction(frame: Any) -> str:
    """The name of the instruction that the package was about to do."""
    while not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    opcode = frame.f_code.co_code[frame.f_lasti]
    return dis.opname[opcode]


NEVER_RAISE = {
    "NOP", "LOAD_CONST", "LOAD_COMMON_CONSTANT", "SWAP", "COPY", "PRECALL", "CALL",
}  # fmt: skip
"""Instructions before which CPython looks for no signal, and which cannot fail themselves.

(The call is that of the mutex' ``__exit__``, in C: signals wait until it has let go.)
"""


def _release_indexes(scene: Scene, at: str | None) -> None:
    """A ``with`` statement of CPython has such instructions that its cleanup does not cover."""
    for share in scene.shares:
        if isinstance(share, SharedDict):
            mutex = inside.store_of(share).mutex()
            assert at in NEVER_RAISE or not mutex._is_owned(), f"the index is left locked by {at}"
            while mutex._is_owned():
                mutex.release()


def _silent(unraisable: Any) -> None:
    pass


# --- Storms ----------------------------------------------------------------------------------

STORMS = ("block", "nested block", "rollback", "set", "update", "lock, set, unlock",
          "decorated function", "one key", "several keys", "several shares")  # fmt: skip


class Struck(BaseException):
    """What the signals' handler raises."""


def storm(events: Events, count: int, interrupts: int, planted: str | None = None) -> int:
    """So many storms of so many signals, at random moments of transactions without pause."""
    sys.unraisablehook = _silent
    if planted is not None:
        PLANTED[planted]()
    for number in events(range(count)):
        scene = SCENES[STORMS[number % len(STORMS)]]()

        def struck(scene: Scene = scene) -> None:
            # The traceback keeps everything alive: no finaliser has helped yet.
            for share in scene.shares:
                assert inside.token_of(share) is None, "the lock is held"

        _storm(scene, interrupts, events.rng(), struck)
        scene.usable()
        events.count += interrupts - 1
    return count * interrupts


def _storm(scene: Scene, interrupts: int, rng: Any, struck: Callable[[], None]) -> None:
    count = 0
    armed = False

    def strike(signum: int, frame: object) -> None:
        nonlocal count
        if armed:
            count += 1
            raise Struck

    before = signal.signal(signal.SIGALRM, strike)
    try:
        while count < interrupts:
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 300e-6))
                armed = True
                for _ in range(50):
                    with contextlib.suppress(KeyError):  # The item is popped already.
                        scene.act()
                armed = False
            except Struck:
                armed = False
                struck()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def second_line(events: Events, interrupts: int) -> int:
    """Without the guard locks stay held, and the owner's next block clears them; how many."""
    PLANTED["no guard"]()
    scene = SCENES["block"]()
    (share,) = scene.shares
    held = 0

    def struck() -> None:
        nonlocal held
        if inside.token_of(share) is not None:
            held += 1
            with share.locked() as view:
                view["n"] = held
            assert inside.token_of(share) is None
            assert share.get()["n"] == held

    for _ in events([0]):
        _storm(scene, interrupts, events.rng(), struck)
    scene.usable()
    return held


# --- Planted bugs ----------------------------------------------------------------------------


def _no_guard() -> None:
    """Transaction without its protection at the first instruction."""
    code = Transaction.__exit__.__code__
    start, rest = inside.table_number(code.co_exceptiontable)
    length, rest = inside.table_number(rest)
    assert start == 0, "the guard is not in place"
    narrowed = bytes([0x80 | 2]) + inside.table_digits(length - 2) + rest
    unguarded = type(Transaction.__exit__)(
        code.replace(co_exceptiontable=narrowed), Transaction.__exit__.__globals__
    )
    inside.EXITS.add(inside.in_steps(unguarded).__code__)  # Where it is looked for by its code.
    inside.put("transaction_exit", unguarded)


def _no_abandon() -> None:
    """A set that lets go of the lock on its ordinary way out only."""

    def broken(store: Any, changes: Any, expect: Any, timeout_s: float | None, kept: Any) -> int:
        token = inside.token_by(inside.current_owner())
        store.lock.acquire(token, None)
        version = inside.put_value(store, changes)
        store.lock.release()
        return int(version)

    inside.put("store_put", broken)


PLANTED = {"no guard": _no_guard, "no abandon": _no_abandon}
