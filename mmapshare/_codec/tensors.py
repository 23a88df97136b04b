"""torch's tensors: their storages are buffers, as the memory of numpy's arrays is.

torch itself pickles a storage into the stream, together with its address. Here it is written once,
straight into the region, and tensors that share one share it again when they are loaded. What lies
on other devices than the CPU goes torch's own way. Storing imports no torch, and loading only where
a tensor is loaded. A loaded tensor's storage cannot be resized, as a loaded array's memory cannot.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from .._late import importing
from .pickler import Chunks, prefer, preferred


def install() -> None:
    """Have the codec go by `dumps`; it puts its own here."""
    raise NotImplementedError


def learn() -> bool:
    """Store tensors our way from now on; False where that is so already, or cannot be yet."""
    if preferred:  # only with torch
        return False
    storage: Any = getattr(sys.modules.get("torch"), "storage", None)
    found: dict[type, Callable[[Any], Any]]
    try:
        found = {storage.TypedStorage: _reduce_typed, storage.UntypedStorage: _reduce_untyped}
    except AttributeError:
        return False
    prefer(found)  # only with torch
    install()  # only with torch
    return True  # only with torch


class _Table(dict[type, Callable[[Any], Any]]):
    """The reducers that all picklers go by, and ours."""

    def __missing__(self, kind: type) -> Callable[[Any], Any]:  # only with torch
        return preferred.get(kind) or copyreg.dispatch_table[kind]


_table = _Table()


def dumps(  # only with torch
    value: object, protocol: int, *, buffer_callback: Callable[[Any], Any]
) -> bytes:
    """As `pickle.dumps`, but with our reducers."""
    chunks = Chunks()
    pickler = pickle.Pickler(chunks, protocol, buffer_callback=buffer_callback)
    pickler.dispatch_table = _table
    pickler.dump(value)
    return b"".join(chunks)


def _reduce_typed(storage: Any) -> Any:  # only with torch
    untyped = storage._untyped_storage
    if untyped.device.type != "cpu":
        return storage.__reduce__()
    return _typed, (untyped, storage.dtype)


def _reduce_untyped(storage: Any) -> Any:  # only with torch
    if storage.device.type != "cpu":
        return storage.__reduce__()
    size = storage.nbytes()
    if not size:
        return _untyped, (b"",)
    with importing:
        import ctypes  # Few need it.

    memory: Any = (ctypes.c_char * size).from_address(storage.data_ptr())
    memory.storage = storage  # It must not be gone before its buffer is.
    return _untyped, (pickle.PickleBuffer(memory),)


def _typed(untyped: Any, dtype: Any) -> Any:  # only with torch
    torch = import_module("torch")
    return torch.storage.TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)


def _untyped(buffer: Any) -> Any:  # only with torch
    torch = import_module("torch")
    learn()  # Whoever has loaded one may store it.
    if not len(buffer):
        return torch.UntypedStorage(0)
    return torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()
