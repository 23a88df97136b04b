"""Who acts: the thread, and within it the task. The process is told apart by fork hooks.

An owner is compared by equality only. It is the thread's ident, or the running `asyncio.Task`
where there is one, or the ident together with trio's task, so that two tasks of one thread
exclude each other as two threads do.
"""

from __future__ import annotations

import sys
from threading import get_ident
from typing import Any

_modules = sys.modules


class Claim:
    """One owner's claim on a lock, told from others by identity.

    A gate names the claim that has it, so that an interrupt between any two steps leaves a state
    that the same claim's release puts right, from any thread. ``_owner`` is None once the claim
    is void: its block is over, or it was the parent's and this is a forked child. (The name is
    a private one since a `View` is a claim too, and gives all public names to its value.)
    """

    __slots__ = ("_inner", "_owner")

    _owner: object
    _inner: Claim | None
    """The view of a block between `lock` and `unlock`, which this claim covers."""


def claim_by(owner: object) -> Claim:
    """A new claim of ``owner``."""
    claim = Claim()
    claim._owner = owner
    claim._inner = None
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


def current_owner() -> object:
    """The caller's identity: its task where one runs, else its thread's ident.

    asyncio and trio are never imported for this: where nobody has, no task can be running.
    """
    if "asyncio.tasks" in _modules:
        task = _current_task(_modules["asyncio.tasks"])
        if task is not None:
            return task
    if "trio" in _modules and in_trio():
        return get_ident(), _modules["trio"].lowlevel.current_task()
    return get_ident()


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


def shares_thread(owner: object) -> bool:
    """Whether ``owner`` runs in the caller's thread, so that waiting for it here cannot end.

    A task whose loop stands still counts too: nobody lets it go on.
    """
    if isinstance(owner, tuple):
        (owner, _) = owner
    if isinstance(owner, int):
        return owner == get_ident()
    events: Any = _modules["asyncio.events"]
    task: Any = owner
    loop = task.get_loop()
    return loop is events._get_running_loop() or not loop.is_running()
