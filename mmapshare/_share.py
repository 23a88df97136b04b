"""`Share`: one Python object among processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pickle import loads
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, overload

import attrs

from ._arguments import plain_function, retries_at_most, size_bytes, timeout_s
from ._codec import Trust, decode, encode, named, recover, take_named
from ._display import GLIMPSE_BYTES, LOADED_BYTES, kind_of, shortened, size
from ._late import importing
from ._shared import Shared, registry
from ._store import MemoryValueStore
from ._transaction import MISSING, NotAContainer, View, own_block, own_token, put_inside
from ._transaction import optimistic as without_lock
from .errors import EmptyShareError, TransactionError

T = TypeVar("T")
P = ParamSpec("P")


@attrs.frozen
class Snapshot(Generic[T]):
    """A value with the version that it was committed as."""

    value: T
    version: int


class Share(NotAContainer, Shared[T]):
    """One Python object that processes share.

    Args:
        initial: the first value; without it the share is empty. None is a value like any other.
        max_size: ceiling of one value as it is pickled: bytes, or a string such as "64M" or
            "1G" in binary units. Not a reservation: memory is taken as it is used, and the
            region takes up to about twice the value, since commits are written aside.
        timeout: seconds that `locked`, `lock`, `set` and `update` wait for the lock before they
            raise LockTimeout; None waits for as long as it takes.
        kind: "memfd" or "file"; by default what the platform offers.

    The value is anything that cloudpickle takes. What `get` and the views hand out are private
    copies; only a commit changes what others see. Any thread, task and process may use a share
    at any time. Children get it by fork, or as an argument under spawn and forkserver; a
    pickled share is a handle to the same region, good as long as a process that has it is; where
    none can be reached, using what was loaded raises HandleError. Attributes of a subclass travel
    with the handle as pickle would carry them; where the share is open already it keeps its own.
    Interpreters of one process get it as an argument, and exclude each other as processes do;
    `info` names their process.
    Loading a share's value runs the pickles that its co-owners stored. An open share takes two
    file descriptors, one from Python 3.13 on.

    A value is pickled when it is stored, and loaded only by who reads it. One that pickles but
    does not load (an exception whose ``__init__`` takes other arguments than its ``args``, a class
    that the reader cannot import) is found out by its first reader: UnloadableError. `set`, or
    assigning ``view.value`` in a block, replaces it.

    >>> share = Share({"hits": 0})
    >>> with share.locked() as view:
    ...     view["hits"] += 1
    >>> share.get()
    {'hits': 1}
    """

    __slots__ = ("_view_class",)

    _view_class: type[View[Any]]
    _content = "Share"
    _over_memory = (MemoryValueStore,)

    def __init__(
        self,
        initial: T = MISSING,
        *,
        max_size: int | str = "1G",
        timeout: float | None = None,
        kind: str | None = None,
    ) -> None:
        ceiling, timeout = size_bytes(max_size), timeout_s(timeout)
        frames = None if initial is MISSING else encode(initial)
        self._bind(MemoryValueStore.create(kind, ceiling), timeout)
        registry.register(self)
        if frames is not None:
            self._store.put_inside(frames, None, take_named())

    @classmethod
    def open(
        cls,
        where: str | os.PathLike[str],
        /,
        initial: T = MISSING,
        *,
        create: bool | None = None,
        max_size: int | str | None = None,
        timeout: float | None = None,
        durable: bool = False,
        lease: float = 30.0,
        secret: str | bytes | None = None,
    ) -> Self:
        """The share of that name, path or URL, which all processes that know it can open.

        Made with ``initial`` where there is none yet; of several that do so at once the first
        one's counts, whole. Opened twice in a process it is the same object.

        A **name**, such as "jobs", has up to 128 letters, digits and ``. _ @ + -``. It lasts until
        `unlink` or until the machine starts again, whoever made it and whether or not anybody has
        it open. A **path**, a `pathlib.Path` or a str with a slash, is a file, and lasts as long
        as that is there; a copied file is another share. A **URL**, such as
        ``redis://host:6379/0/jobs``, leads to a Redis or Valkey, for processes on many hosts
        (``rediss://`` with TLS, ``unix:///run/redis.sock/0/jobs``; redis-py's options after a
        ``?``); install ``mmapshare[redis]``. What is weaker there stands in the README.

        Args:
            where: the name, path or URL.
            initial: the value of a new one; without it that is empty.
            create: True, there must be none yet; False, there must be one; None, either.
            max_size: of a new one, in bytes or as "64G" (default 1 GiB); of another it must be so.
            timeout: how many seconds this process's blocks wait for the lock; None: for ever.
            durable: of a path. A commit that has returned, or that anybody has seen, outlives a
                power cut, and takes as long as the disk takes (one ``fdatasync``); so for all
                processes from then on.
            lease: of a URL, in seconds. A block that takes longer, and that somebody overtook,
                ends in LeaseLostError, with nothing written.
            secret: of a URL (default ``$MMAPSHARE_SECRET``). All that is stored is signed with
                it, and nothing else is loaded.

        Raises:
            ValueError: it is no name, path or URL that can be opened, or a size is none.
            ShareExistsError, ShareNotFoundError: as ``create`` says.
            OpenError: it has another ``max_size``, is a SharedDict, or needs ``mmapshare[redis]``.
            UnsafePathError: a link, a FIFO, a device or a folder, a file that has two names or
                that others own or can open, a file system of several hosts (NFS, CIFS, FUSE).
                What is no share's file is not opened, nor changed.
            CorruptRegionError: the file is damaged, shortened, or another program's.
            DurabilityError: the disk refused, then and ever after: nobody knows what it has.
            StoreRefusedError: the server refuses: a password, its access rules, a replica.
            StoreUnreachableError: the server does not answer for two seconds.
            StoreLostError: the server has lost the share, or commits that were seen.

        Safety: any thread and process may open it at any time. A program of this user that
        shortens the file later is found out before the next change; a read that comes first ends
        in a SIGBUS.

        The files of names lie in ``$MMAPSHARE_DIR``, else in ``/dev/shm/mmapshare-UID``:

        - systemd's ``PrivateTmp`` does not touch them; a path in ``/tmp`` it does. ``DynamicUser``
          is another user.
        - logind's ``RemoveIPC`` removes an ordinary user's names after the last logout:
          ``loginctl enable-linger`` keeps them.
        - A container has a ``/dev/shm`` of its own (Docker: 64 MB, ``--shm-size``). Mount one
          folder in all, let ``MMAPSHARE_DIR`` name it, and run them as one user id.

        >>> from mmapshare import Share
        >>> jobs = Share.open("doctest-jobs", {"done": 0})
        >>> with jobs.locked() as view:
        ...     view["done"] += 1
        >>> Share.open("doctest-jobs").get()
        {'done': 1}
        >>> jobs.unlink()
        """
        with importing:
            from ._shared.opening import open_shared

        frames = None if initial is MISSING else encode(initial)
        kept = take_named() if named else None

        def fill(share: Self) -> None:
            if frames is not None:
                share._store.put_inside(frames, None, kept)

        return open_shared(cls, where, create, max_size, timeout, durable, lease, secret, fill)

    def _bind(self, store: Any, timeout: float | None) -> None:
        super()._bind(store, timeout)
        self._view_class = View
        self._trust = Trust()

    # --- Reading: takes no lock, never waits for a holder ----------------------------------

    def get(self, *, copy: bool = True) -> T:
        """The committed value, as a fresh private copy.

        Args:
            copy: with False the large buffers of a value of 4 MiB or more (of arrays, tensors,
                whatever pickle 5 hands over out of band) are mapped, not copied. They stay as
                they were for as long as anything uses them, after `close` and in forked children
                too. A write to them copies the page, for this process alone. Writers go on in
                other memory; what is held takes its own until it is dropped. Where nothing can be
                held (not Linux, no descriptor to spare, a durable file) it is a copy.

        Raises:
            EmptyShareError: there is no value yet.
            UnloadableError: the value does not load in this process.
            HandleError: a share that was loaded from a pickle cannot be reached any more.

        Safety: takes no lock, and never waits for a holder; a reader that a writer overtakes reads
        again. Inside one's own block it is still the last commit.

        >>> Share([1, 2]).get()
        [1, 2]
        """
        try:  # As `_read`, without a call: this is the hot way.
            base = self._store.read() if copy else self._hold()
        except (ValueError, TypeError):
            base = self._read()
        frames = base[1]
        if len(frames) == 1:
            try:
                value: T = loads(frames[0])
                return value
            except Exception as err:
                return recover(frames, err)  # type: ignore[no-any-return]
        if not frames:
            raise EmptyShareError(_NO_VALUE)
        return decode(frames)  # type: ignore[no-any-return]

    def snapshot(self, *, copy: bool = True) -> Snapshot[T]:
        """The committed value together with its version, as `set(if_version=)` wants it.

        Args:
            copy: as of `get`, as is all else.

        Returns:
            A `Snapshot` with ``value`` and ``version``.

        >>> Share("a").snapshot()
        Snapshot(value='a', version=1)
        """
        version, frames, *_ = self._read() if copy else self._hold()
        return Snapshot(decode(frames), version)

    def _hold(self) -> Any:
        return self._store.hold() or self._read()

    def _read(self) -> Any:
        try:
            base = self._store.read()
        except (ValueError, TypeError):  # Another thread closed it meanwhile; it says so now.
            base = self._store.read()
        if base[0]:
            return base
        raise EmptyShareError(_NO_VALUE)

    def _holds(self, predicate: Callable[[T], object]) -> bool:
        return bool(predicate(self.get()))

    # --- Writing ---------------------------------------------------------------------------

    def set(self, value: T, *, if_version: int | None = None) -> int:
        """Replace the value.

        Args:
            value: whatever cloudpickle takes.
            if_version: only where that is still the share's version; 0 for one still empty.

        Returns:
            The new version.

        Raises:
            VersionConflict: the share has another version than ``if_version``.
            RegionFullError, UnpicklableError: the old value is as it was.
            TransactionError: inside one's own block; assign ``view.value`` there.
            LockTimeout, DeadlockError, ClosedError: as `locked`, whose lock it waits for.

        Safety: a process that is killed in it leaves the old value or the new one, and the lock
        free. Between `lock` and `unlock` of the same owner it commits at once.

        >>> share = Share(1)
        >>> share.set(2, if_version=1)
        2
        """
        if if_version is not None and type(if_version) is not int:
            raise TypeError(f"if_version is an int, as snapshot() gives it, not {if_version!r}")
        frames = encode(value)
        kept = take_named() if named else None
        while True:
            version = self._store.put(frames, if_version, self._timeout, kept)
            if version is not None:
                return version  # type: ignore[no-any-return]
            held = own_token(self)
            if held is not None:
                break
        if own_block(self, held) is not None:
            raise TransactionError(
                "set() inside one's own locked() block would be lost or overwritten by the "
                "block's commit; assign view.value instead"
            )
        return put_inside(self, held, frames, if_version, kept)

    @overload
    def update(
        self, func: Callable[Concatenate[T, P], T | None], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    def update(
        self,
        func: Callable[..., T | None],
        *args: Any,
        optimistic: bool,
        retries: int = ...,
        **kwargs: Any,
    ) -> T: ...

    def update(  # type: ignore[misc]
        self,
        func: Callable[..., T | None],
        *args: Any,
        optimistic: bool = False,
        retries: int = 10,
        **kwargs: Any,
    ) -> T:
        """Call ``func(value, *args, **kwargs)`` in one transaction.

        Args:
            func: its result *becomes the value*; None keeps the argument, with the changes made
                to it. (To take something out, as by ``pop``, use a `locked` block.)
            optimistic: ``func`` works on a private copy without the lock, and **may run more than
                once**: where another commit came meanwhile it runs again, on a fresh copy. Worth
                it for work of a millisecond or more on a share that others seldom change.
            retries: how often it runs so, before it runs once more with the lock.

        Returns:
            The new value.

        Raises:
            EmptyShareError: there is no value yet.
            Whatever ``func`` raises, unchanged; then nothing is committed.
            As `locked` for the lock and the commit.

        Safety: as `locked`. Within one's own block it runs in that.

        >>> share = Share(40)
        >>> share.update(lambda n, by: n + by, 2)
        42
        >>> share.update(lambda n: n + 1, optimistic=True)
        43
        """
        plain_function(func, "update")
        retries = retries_at_most(retries)

        def work(view: View[T]) -> T:
            if view._value is MISSING:
                raise EmptyShareError(_NO_VALUE)
            result = func(view.value, *args, **kwargs)
            if result is not None:
                view.value = result
            return view.value

        return without_lock(self, View, work, retries if optimistic else 0)

    def __repr__(self) -> str:
        stands, value = self._how_it_stands(), self._in_short()
        return f"{stands[:-1]}, value {value}>" if value else stands

    def _in_short(self) -> str:
        """The value in some words: a short one as it is, others described; nothing is loaded.

        Nothing where there is none, where it is just being changed, or where a look is a journey.
        """
        if self.closed or not self._is_reached():
            return ""
        store = self._store
        if store.segment is None or not store.version:
            return ""
        with importing:
            from ._codec import placeholders
        try:
            version, first = store.version, store.glimpse(_SHORT_BYTES + 1)
            if len(first) > _SHORT_BYTES:
                said = f"{kind_of(first[:GLIMPSE_BYTES])}, {size(store.stats().used_bytes)}"
            else:
                said = shortened(placeholders.sketch([first]))
            return said if store.version == version else ""
        except Exception:  # It is damaged, or closed by another thread: who reads it is told.
            return ""

    def _summary(self) -> str:
        used_bytes = self._store.stats().used_bytes
        if not self.version:
            return "empty"
        if used_bytes <= LOADED_BYTES:
            return shortened(self.get())
        return f"{kind_of(self._store.glimpse(GLIMPSE_BYTES))}, {size(used_bytes)}"


_SHORT_BYTES: Final = 4096
"""Values up to this size are shown by ``repr``."""
_NO_VALUE: Final = "the share has no value yet; set() one, or pass it to Share()"
