"""The compiled core, where there is one: its methods take the places of those that run most.

`_core.c` says what they do. Without it (no compiler when this was installed, another system or
interpreter, a Python without the GIL, ``MMAPSHARE_CORE=python``) everything is done by the methods
that stand in the classes, and done alike: processes with it and without meet in one region.
"""

from __future__ import annotations

import _thread
import fcntl
import os
import pickle
import sys
from typing import Any, Final

from . import _codec, _cores, _dict, _lock, _share, _shared, _store, _transaction, errors
from ._codec import frames, known, references
from ._late import importing
from ._lock import interrupts, owner, process_lock, queue
from ._store import index, memory, region
from ._transaction import mapping, view

_METHODS: Final[tuple[tuple[type, str, str], ...]] = (
    (_share.Share, "get", "share_get"),
    (_share.Share, "set", "share_set"),
    (_shared.Shared, "locked", "locked"),
    (_transaction.Transaction, "__enter__", "enter"),
    (_transaction.Transaction, "__exit__", "exit"),
    (view.View, "__getitem__", "view_get"),
    (view.View, "__setitem__", "view_put"),
    (mapping.MappingView, "__getitem__", "keys_get"),
    (mapping.WriteSet, "__missing__", "dict_missing"),
    (_dict.SharedDict, "__getitem__", "dict_get"),
    (_dict.SharedDict, "__setitem__", "dict_set"),
)
"""Class, name, and what `_core` calls the method that is to stand there."""


def _bound() -> Any:
    """The core, with all in hand that it calls and looks into; None where there is none."""
    if os.environ.get("MMAPSHARE_CORE") == "python" or "t" in getattr(sys, "abiflags", ""):
        return None
    with importing:
        try:
            from . import _core

            if _is_of_before(_core.__file__):
                return None
            _core.bind(_handed_in())
        except ImportError:
            return None
    interrupts.IN_CORE = _core.IN_CORE
    references.in_core = _core.is_encoding
    return _core


def _handed_in() -> dict[str, Any]:
    """What the core calls and looks into, by the names that it asks for."""
    classes = (
        _lock.Lock, _lock.LockToken, _store.MemoryKeyedStore, _store.MemoryValueStore,
        memory.MemoryStore, view.ObjectView, queue.Queue, region.Region,
        _share.Share, _shared.Shared, _dict.SharedDict, index.State, _transaction.Transaction,
        mapping.MappingView, mapping.WriteSet, errors.HandleError,
        errors.UnloadableError, errors.UnpicklableError, known.UnknownDefinitionError,
    )  # fmt: skip
    return (
        {cls.__name__: cls for cls in classes}
        | {name: vars(cls)[place] for cls, place, name in _METHODS}
        | {
            "ObjectView": view.ObjectView,
            "View": view.View,
            "HasBuffersError": frames._HasBuffersError,
            "abandoned": vars(view.View)["_abandoned"],
            "acquire": _lock.Lock.acquire,
            "attend": process_lock.attend,
            "buffered": frames._buffered,
            "by_address": frames._by_address,
            "codec": vars(frames),
            "current_owner": _lock.current_owner,
            "dumps": pickle.dumps,
            "encode": frames.encode,
            "encode_by_value": frames._encode_by_value,
            "flock": fcntl.flock,
            "give_up_or_go_on": frames._give_up_or_go_on,
            "has_buffers": frames._has_buffers,
            "here": _lock.here,
            "is_enough": frames._is_enough,
            "load_snapshot": index.load_snapshot,
            "loads": pickle.loads,
            "modules": sys.modules,
            "named": references.named,
            "native_local": isinstance(owner.here, _thread._local),
            "none": mapping.NONE,
            "recover": _codec.recover,
            "release": _lock.Lock.release,
            "take_named": _codec.take_named,
            "taken_by_value": frames._taken_by_value,
        }
    )


def _is_of_before(built: str) -> bool:
    """Whether the source beside it was changed since, in a clone: it may know another format."""
    try:
        changed = os.path.getmtime(os.path.join(os.path.dirname(built), "_core.c"))
    except OSError:  # What was installed has no source.
        return False
    return os.path.getmtime(built) < changed


def _methods(core: Any) -> dict[tuple[type, str], Any]:
    """The core's methods by class and name, described and documented as Python's are."""
    return {
        (cls, place): core.method(cls, name, place, _said(vars(cls)[place]))
        for cls, place, name in _METHODS
    }


def _said(method: Any) -> str:
    """A method's arguments and documentation, as `inspect` reads them of compiled ones."""
    code = method.__code__
    names = [*code.co_varnames[: code.co_argcount], *["*"] * (code.co_kwonlyargcount > 0)]
    names += code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    optional = method.__kwdefaults__ or {}
    said = {name: "None" if default is None else "..." for name, default in optional.items()}
    listed = ", ".join(f"{name}={said[name]}" if name in said else name for name in names)
    return f"{method.__name__}(${listed})\n--\n\n{method.__doc__ or ''}"


_cores.methods["python"] = {(cls, place): vars(cls)[place] for cls, place, _ in _METHODS}
_found: Final = _bound()
if _found is not None:
    _cores.methods["c"] = _methods(_found)
    _cores.put["c"] = _found.put
