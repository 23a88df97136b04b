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

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import _compiled as _compiled  # First: it finds what `_cores` chooses from.
from . import _cores
from ._decorator import SharedFunction, shared_state
from ._dict import SharedDict
from ._late import importing
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

core = _cores.use("c")
"""What does the work that is done all the time: "c", the compiled core, or "python"."""

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
    "trace",
]

if TYPE_CHECKING:
    from ._trace import Tracing

if "MMAPSHARE_TRACE" in os.environ:
    from ._trace import start_as_told

    start_as_told(os.environ["MMAPSHARE_TRACE"])


def trace(path: str | os.PathLike[str] | None = None) -> Tracing:
    """Record who waits for which share, who holds it and what is committed, in a ``with`` block.

    It records this process, and those that are forked or started (spawned, by subprocess) in the
    block; a server or a pool that was there before is not told. For programs that are not ours to
    change set ``MMAPSHARE_TRACE`` to a folder, to which each process records that imports
    mmapshare then; ``mmapshare trace FOLDER`` shows what is there.

    Args:
        path: where a Chrome trace is written at the end, which https://ui.perfetto.dev opens;
            None: nowhere.

    Returns:
        What the ``with`` block is given: it has a `summary`, an `svg`, and shows itself in a
        notebook.

    Safety: any thread may begin it; a second one within the first sees what comes in its own time.
    A process that is killed leaves what it had written up to then; one that goes on afterwards is
    cut off. While nothing is recorded this costs nothing; while it is, Python's core works (see
    `core`), by which a small block takes about a fifth longer then.

    >>> import mmapshare
    >>> share = mmapshare.Share(0)
    >>> with mmapshare.trace() as trace:
    ...     share.set(1)
    2
    >>> trace
    <Trace: 1 events, 1 processes>
    """
    with importing:
        from ._trace import Tracing

    return Tracing(path)


def load_ipython_extension(ipython: object) -> None:
    """What ``%load_ext mmapshare`` calls; the magics are in `integrations.ipython`."""
    from .integrations.ipython import load

    load(ipython)
