"""What a store is: committed bytes that processes share, with versions and one lock.

Faces, views and transactions know stores by these methods alone; what lies below, memory, a file
or a server, is a medium's own business. A store knows bytes, and never the objects they stand for.

A `ValueStore` holds one value: its *frames*, flat bytes-like objects. A `KeyedStore` holds many,
by key. What is read of a value is a tuple that begins with version and frames; what is read of keys
is a `State`, or a look at one.

- `read`, `version`, `frames`, `stands`: any thread or process at any time; they wait for nobody.
- `current`, `reserve`, `commit`, `put_inside`: who has the lock.
- `put`: lock, commit and unlock in one.

`commit` publishes all of a change or, whatever is raised or killed, nothing of it; made again, the
same commit changes nothing. An exception leaves nothing published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from .._lock.lock import Lock
from ..errors import VersionConflict

T = TypeVar("T")

Frame = bytes | bytearray | memoryview
Base = tuple[Any, ...]
"""One version of a value: its number (0: none), private copies of its frames, and what the store
wants to know when it is followed by another."""
Definitions = Mapping[bytes, tuple[bytes, tuple[bytes, ...]]]
Changes = tuple[Sequence[Any], Sequence[tuple[Any, tuple[Frame, ...]]], Any]
"""Keys that are gone, keys that are set with their values' frames, and definitions that these need,
whether or not the store has them yet."""


class KeyCodec(NamedTuple):
    """What a keyed store is given to understand keys and manifests, which are objects.

    Attributes:
        encode, decode: an object to bytes and back.
        check: UnpicklableError where one of these keys could not be found again.
        needs_of: the definitions that a value names whose first frame ends there in a memory.
        closure: those, with what they need in turn, among all.
    """

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    check: Callable[[Sequence[Any]], None]
    needs_of: Callable[[Any, int], list[bytes]]
    closure: Callable[[Any, Any], dict[bytes, Any]]


class Stats(NamedTuple):
    """What a store tells of itself: the newest version, and sizes in bytes."""

    version: int
    used_bytes: int
    resident_bytes: int
    max_size: int
    kind: str


class State(Protocol):
    """All keys at one version.

    Attributes:
        version: which one.
        places: where each key's value is, in the dict's order. A place says nothing to others; an
            equal one, in another state of the same ``run``, is the same value.
        run: see there.
        definitions: those that values need, by key; more may come, none goes.
    """

    version: int
    places: Any
    run: Any
    definitions: Any


class Store(Protocol):
    """What every store has."""

    lock: Lock
    region_id: bytes
    kept: Any
    """What the newest values of this process refer to, which is kept alive: see `keep`."""

    @property
    def version(self) -> int:
        """The newest committed version; 0 while there is none. Never older than what was seen."""

    def put(self, changes: Any, expect: Any, timeout_s: float | None, kept: Any) -> int | None:
        """Lock, commit, unlock: the version; None, nothing done, where the caller has the lock.

        With ``expect`` only where that stands, else VersionConflict: of a value the newest version,
        of keys what says so of the newest state.
        """

    def put_inside(self, changes: Any, expect: Any, kept: Any) -> int:
        """The same between `Lock.acquire` and `Lock.release`."""

    def keep(self, changes: Any, kept: Any) -> None:
        """Keep alive what a commit refers to, for as long as this process replaces it not."""

    def sleep(self, version: int, until_ns: int, timeout_s: float) -> bool:
        """Sleep while that is the version, at most so long; False where there is no such sleep."""

    def stats(self) -> Stats:
        """How much there is."""

    def close(self) -> None:
        """Let go of it in this process."""


class ValueStore(Store, Protocol):
    """One value."""

    def read(self) -> Base:
        """The newest commit."""

    def current(self) -> Base:
        """The newest commit, for the lock's holder."""

    def holds(self, frames: Sequence[Frame]) -> bool:
        """Whether these are the newest commit's frames, byte by byte; for the lock's holder."""

    def reserve(self, frames: Sequence[Frame]) -> None:
        """See to it that `commit` of the same finds room; RegionFullError where it would not."""

    def commit(self, frames: Sequence[Frame]) -> int:
        """Commit these as the version after the newest; returns it.

        RegionFullError, with nothing changed, where they do not fit.
        """

    def glimpse(self, most: int) -> bytes:
        """The first bytes of the newest commit's first frame, for people to look at."""


class KeyedStore(Store, Protocol):
    """Many values, by key."""

    def read(self, look: Callable[[Any], T]) -> T:
        """What ``look`` finds in the newest state; called again where a writer overtook it."""

    def newest(self, key: Any) -> bytes | None:
        """The one frame of a key's newest value; None where it takes more than a glance to tell."""

    def current(self) -> Any:
        """The newest state, for the lock's holder."""

    def fetch(self, key: Any) -> tuple[Sequence[Frame], Any]:
        """The frames of a key's newest value, and where its definitions are; KeyError if none."""

    def single(self, place: Any) -> bytes | None:
        """A value's one frame, None where it has several; as `frames`."""

    def frames(self, place: Any) -> Sequence[Frame]:
        """Private copies of a value's frames, for `look`, and for the lock's holder."""

    def holds(self, place: Any, frames: Sequence[Frame]) -> bool:
        """Whether these are the frames that are there, byte by byte; for the lock's holder."""

    def stands(self, state: Any) -> bool:
        """Whether all that was read of a state until now was what had been written."""

    def mutex(self) -> Any:
        """A context manager; the states of this process change under it alone."""

    def keys(self, backward: bool) -> Iterator[Any]:
        """The keys in order as they are now, whatever is changed meanwhile."""

    def size_of(self, place: Any) -> int:
        """Bytes that a value takes."""

    def image(self) -> Any:
        """All of one version, copied: has ``version``, ``places``, ``definitions``, `frames`."""

    def reserve(self, changes: Changes) -> None:
        """See to it that `commit` of the same finds room; RegionFullError where it would not."""

    def commit(self, changes: Changes) -> None:
        """Commit that keys are gone and others are set, in this order, all together.

        RegionFullError, with nothing changed, where the values do not fit.
        """


def conflict(expected: int, found: int) -> VersionConflict:
    return VersionConflict(
        f"expected version {expected}, found {found}; take a new snapshot() and try again",
        expected=expected,
        found=found,
    )
