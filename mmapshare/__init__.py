"""Share any Python object among processes, with transactions that a kill cannot tear.

>>> from mmapshare import Share
>>> share = Share({"hits": 0})
>>> with share.locked() as view:
...     view["hits"] += 1
>>> share.get()
{'hits': 1}
"""

from ._decorator.functions import SharedFunction, shared_state
from ._dict import DictSnapshot, SharedDict
from ._share import Share, Snapshot
from ._shared.base import ShareInfo, locked
from ._transaction.block import Transaction
from ._transaction.view import View
from .errors import (
    ClosedError,
    CorruptRegionError,
    DeadlockError,
    EmptyShareError,
    HandleError,
    LockTimeout,
    MmapShareError,
    RegionFullError,
    TransactionError,
    UnloadableError,
    UnpicklableError,
    VersionConflict,
    ViewClosedError,
)

__all__ = [
    "ClosedError",
    "CorruptRegionError",
    "DeadlockError",
    "DictSnapshot",
    "EmptyShareError",
    "HandleError",
    "LockTimeout",
    "MmapShareError",
    "RegionFullError",
    "Share",
    "ShareInfo",
    "SharedDict",
    "SharedFunction",
    "Snapshot",
    "Transaction",
    "TransactionError",
    "UnloadableError",
    "UnpicklableError",
    "VersionConflict",
    "View",
    "ViewClosedError",
    "locked",
    "shared_state",
]


def load_ipython_extension(ipython: object) -> None:
    """What ``%load_ext mmapshare`` calls; the magics are in `integrations.ipython`."""
    from .integrations.ipython import load

    load(ipython)
