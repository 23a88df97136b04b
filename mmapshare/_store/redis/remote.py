"""What the stores on a server have in common: a hash, how it is asked, and its life."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
import weakref
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Any, ClassVar, NoReturn

import attrs

from ..._closed import CLOSED
from ..._lock import THREAD, Backend, LockToken, Pause, level_of_caller
from ..._weak import members
from ...errors import (
    DurabilityError,
    LeaseLostError,
    RegionFullError,
    ShareNotFoundError,
    StoreLostError,
)
from ..base import Stats, Store
from .address import ServerAddress
from .ear import Ears
from .keys import keys_of
from .lease import LeaseLock
from .orders import Order, Writer
from .resp import packed
from .scripts import TOUCH, UNLINK
from .sealing import Seal
from .together import commit_together
from .wire import Script, Wire

_warned: set[str] = set()
_live: weakref.WeakSet[Any] = weakref.WeakSet()
"""The stores of this process, for forks."""


@attrs.frozen
class Found:
    """A share as it was found on a server: what its hash says that never changes."""

    address: ServerAddress
    wire: Wire
    region_id: bytes
    content: str
    max_size: int

    def open_store(self, kind: type[Store], *codec: Any) -> Any:
        """The store of it, as one of that kind holds it in memory."""
        with_keys = bool(codec)
        from_here: Any = STORES[with_keys]
        return from_here(self, *codec)

    def close(self) -> None:
        self.wire.close()


STORES: dict[bool, type[Any]] = {}
"""The stores on a server: of a value, and, True, of values by key."""


class RemoteStore(Store):
    """A share on a server; see `_store.base` for what its methods promise.

    Without the GIL: what a commit goes by is the holder's alone; the writers of those who have no
    lock are taken out of their deque while they are in use.
    """

    __slots__ = (
        "__weakref__",
        "_address",
        "_ears",
        "_holder",
        "_pending",
        "_writers",
        "content",
        "is_unborn",
        "kept",
        "lease_us",
        "lock",
        "max_size",
        "names",
        "region_id",
        "seal",
        "server",
        "wire",
    )  # fmt: skip

    nap_s = 1.0
    take_script: ClassVar[Script]
    commit_script: ClassVar[Script]
    create_script: ClassVar[Script]
    parts: ClassVar[tuple[bytes, ...]]
    """What beside the hash belongs to it, in the order that the scripts know."""

    def __init__(self, found: Found) -> None:
        address = found.address
        self._address = address
        self.server = address.server.url
        self.wire = found.wire
        self.region_id = found.region_id
        self.content = found.content
        self.max_size = found.max_size
        self.kept: Any = None
        self.names = keys_of(address.name, self.parts)
        self.lease_us = b"%d" % int(1e6 * address.lease_s)
        self.seal = Seal(found.region_id, address.secret)
        self.is_unborn = False
        """It is being made, and nobody else can see it: nothing is asked of the server yet."""
        self._ears = Ears(self.wire, self.names[0] + b":commits")
        self._enter_process()
        self.lock: Any = LeaseLock(self)
        _live.add(self)

    def _enter_process(self) -> None:
        self._writers: deque[Writer] = deque()
        self._holder = Writer()
        """Who has the lock: one at a time."""
        self._pending: tuple[Any, bytes] | None = None
        """The changes of a commit that may have been interrupted, and its tag: see `tag_of`."""

    def after_fork_in_child(self) -> None:
        """Have nothing of the parent's, whose connections and lease go on."""
        self.wire.after_fork_in_child()
        self._ears.after_fork_in_child()
        self._enter_process()
        self.lock.after_fork_in_child()

    # --- What the lock asks for ------------------------------------------------------------

    def take_arguments(self) -> tuple[bytes, ...]:
        """What goes to the server with the wish for the lock, to bring what is new here."""
        raise NotImplementedError

    def taken(self, rest: list[Any]) -> None:
        """The lock was taken, and that came with it."""
        raise NotImplementedError

    def first(self) -> tuple[bytes, ...]:
        """What it was given while nobody else could see it, as `create_script` wants it."""
        raise NotImplementedError

    # --- Asking ----------------------------------------------------------------------------

    def fields(self, *names: bytes) -> list[Any]:
        """Fields of the hash; StoreLostError where it is another region's."""
        found: list[Any]
        region_id, *found = self.wire.call(b"HMGET", self.names[0], b"id", *names)
        if region_id != self.region_id:
            raise self.lost()
        return found

    def lost(self) -> StoreLostError:
        return StoreLostError(
            f"share {self._address} is gone from its server, or another one has its name: it was "
            "unlinked, flushed or evicted. Close it and open it again"
        )

    def older(self, seen: int, found: int) -> StoreLostError:
        return StoreLostError(
            f"share {self._address} went back from version {seen} to {found}: its server has lost "
            "commits, in a failover or a restart from an older dump. What it has now is whole"
        )

    def refuse(self, reply: list[Any]) -> NoReturn:
        """Raise what a script's answer says that is no success."""
        what = reply[0]
        if what == b"full":
            needed = int(reply[1])
            raise RegionFullError(
                f"all values together take {needed:,} bytes, the ceiling is {self.max_size:,} "
                "bytes; make it with a larger max_size. What is stored is as it was",
                needed_bytes=needed,
                max_size_bytes=self.max_size,
            )
        if what in {b"lost", b"stale"}:
            raise LeaseLostError(
                f"nothing was committed: the block took longer than its lease of "
                f"{self._address.lease_s:g} s, and others have had the lock since (version "
                f"{int(reply[1])} now). Make the block shorter, or open the share with a longer "
                "lease"
            )
        raise self.lost()

    # --- Committing ------------------------------------------------------------------------

    def order(self, changes: Any, last: bool) -> Order:
        """What to send to have changes committed by the holder of the lock."""
        raise NotImplementedError

    def committed(self, order: Order, version: int) -> None:
        """It was made: keep what this process knows by that."""
        raise NotImplementedError

    def commit(self, changes: Any) -> int:
        return self._commit(changes, self.is_last)

    def commit_together(self, made: Sequence[tuple[Any, Any]]) -> None:
        commit_together(made)

    def _commit(self, changes: Any, last: bool) -> int:
        order = self.order(changes, last)
        if self.is_unborn:
            reply: list[Any] = [b"ok", b"1"]
        else:
            reply = self.wire.run(self.commit_script, self.names, *self.order_arguments(order))
        return self.ordered(order, reply)

    def order_arguments(self, order: Order) -> list[bytes]:
        """An order as `commit_script` wants it."""
        lease, last = self.lock.lease, b"1" if order.last else b"0"
        begin = (self.region_id, lease.token, lease.fence, b"%d" % order.base)
        return [*begin, self.tag_of(order.changes), last, self.lease_us, *order.arguments]

    def ordered(self, order: Order, reply: list[Any]) -> int:
        """What the server answers to an order."""
        self.done()
        if reply[0] != b"ok":
            self.refuse(reply)
        version = int(reply[1])
        self.committed(order, version)
        if order.last:
            self.lock.lease.let_go()
        self.replicated()
        return version

    def tag_of(self, changes: Any) -> bytes:
        """What tells a commit from others: the same for the same changes, until `done`.

        Who is interrupted may commit the same again; what was made once is not made twice.
        """
        pending = self._pending
        if pending is None or pending[0] is not changes:
            pending = self._pending = (changes, self._holder.next())
        return pending[1]

    def done(self) -> None:
        """The commit that has the tag was made, or refused."""
        self._pending = None

    @contextlib.contextmanager
    def writing(self) -> Iterator[bytes]:
        """The tag of a commit by who has no lock."""
        try:
            writer = self._writers.pop()
        except IndexError:
            writer = Writer()
        yield writer.next()
        self._writers.append(writer)  # Not after an error: nobody knows what has become of it.

    @property
    def is_last(self) -> bool:
        """Whether the holder lets go as soon as it has committed: as blocks do, by their view."""
        return type(self.lock.token) is not LockToken

    def replicated(self) -> None:
        """Wait until so many replicas have the last commit as the address says."""
        count, timeout_s = self._address.server.replicas
        if not count or self.is_unborn:
            return
        end = time.monotonic() + timeout_s
        while True:
            # Replicas are waited for up to what a connection wrote itself: so it writes something.
            chunk_ms = b"%d" % max(1, int(500 * min(timeout_s, self.wire.reply_s)))
            touch = (b"EVAL", TOUCH.source, b"1", self.names[0], self.region_id)
            wait = (b"WAIT", b"%d" % count, chunk_ms)
            found = self.wire.exchange(packed(touch) + packed(wait), 2)
            if found >= count:
                return
            if time.monotonic() > end:
                raise DurabilityError(
                    f"it is committed, but {found} of {count} replicas have it after "
                    f"{timeout_s:g} s: a failover may lose it"
                )

    # --- Waiting ---------------------------------------------------------------------------

    def sleep(self, version: int, until_ns: int, timeout_s: float) -> bool:
        for wait, seconds in self.sleeping(version, timeout_s, THREAD):
            wait(seconds)
        return True

    def sleeping(
        self, version: int, timeout_s: float, backend: Backend
    ) -> Generator[Pause, None, None]:
        return self._ears.listening(lambda: self.version == version, timeout_s, backend)

    # --- What is known without asking, of a recorder ---------------------------------------

    @property
    def base_version(self) -> int:
        """The version that the holder changes, or has made."""
        raise NotImplementedError

    @property
    def seen_version(self) -> int:
        """The newest version that this process has seen."""
        raise NotImplementedError

    # --- Its life --------------------------------------------------------------------------

    @property
    def address(self) -> str:
        return str(self._address)

    def location(self, for_child: bool) -> ServerAddress:
        return self._address if for_child else self._address.public()

    def is_at(self, other: Any) -> bool:
        """By the server's own name for this run of it: there are many URLs that lead to one."""
        mine, theirs = self.location(False), other.location(False)
        if (mine.server.url, mine.name) == (theirs.server.url, theirs.name):
            return True
        return mine.name == theirs.name and bool(self.server_run() == other.server_run())

    def server_run(self) -> bytes:
        """What the server calls this run of itself."""
        told: bytes = self.wire.call(b"INFO", b"server")
        return told.partition(b"run_id:")[2].split()[0]

    def unlink(self) -> None:
        if self.wire.run(UNLINK, self.names, self.region_id)[0] != b"ok":
            raise ShareNotFoundError(
                f"share {self._address} has been unlinked already, or another one has its name"
            )

    def used_bytes(self) -> int:
        """What is stored takes so much."""
        raise NotImplementedError

    def stats(self) -> Stats:
        sizes = [self.wire.call(b"MEMORY", b"USAGE", key) or 0 for key in self.names]
        return Stats(
            version=self.version,
            used_bytes=self.used_bytes(),
            resident_bytes=sum(sizes),
            max_size=self.max_size,
            kind="redis",
        )

    def close(self) -> None:
        _live.discard(self)
        self.lock.close()
        self._ears.close()
        self.wire.close()
        self.names = CLOSED


def warn_of(address: ServerAddress) -> None:
    """Say once what it means that anybody on the way could change what is loaded here."""
    server = str(address.server)
    if address.secret is None and not address.server.is_beside_us() and server not in _warned:
        _warned.add(server)
        warnings.warn(
            f"{server} is another machine, and the share has no secret: whoever has that server, "
            "or the way to it, can have this process run any code, since values are pickles. Give "
            "secret=, or MMAPSHARE_SECRET, and all values are signed; and use rediss://",
            RuntimeWarning,
            stacklevel=level_of_caller(),
        )


def _after_fork_in_child() -> None:
    for store in members(_live):
        store.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # only with fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
