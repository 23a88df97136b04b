"""What a store is: committed bytes that processes share, with versions and one lock.

Faces, views and transactions know stores by these methods alone; what lies below, memory, a file
or a server, is a medium's own business. A store knows bytes, and never the objects they stand for.

A medium is a subclass of `ValueStore`, which holds one value: its *frames*, flat bytes-like
objects, the first one bytes; and one of `KeyedStore`, which holds many, by key. What is abstract
here it must write. All the rest is right for any medium; one that has a shorter way overrides it.

Who may call what, and when:

- *Anytime*: any thread or process, also in the middle of what it interrupts. It waits for no
  holder of the lock, and what it returns was committed.
- *Holder*: who has ``lock``. Until that lets go, nothing else is committed.

`commit` publishes all of a change or nothing of it, whatever is raised, and wherever the process is
killed. Its own errors leave nothing published. After an interrupt it may be either, and who meets
one may commit the same again: made twice, a commit changes what it changes once. What has been
committed outlives whoever committed it; a holder that is killed leaves the newest version as it
was, and the lock to others.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from .._bytes import Frame
from .._lock import Lock, LockToken, current_owner, in_steps
from ..errors import OpenError, RegionFullError, VersionConflict
from .image import Image

if TYPE_CHECKING:
    from .order import Places

T = TypeVar("T")

Base = tuple[Any, ...]
"""One version of a value: its number (0: none), private copies of its frames, and what the store
wants to know when it is followed by another.

One frame is in a tuple, as changes are, and equals what is encoded alike. Several are in a
list, which equals no tuple: those of arrays become a draft's own memory, and change with it."""
Changes = tuple[Sequence[Any], Sequence[tuple[Any, tuple[Frame, ...]]], Any]
"""Keys that are gone, keys that are set with their values' frames, and definitions that these need,
whether or not the store has them yet."""


class KeyCodec(Protocol):
    """What a keyed store is given to understand keys and manifests, which are objects."""

    def encode_key(self, key: Any) -> bytes:
        """An object as bytes."""

    def decode_key(self, raw: bytes) -> Any:
        """It again."""

    def check_keys(self, keys: Sequence[Any]) -> None:
        """UnpicklableError where one of these could not be found again."""

    def needs_of(self, memory: Any, end: int) -> list[bytes]:
        """The definitions that a value names whose first frame ends there in a memory."""

    def closure(self, keys: Any, known: Any) -> dict[bytes, Any]:
        """Those, with what they need in turn, among all that are known."""


class Stats(NamedTuple):
    """What a store tells of itself: the newest version, and sizes in bytes."""

    version: int
    used_bytes: int
    resident_bytes: int
    max_size: int
    kind: str
    held_bytes: int = 0


class State(Protocol):
    """All keys at one version.

    Attributes:
        version: which one.
        places: where each key's value is, in the dict's order. A place says nothing to others; an
            equal one, in another state of the same ``epoch``, is the same value.
        epoch: see there.
        definitions: those that values need, by key; more may come, none goes.
    """

    version: int
    places: Places
    epoch: Any
    definitions: Mapping[bytes, Any]


class Store(ABC):
    """What every store has.

    Attributes:
        lock: whose holder may commit.
        region_id: 16 bytes that tell this store from all others; the same in every process.
        content: what it is the store of: "Share" or "SharedDict".
        max_size: its ceiling in bytes: of one value, or of all values by key together.
        segment: the memory that it lies in, to whose descriptors handles lead; None for none.
        server: what those have in common that `commit_together` can commit; None for none.
        kept: what `keep` has been given, and nothing has replaced. It keeps alive the shares that
            stored values name, since a handle leads nowhere once nobody has its share. It is this
            process's alone: a commit of another one leaves it as it is, and with this one it ends.
    """

    __slots__ = ()

    lock: Lock
    region_id: bytes
    content: str
    max_size: int
    segment: Any = None
    server: Any = None
    kept: Any

    @property
    def address(self) -> str | None:
        """By what others find it, such as a name; None where nothing but a handle leads to it."""
        return None

    def location(self, for_child: bool) -> Any:
        """What a handle holds by which others open it; None where it is the segment that leads to
        it, and no name or server. What is secret in it goes ``for_child`` alone, one's own."""
        return None

    def is_at(self, other: Any) -> bool:
        """Whether another store by the same id is this very one, and no copy of it."""
        return bool(self.location(True) == other.location(True))

    def be_durable(self) -> None:
        """From now on a commit waits for the disk, anybody's; OpenError where there is no disk."""
        raise OpenError(f"{self.address} is no file: durable=True takes a path on a disk")

    def unlink(self) -> None:
        """Take its address away; OpenError where it has none, ShareNotFoundError where no more."""
        raise OpenError("this share has no name that could be taken away: it ends with its users")

    @property
    @abstractmethod
    def version(self) -> int:
        """Anytime: the newest committed version, 0 while there is none; never older than what this
        process has read or committed."""

    @abstractmethod
    def reserve(self, changes: Any) -> None:
        """Holder: see to it that `commit` of the same finds room, else RegionFullError."""

    @abstractmethod
    def commit(self, changes: Any) -> int:
        """Holder: commit the changes as the version after the newest, which is returned;
        RegionFullError, with nothing changed, where they do not fit."""

    def commit_together(self, made: Sequence[tuple[Any, Any]]) -> None:
        """Holder: commit the changes of several stores of one ``server``, all or none."""
        raise NotImplementedError

    @abstractmethod
    def check(self, expect: Any) -> None:
        """Holder: VersionConflict unless the newest version is as expected."""

    @in_steps
    def put(self, changes: Any, expect: Any, timeout_s: float | None, kept: Any) -> int | None:
        """Lock, commit, unlock: the version. None, with nothing done, where the caller is the
        holder.

        With ``expect`` only where that stands, else VersionConflict: of a value the newest
        version, of keys what says so of the newest state. LockTimeout after ``timeout_s`` seconds.
        ``kept``: what the changes name, for `keep`.
        """
        lock = self.lock
        token = LockToken()
        token._owner = current_owner()
        token._inner, token._busy = None, True
        try:
            if not lock.acquire(token, timeout_s):
                return None
            if expect is not None:
                self.check(expect)
            version = self._put(changes)
            if kept or self.kept:
                self.keep(changes, kept)
            lock.release()
            return version
        except BaseException:
            lock.abandon(token)
            raise

    def _put(self, changes: Any) -> int:
        return self.commit(changes)

    @abstractmethod
    def keep(self, changes: Any, kept: Any) -> None:
        """Holder: after a commit of the changes, ``kept`` is what they name; keep that alive.

        What was kept for what they replace is let go. None names nothing.
        """

    nap_s: float | None = None
    """The longest sleep; None where `_shared.wait` says it, since no wake-up is for certain."""

    def sleep(self, version: int, until_ns: int, timeout_s: float) -> bool:
        """Anytime: sleep while that is the version, at most so long; False, at once, where there
        is no such sleep, and one has to look again and again.

        Until ``until_ns`` (of `time.monotonic_ns`) commits look for sleepers, to wake them.
        """
        return False

    def sleeping(
        self, version: int, timeout_s: float, backend: Any
    ) -> Iterator[tuple[Callable[[float], Any], float]] | None:
        """The same by steps, for an event loop: yields the pauses; None where there is none."""
        return None

    @abstractmethod
    def stats(self) -> Stats:
        """Anytime: how much there is."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it in this process, where every later use is a ClosedError."""


class ValueStore(Store):
    """One value. Its changes are its frames."""

    __slots__ = ()

    @abstractmethod
    def read(self) -> Base:
        """Anytime: the newest commit."""

    def hold(self) -> tuple[int, Sequence[Frame]] | None:
        """Anytime: version and frames of the newest commit, where those need no copy; else None.

        They stay as they are for as long as anything uses them. What is written to them is
        this process's own.
        """
        return None

    def current(self) -> Base:
        """Holder: the newest commit."""
        return self.read()

    def holds(self, frames: Sequence[Frame]) -> bool:
        """Anytime: whether these are the newest commit's frames, byte by byte.

        Only for the holder the newest is still the newest then; others ask `version` afterwards.
        """
        return list(self.current()[1]) == list(frames)

    def put_inside(self, changes: Any, expect: Any, kept: Any) -> int:
        """Holder: as `put`, under the lock, which stays taken."""
        if expect is not None:
            self.check(expect)
        version = self._put(changes)
        self.keep(changes, kept)
        return version

    def check(self, expect: int) -> None:
        """Holder: VersionConflict unless that is the newest version."""
        found = self.version
        if expect != found:
            raise VersionConflict(
                f"expected version {expect}, found {found}; take a new snapshot() and try again",
                expected=expect,
                found=found,
            )

    def keep(self, changes: object, kept: Any) -> None:
        self.kept = kept

    def glimpse(self, most: int) -> bytes:
        """Anytime: the first bytes of the newest commit's first frame, for people to look at."""
        frames = self.read()[1]
        return bytes(frames[0][:most]) if frames else b""


class KeyedStore(Store):
    """Many values, by key. Its changes are `Changes`; ``kept`` is by key.

    Keys that are gone go first, then those that are set are set, in this order: one that was there
    keeps its place in the order and the object that it is, a new one goes to the end. A key that
    could not be found again is an UnpicklableError of `reserve` and `commit`.
    """

    __slots__ = ()

    @abstractmethod
    def read(self, look: Callable[[Any], T]) -> T:
        """Anytime: what ``look`` finds in the newest state; called again where that was overtaken.

        ``look`` may ask for `frames` and `holds`. Nobody but the holder keeps the state itself.
        """

    def read_known(self, look: Callable[[Any], T]) -> T:
        """Anytime: as `read`; but it may be a state that this process has read before."""
        return self.read(look)

    @abstractmethod
    def frames(self, place: Any) -> Sequence[Frame]:
        """Private copies of a value's frames; within `read`, and for the holder."""

    def mutex(self) -> Any:
        """A context manager: the states that this process has change under it alone.

        Nothing is needed where they never do, and each commit makes a new one.
        """
        return contextlib.nullcontext()

    def current(self) -> Any:
        """Holder: the newest state, which stands until the next commit."""
        return self.read(lambda state: state)

    def newest(self, key: Any) -> bytes | None:
        """Anytime: the one frame of a key's newest value; None where `fetch` has to tell."""
        return None

    def fetch(self, key: Any) -> tuple[Sequence[Frame], Any]:
        """Anytime: the frames of a key's newest value, and where its definitions are; KeyError
        where there is none."""
        return self.read(lambda state: (self.frames(state.places[key]), state.definitions))

    def hold(self, key: Any) -> tuple[Sequence[Frame], Any] | None:
        """Anytime: as `fetch`, where the frames need no copy (see `ValueStore.hold`); else None."""
        return None

    def keys(self, backward: bool) -> Iterator[Any]:
        """Anytime: the keys in order as they are now, whatever is changed meanwhile."""
        return self.read(lambda state: state.places.iterate(backward, self.mutex))

    def single(self, place: Any) -> bytes | None:
        """A value's one frame, as of `frames`; None where that has to tell."""
        return None

    def draft(self, key: Any, place: Any) -> Sequence[Frame]:
        """Holder: as `frames`; perhaps a `_store.held.Held`, which knows what a block changed."""
        return self.frames(place)

    def holds(self, place: Any, frames: Sequence[Frame]) -> bool:
        """Whether these are the frames that are there, byte by byte; as `frames`."""
        return list(self.frames(place)) == list(frames)

    def prefetch(self, places: Iterable[Any]) -> None:
        """Holder: of these, None for nothing, one will be asked after the other."""

    def size_of(self, place: Any) -> int:
        """Bytes that a value takes; as `frames`."""
        return sum(map(len, self.frames(place)))

    def image(self) -> Image:
        """Anytime: all of the newest version, copied."""

        def look(state: Any) -> Image:
            copies = {key: self.frames(place) for key, place in state.places.items()}
            return Image(state.version, copies, state.definitions)

        return self.read(look)

    def hold_image(self) -> Image:
        """Anytime: the same, without a copy where that can be."""
        return self.image()

    def check(self, expect: Callable[[Any], bool]) -> None:
        """Holder: VersionConflict where ``expect`` does not say so of the newest state."""
        if not expect(self.current()):
            raise VersionConflict("something that was looked at has been changed meanwhile")

    def _put(self, changes: Changes) -> int:
        gone, changed, _ = changes
        if len(changed) == 1 and not gone:
            key, frames = changed[0]
            place = self.current().places.get(key)
            # One key whose value is there already is not stored again.
            if place is not None and self.holds(place, frames):
                return self.version
        return self.commit(changes)

    def keep(self, changes: Changes | None, kept: dict[Any, Any] | None) -> None:
        left = dict(self.kept or {})
        for key in [*changes[0], *[key for key, _ in changes[1]]] if changes else ():
            left.pop(key, None)
        self.kept = left | (kept or {})


def too_large(what: str, needed_bytes: int, max_size: int) -> RegionFullError:
    """The error that says what takes too much, and what to do."""
    return RegionFullError(
        f"{what}; make it with a larger max_size. What is stored is as it was",
        needed_bytes=needed_bytes,
        max_size_bytes=max_size,
    )
