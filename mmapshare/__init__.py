"""Share any Python object among processes, with transactions that a kill cannot tear.

>>> from mmapshare import Share
>>> share = Share({"hits": 0})
>>> with share.locked() as view:
...     view["hits"] += 1
>>> share.get()
{'hits': 1}

How a value gets into memory. `Share.set` (`_share`) has it encoded to frames (`_codec.frames`) and
puts these into the share's store (`_store.base`: lock, commit, unlock, in one function). The
lock (`_lock.lock`) is the process's queue, then flock. The commit (`_store.value`) writes the
frames behind the newest record, where `_store.areas` has memory, and `Region.publish` stores slot
and version. A block, ``with share.locked()``, does it in two halves (`_transaction.block`):
`__enter__` takes the lock and opens a view, whose draft is decoded from what the store reads;
`__exit__` asks the view for its changes (`_transaction.view`, for keys `mapping`), commits them and
unlocks. A `SharedDict` has a store by key (`_store.keyed`), each of whose commits is a record in a
log (`_store.log`); each process keeps an index of it (`_store.index`). What is opened by a name or
a path is found, or made, by `_store.named`; in a file `FileRegion.publish` (`_store.file`) stands
for `Region.publish`. What is opened by the URL of a server is a hash there (`_store.redis`): the
lock is a lease (`_store.redis.lease`), and each act one script (`_store.redis.scripts`).

Where it comes from. Perl's IPC::Mmap::Share (2006) made an area, `set` a structure and `get` it
back in a forked process, between `lock` and `unlock`:

==============================================  ==================================================
Perl                                            here
==============================================  ==================================================
``IPC::Mmap::Share->new(SIZE)``, a reservation  ``Share(max_size="64M")``, a ceiling; it grows
``$share->set($data)``                          ``share.set(data)``
``$share->get``                                 ``share.get()``, without a lock
``$share->lock; ...; $share->unlock``           ``with share.locked() as view:``, or the same two
Storable: no code, no closures                  cloudpickle: lambdas, closures, classes
a killed holder's lock: as the system has it    free at once, the value whole
==============================================  ==================================================
"""

from ._decorator import SharedFunction, shared_state
from ._dict import SharedDict
from ._share import Share, Snapshot
from ._shared import ShareInfo, list_shares, locked
from ._transaction import DictSnapshot, Transaction, View
from .errors import (
    ClosedError,
    CorruptRegionError,
    DeadlockError,
    DurabilityError,
    EmptyShareError,
    HandleError,
    LeaseLostError,
    LockTimeout,
    MmapShareError,
    OpenError,
    RegionFullError,
    ShareExistsError,
    ShareNotFoundError,
    StoreLostError,
    StoreRefusedError,
    StoreUnreachableError,
    TransactionError,
    UnloadableError,
    UnpicklableError,
    UnsafePathError,
    VersionConflict,
    ViewClosedError,
)

__version__ = "0.1.0"

__all__ = [
    "ClosedError",
    "CorruptRegionError",
    "DeadlockError",
    "DictSnapshot",
    "DurabilityError",
    "EmptyShareError",
    "HandleError",
    "LeaseLostError",
    "LockTimeout",
    "MmapShareError",
    "OpenError",
    "RegionFullError",
    "Share",
    "ShareExistsError",
    "ShareInfo",
    "ShareNotFoundError",
    "SharedDict",
    "SharedFunction",
    "Snapshot",
    "StoreLostError",
    "StoreRefusedError",
    "StoreUnreachableError",
    "Transaction",
    "TransactionError",
    "UnloadableError",
    "UnpicklableError",
    "UnsafePathError",
    "VersionConflict",
    "View",
    "ViewClosedError",
    "list_shares",
    "locked",
    "shared_state",
]


def load_ipython_extension(ipython: object) -> None:
    """What ``%load_ext mmapshare`` calls; the magics are in `integrations.ipython`."""
    from .integrations.ipython import load

    load(ipython)
