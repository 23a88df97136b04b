"""Descent: which object here is the very one that another process of the family had at a fork.

Address, name and content prove nothing: two processes that define a class alike after a fork may
find the same memory for it. So each object has a *mark*, drawn at random when it is first asked
for, and at the latest at a fork, where everything alive that may be asked for later gets one.
Children inherit the marks; what is made after the fork has another one in each process.
"""

from __future__ import annotations

import os
import sys
import weakref
from types import ModuleType
from typing import Any, Final

import cloudpickle

MAINS: Final = ("__main__", "__mp_main__")
"""The program's own module, and its name in a child that multiprocessing spawned."""

_marks: dict[int, tuple[Any, bytes]] = {}
"""By address: a weak reference to what has the mark, and the mark."""


def mark_of(obj: object) -> bytes:
    """The object's mark, the same in each process that has it by descent."""
    entry = _marks.get(id(obj))
    if entry is None or entry[0]() is not obj:
        entry = _marks[id(obj)] = (weakref.ref(obj), os.urandom(16))
    return entry[1]


def descendant(address: int, mark: bytes) -> Any:
    """The object at this address, if it has that mark; else None."""
    entry = _marks.get(address)
    return entry[0]() if entry is not None and entry[1] == mark else None


def forget(address: int) -> None:
    """Drop the mark of an object that has died."""
    entry = _marks.get(address)
    if entry is not None and entry[0]() is None:
        _marks.pop(address, None)


def _mark_all() -> None:
    """Mark all classes, and the modules whose classes travel by value; half a µs for each."""
    mark, ref, subclasses = os.urandom(16), weakref.ref, type.__subclasses__
    seen = {id(object)}
    todo: list[Any] = [object]
    get, see = _marks.get, seen.add
    for cls in todo:  # It grows as it is walked.
        for child in subclasses(cls):
            address = id(child)
            if address not in seen:
                see(address)
                todo.append(child)
                entry = get(address)
                if entry is None or entry[0]() is not child:
                    _marks[address] = (ref(child), mark)
    for name in (*MAINS, *cloudpickle.list_registry_pickle_by_value()):
        home = sys.modules.get(name)
        if isinstance(home, ModuleType):
            mark_of(home)
    for address in set(_marks) - seen:  # Copied in one step: other threads may add some.
        forget(address)


if hasattr(os, "register_at_fork"):  # only with fork
    os.register_at_fork(before=_mark_all)
