"""`Share`: a region that holds one Python object."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import attrs

from . import _handle
from ._arguments import plain_function, retries_at_most, size_bytes, timeout_s
from ._card import GLIMPSE_BYTES, LOADED_BYTES, kind_of, shortened, size
from ._codec import EMPTY_SET, FROZENSET, GLOBAL, decode, encode
from ._handle import named, take_named
from ._memory import kind_of_memory
from ._misuse import NotAContainer
from ._owner import Claim, claim_by, current_owner
from ._region import Commit, Region
from ._sameness import Trust, unchanged
from ._shared import Shared
from ._view import CONTAINERS, MISSING, Missing, ObjectView, Unloadable, View
from .errors import (
    EmptyShareError,
    HandleError,
    TransactionError,
    UnloadableError,
    VersionConflict,
)

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

    __slots__ = ("_trust", "_view_class")

    _view_class: type[View[Any]]

    def __init__(
        self,
        initial: T = MISSING,
        *,
        max_size: int | str = "1G",
        timeout: float | None = None,
        kind: str | None = None,
    ) -> None:
        kind = kind_of_memory(kind)
        ceiling, timeout = size_bytes(max_size), timeout_s(timeout)
        frames = None if initial is MISSING else encode(initial)
        self._bind(self._parts(Region.create(kind, ceiling)), timeout)
        _handle.register(self)
        if frames is not None:
            self._region.publish(frames, self._region.extent())
            self._keeps = take_named()

    def _bind(self, parts: dict[str, Any], timeout: float | None) -> None:
        super()._bind(parts, timeout)
        self._view_class = View
        self._trust = Trust()

    # --- Reading: takes no lock, never waits for a holder ----------------------------------

    def get(self) -> T:
        """A fresh private copy of the committed value; EmptyShareError where there is none.

        UnloadableError where it does not load in this process. Takes no lock and never waits for
        a holder; inside one's own block it is still the last commit.

        >>> Share([1, 2]).get()
        [1, 2]
        """
        value: T = decode(self._read()[1])
        return value

    def snapshot(self) -> Snapshot[T]:
        """The committed value together with its version, as `set(if_version=)` wants it.

        >>> Share("a").snapshot()
        Snapshot(value='a', version=1)
        """
        version, frames, *_ = self._read()
        return Snapshot(decode(frames), version)

    def _holds(self, predicate: Callable[[T], object]) -> bool:
        return bool(predicate(self.get()))

    def _read(self) -> Commit:
        try:
            commit = self._region.read()
        except (ValueError, TypeError):  # Another thread closed it meanwhile; it says so now.
            commit = self._region.read()
        if commit[0]:
            return commit
        raise EmptyShareError("the share has no value yet; set() one, or pass it to Share()")

    # --- Writing ---------------------------------------------------------------------------

    def set(self, value: T, *, if_version: int | None = None) -> int:
        """Replace the value; returns the new version.

        With ``if_version`` only where that is still the share's version (0: still empty), else
        VersionConflict. Waits for the lock as `locked` does; between `lock` and `unlock` of the
        same owner it commits at once. Inside one's own `locked` block it raises
        TransactionError: assign ``view.value`` there. RegionFullError and UnpicklableError leave
        the old value as it was.

        >>> share = Share(1)
        >>> share.set(2, if_version=1)
        2
        """
        if if_version is not None and type(if_version) is not int:
            raise TypeError(f"if_version is an int, as snapshot() gives it, not {if_version!r}")
        return self._set(encode(value), if_version)

    def _set(self, frames: Any, if_version: int | None) -> int:
        region = self._region
        lock = region.lock
        claim = claim_by(current_owner())
        try:
            while not lock.acquire(claim, self._timeout):
                held = self._own_claim()
                if held is not None:
                    return self._set_inside(held, frames, if_version)
            commit = region.extent()
            if if_version is not None and if_version != commit[0]:
                raise _conflict(if_version, commit[0])
            version = region.publish(frames, commit)
            if named or self._keeps:
                self._keeps = take_named()
            lock.release()
            return version
        except BaseException:
            lock.abandon(claim)
            raise

    def _set_inside(self, claim: Claim, frames: Any, if_version: int | None) -> int:
        if self._block(claim) is not None:
            raise TransactionError(
                "set() inside one's own locked() block would be lost or overwritten by the "
                "block's commit; assign view.value instead"
            )
        commit = self._region.extent()
        if if_version is not None and if_version != commit[0]:
            raise _conflict(if_version, commit[0])
        version = self._region.publish(frames, commit)
        self._keeps = take_named()
        return version

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
        """Call ``func(value, *args, **kwargs)`` in one transaction; returns the new value.

        What it returns *becomes the value*; None keeps the argument, with the changes made to
        it. To take something out (``pop``) use a `locked` block.
        An exception commits nothing and is raised unchanged.

        With ``optimistic=True`` ``func`` **may run more than once**: it works on a private copy
        without the lock, and its result is committed only if nothing else was meanwhile; else it
        runs again, on a fresh copy. After ``retries`` times it runs once more with the lock. For
        work that takes a millisecond or more on a share that others seldom change; for less, a
        block is faster. Within one's own block it runs in that.

        >>> share = Share(40)
        >>> share.update(lambda n, by: n + by, 2)
        42
        >>> share.update(lambda n: n + 1, optimistic=True)
        43
        """
        plain_function(func, "update")
        retries = retries_at_most(retries)
        for _ in range(retries if optimistic and not self._region.lock.holds_own() else 0):
            version, before, *_ = self._read()
            value: T = decode(before)
            result = func(value, *args, **kwargs)
            value = value if result is None else result
            frames = encode(value)
            if frames == before or unchanged(
                value, frames, before, partial(self._frames_of, version)
            ):
                return value
            try:
                self._set(frames, version)
            except VersionConflict:
                continue
            return value
        with self.locked() as view:
            if view._value is MISSING:
                raise EmptyShareError("the share has no value yet; set() a first one")
            result = func(view.value, *args, **kwargs)
            if result is not None:
                view.value = result
            return view.value

    def _frames_of(self, version: int) -> Any:
        """The newest commit's frames, if that is still of this version."""
        found, frames, *_ = self._read()
        return frames if found == version else ()

    # --- What a transaction asks for, under the lock ----------------------------------------

    def _open(self, view: View[T]) -> None:
        view._commit = commit = self._region.current()
        try:
            value = decode(commit[1]) if commit[0] else MISSING
        except (UnloadableError, HandleError) as err:
            value = Unloadable(err)
        view._value = value
        view._failed = None
        if type(value) not in CONTAINERS:
            if type(view) is View:
                # The next one is made so: without the GIL an assignment stops all threads.
                view.__class__ = self._view_class = ObjectView
            if isinstance(value, Missing):
                view._failed = value  # Until it is replaced there is nothing to commit.
        elif type(view) is not View:
            self._view_class = View

    def _store(self, view: View[T]) -> None:
        commit = view._commit
        frames = encode(view._value)
        if frames != commit[1]:
            before: Any = commit[1][0] if commit[1] else b""
            # Without classes and sets, other bytes mean another value.
            if (
                (GLOBAL not in before and EMPTY_SET not in before and FROZENSET not in before)
                or self._trust.believes(before, frames[0])
                or not self._is_unchanged(view, frames)
            ):
                self._region.publish(frames, commit, True)
        if named or self._keeps:
            self._keeps = take_named()

    def _is_unchanged(self, view: View[T], frames: Any) -> bool:
        """Whether the draft, whose frames are others, is what is stored; see `_sameness`."""
        before = view._commit[1]
        if not before or (len(frames) > 1 and frames[0] == before[0]):
            return False  # `publish` compares the buffers.
        return unchanged(
            view._value, frames, before, lambda: self._region.current()[1], self._trust
        )

    def _prepare(self, view: View[T]) -> Callable[[], object] | None:
        commit, region = view._commit, self._region
        frames = encode(view._value)
        before = commit[1]
        if frames == before or self._is_unchanged(view, frames):
            return None
        region.make_room(frames, commit)

        def publish() -> None:
            region.publish(frames, commit, True)
            self._keeps = keeps

        keeps = take_named()
        return publish

    def _committed(self) -> Any:
        """The lock's holder's fresh copy of the committed value; a `Missing` if there is none."""
        version, frames, *_ = self._region.current()
        try:
            return decode(frames) if version else MISSING
        except (UnloadableError, HandleError) as err:
            return Unloadable(err)

    __repr__ = Shared._how_it_stands

    def _summary(self) -> str:
        used_bytes = self._region.used_bytes()
        if not self.version:
            return "empty"
        if used_bytes <= LOADED_BYTES:
            return shortened(self.get())
        return f"{kind_of(self._region.glimpse(GLIMPSE_BYTES))}, {size(used_bytes)}"


def _conflict(expected: int, found: int) -> VersionConflict:
    return VersionConflict(
        f"expected version {expected}, found {found}; take a new snapshot() and try again",
        expected=expected,
        found=found,
    )
