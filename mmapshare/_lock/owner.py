"""Who acts: the thread, the greenlet in it, or the task. The process is told apart by fork hooks.

An owner is a weak reference to what runs, and compared by equality only: to the running task
where there is one (asyncio's; trio's together with its thread), else to the greenlet, else to an
object that lives as long as the thread does. So two of them that interleave in one thread
exclude each other as two threads do; what comes later is never taken for what was before, as it
would be by an ident, which the system gives out again; and it can be told that an owner has
ended.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import local
from types import CodeType, FrameType
from typing import Any, Final, TypeVar
from weakref import ref

_modules = sys.modules
F = TypeVar("F", bound=Callable[..., Any])


class _Thread:
    """One thread, for as long as it runs."""

    __slots__ = ("__weakref__", "main")

    def __init__(self) -> None:
        self.main = _main_greenlet() if _GREENLET in _modules else None
        """Where gevent or eventlet has put its own `threading.local` in place, there is one of
        these for each greenlet; those of one thread have this in common."""


class _Here(local):
    """What is the calling thread's alone; `owner` is the thread as an owner."""

    def __init__(self) -> None:
        self.thread = _Thread()
        self.owner = ref(self.thread)


_GREENLET: Final = "greenlet._greenlet"


class Claim:
    """One owner's claim on a lock, told from others by identity.

    Without the GIL: ``_owner`` is written by its owner, or by the one thread that has the claim's
    clearing for itself (see `Lock._clear`); others read it by one load.

    A gate names the claim that has it, so that an interrupt between any two steps leaves a state
    that the same claim's release puts right, from any thread. ``_owner`` is None once the claim
    is void: its block is over, or it was the parent's and this is a forked child. (The name is
    a private one since a `View` is a claim too, and gives all public names to its value.)
    """

    __slots__ = ("_busy", "_inner", "_owner")

    _owner: object
    _inner: Claim | None
    """The view of a block between `lock` and `unlock`, which this claim covers."""
    _busy: bool
    """An operation of ours is in mid-step, or was when it was stopped; a block's body is not."""

    def _void(self) -> None:
        """Make it nobody's, and what it covers: it is a parent's, and this is a forked child."""
        inner = inner_of(self)
        if inner is not None:
            inner._owner = None
        self._owner = None


def claim_by(owner: object) -> Claim:
    """A new claim of ``owner``, by an operation that is under way."""
    claim = Claim()
    claim._owner = owner
    claim._inner = None
    claim._busy = True
    return claim


def inner_of(claim: Claim) -> Claim | None:
    """What a claim covers; None where it was never set.

    Asked of the slot itself: a view without one would look among its value's attributes.
    """
    try:
        inner: Claim | None = _INNER.__get__(claim)
    except AttributeError:
        return None
    return inner


_INNER: Any = Claim.__dict__["_inner"]
_STEPS: Final[set[CodeType]] = set()


def in_steps(function: F) -> F:
    """Mark a function which is under way while its local variables have a busy claim."""
    _STEPS.add(function.__code__)
    return function


def is_ours(frame: FrameType) -> bool:
    """Whether a frame runs code of this package."""
    return str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE


_PACKAGE: Final = __name__.partition(".")[0]


def is_under_way(claim: Claim) -> bool:
    """Whether an operation that holds ``claim`` stands on the caller's own stack, in mid-step.

    Asked only where an owner finds its own claim, which is a nested block or a rare accident. What
    was interrupted, twice perhaps, is busy for ever, but stands on no stack.
    """
    busy = [one for one in (claim, inner_of(claim)) if one is not None and one._busy]
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and busy:
        if frame.f_code in _STEPS:
            found: list[object] = [*frame.f_locals.values()]
            for several in [one for one in found if type(one) is list]:
                found.extend(several)
            if any(one is other for one in busy for other in found):
                return True
        frame = frame.f_back
    return False


def current_owner() -> object:
    """The caller's identity: its task where one runs, else its greenlet, else its thread.

    asyncio, trio and greenlet are never imported for this: where nobody has, none can be running.
    A task comes first, since it may go on in a greenlet of its own for a while.
    """
    if "asyncio.tasks" in _modules:
        task = _current_task(_modules["asyncio.tasks"])
        if task is not None:
            return ref(task)
    if "trio" in _modules and in_trio():
        return here.owner, ref(_modules["trio"].lowlevel.current_task())
    if "greenlet._greenlet" in _modules:
        greenlet = _modules[_GREENLET].getcurrent()
        if greenlet.parent is not None:  # Else it is the thread itself.
            return ref(greenlet)
    return here.owner


def _main_greenlet() -> object:
    greenlet: Any = _modules[_GREENLET].getcurrent()
    return _root(greenlet)


def _root(greenlet: Any) -> object:
    while greenlet.parent is not None:
        greenlet = greenlet.parent
    return greenlet


def in_trio() -> bool:
    """Whether the caller runs in a task of trio's."""
    lowlevel: Any = getattr(_modules.get("trio"), "lowlevel", None)
    if lowlevel is None:
        return False
    if hasattr(lowlevel, "in_trio_task"):  # trio 0.27 on.
        return bool(lowlevel.in_trio_task())
    try:
        lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def _current_task(tasks: Any) -> object | None:
    # While asyncio is half imported by another thread, no loop of ours can be running yet.
    events = _modules.get("asyncio.events")
    running_loop = getattr(events, "_get_running_loop", None)
    if running_loop is None:
        return None
    loop = running_loop()
    if loop is None:
        return None
    task: object | None = tasks.current_task(loop)
    return task


def has_ended(owner: Any) -> bool:
    """Whether ``owner`` is over: it can let go of nothing any more. None is nobody."""
    if owner is None or isinstance(owner, tuple):
        return any(map(has_ended, owner or ()))
    runs = owner()
    if runs is None:
        return True
    if isinstance(runs, _Thread):
        return False
    if hasattr(runs, "get_loop"):
        return bool(runs.done() or runs.get_loop().is_closed())
    if hasattr(runs, "dead"):
        return bool(runs.dead)
    return getattr(runs.coro, "cr_frame", runs) is None


def shares_thread(owner: Any) -> bool:
    """Whether ``owner`` runs in the caller's thread, so that waiting for it here cannot end.

    A task whose loop stands still counts too: nobody lets it go on.
    """
    if isinstance(owner, tuple):
        (owner, _) = owner
    runs = owner()
    if runs is None:
        return False
    if isinstance(runs, _Thread):
        return owner is here.owner or (runs.main is not None and runs.main is _main_greenlet())
    loop = loop_of(runs)
    if loop is None:
        return _root(runs) is _main_greenlet()
    events: Any = _modules["asyncio.events"]
    return loop is events._get_running_loop() or not loop.is_running()


def stands_still(owner: Any) -> bool:
    """As `shares_thread`, for who waits through a hub: of its thread only a loop is held up."""
    if not shares_thread(owner):
        return False
    if isinstance(owner, tuple):
        return in_trio()
    loop = loop_of(owner())
    if loop is None:
        return False
    return not loop.is_running() or _current_task(_modules["asyncio.tasks"]) is not None


def loop_of(runs: Any) -> Any:
    """The event loop of what an owner refers to; None where it is no task of asyncio's."""
    return runs.get_loop() if hasattr(runs, "get_loop") else None


here: Final = _Here()
ENDED: Final[Any] = ref(_Thread())
"""The owner of a claim that was taken from an owner that had ended."""
