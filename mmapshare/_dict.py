"""`SharedDict`: a dict among processes, each value a record of its own."""

from __future__ import annotations

import os
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
)
from itertools import islice
from pickle import loads
from reprlib import recursive_repr
from typing import Any, Generic, Self, TypeVar, cast

from ._arguments import plain_function, retries_at_most, size_bytes, timeout_s
from ._codec import (
    Trusts,
    UnknownDefinitionError,
    decode,
    encode,
    is_plain,
    named,
    recover,
    take_named,
)
from ._codec import frames as codec
from ._display import ITEMS, LOADED_BYTES, listed, shortened, size
from ._late import importing
from ._shared import Shared, registry
from ._store import MemoryKeyedStore
from ._transaction import (
    Draft,
    MappingView,
    Merging,
    OptimisticView,
    Reading,
    Unloadable,
    at_once,
    holds,
    in_own_block,
    optimistic,
    readable,
)
from .errors import HandleError, TransactionError, UnloadableError, UnpicklableError, at_key

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")


class SharedDict(Merging, Reading[K, V], Shared[Any], MutableMapping[K, V], Generic[K, V]):
    """A dict that processes share, in which a change costs what changed.

    Args:
        items: what the dict begins with, as `dict` takes it: a mapping, pairs, keywords. (A key
            that is called as one of the options below goes into a mapping.)
        max_size: ceiling of all values together as they are pickled; default 1 GiB. Not a
            reservation. (Keys may take half as much again.) The region takes up to about twice
            what lives in it.
        timeout: seconds that a change waits for the lock before it raises LockTimeout; None
            waits for as long as it takes.
        kind: "memfd" or "file"; by default what the platform offers.

    Each value is a record of its own: reading or changing one key costs the same among ten keys
    and among a million. Each process keeps an index of the keys, and reads only what is new.

    Outside of a block each method is one transaction. Reads take no lock and see one version;
    what they return is a private copy, so ``d["jobs"].append(1)`` changes nothing. **In**
    ``with d.locked() as view`` everything that is changed is committed together, changes within
    values too. ``d[k] += 1`` outside of a block is a read and then a write, and another's change
    in between is lost; write ``with d.locked() as view: view[k] += 1``.

    A block that changes a bit of a large array costs what it touches, too: the log gets the changed
    pages, and who reads lays them over the rest. When that has cost as much as the whole array
    does, the whole array is written again. In a file each commit writes it whole.

    A value that does not load in a process (see `Share`) affects that key alone: reading it raises
    UnloadableError, which names the key; setting and deleting it, all other keys, iteration over
    keys, and ``repr`` work.

    Keys are hashable, and equal to themselves after pickling. ``d.copy()`` is of one version, which
    ``dict(d)`` need not be. Identity *between* values is not kept: one
    object under two keys becomes two. Safe under threads, tasks, processes and fork as `Share`
    is; a pickled one is a handle.

    >>> d = SharedDict(a=1, jobs=[])
    >>> d["b"] = 2
    >>> with d.locked() as view:
    ...     view["jobs"].append("first")
    ...     view["a"] += 1
    >>> d
    {'a': 2, 'jobs': ['first'], 'b': 2}
    """

    __slots__ = ()

    _view_class = MappingView
    _has_value_when_empty = True
    _content = "SharedDict"
    _over_memory = (MemoryKeyedStore, codec)

    def __init__(
        self,
        items: Mapping[K, V] | Iterable[tuple[K, V]] = (),
        /,
        *,
        max_size: int | str = "1G",
        timeout: float | None = None,
        kind: str | None = None,
        **more: Any,
    ) -> None:
        size, timeout = size_bytes(max_size), timeout_s(timeout)
        first: dict[Any, Any] = dict(at_once(items), **more)
        self._bind(MemoryKeyedStore.create(kind, size, codec), timeout)
        registry.register(self)
        if first:
            self.update(first)

    @classmethod
    def open(
        cls,
        where: str | os.PathLike[str],
        /,
        initial: Mapping[K, V] | Iterable[tuple[K, V]] = (),
        *,
        create: bool | None = None,
        max_size: int | str | None = None,
        timeout: float | None = None,
        durable: bool = False,
        lease: float = 30.0,
        secret: str | bytes | None = None,
    ) -> Self:
        """The dict of that name, path or URL; where there is none, made with ``initial``'s items.

        All else is as with `Share.open`.

        >>> from mmapshare import SharedDict
        >>> jobs = SharedDict.open("doctest-queue", {"a": 1})
        >>> SharedDict.open("doctest-queue", {"b": 2})
        {'a': 1}
        >>> jobs.unlink()
        """
        with importing:
            from ._shared.opening import open_shared

        first: dict[Any, Any] = dict(at_once(initial))

        def fill(shared: Self) -> None:
            shared.update(first)

        return open_shared(cls, where, create, max_size, timeout, durable, lease, secret, fill)

    def _bind(self, store: Any, timeout: float | None) -> None:
        super()._bind(store, timeout)
        self._trust = Trusts()

    @classmethod
    def fromkeys(cls, keys: Iterable[K], value: V = None) -> SharedDict[K, V]:  # type: ignore[assignment]
        """A new one with these keys, each with the same value.

        >>> SharedDict.fromkeys("ab", 0)
        {'a': 0, 'b': 0}
        """
        made = cls()
        items = dict.fromkeys(keys, value)
        if type(made) is SharedDict:
            made.update(items)
        else:  # What a subclass does with an item that is set, it does with these.
            for key in items:
                made[key] = value
        return made

    # --- Reading: takes no lock, never waits for a holder ----------------------------------

    def __getitem__(self, key: K) -> V:
        raw = self._store.newest(key)
        if raw is not None:
            try:
                value: V = loads(raw)
                return value
            except UnknownDefinitionError:
                pass
            except Exception as err:
                return self._refused(key, raw, err)
        try:
            return cast(V, decode(*self._store.fetch(key)))
        except UnloadableError as err:
            raise at_key(err, key) from err.__cause__

    def _refused(self, key: K, raw: bytes, err: Exception) -> V:
        try:
            return cast(V, recover((raw,), err, {}))
        except UnloadableError as unloadable:
            raise at_key(unloadable, key) from unloadable.__cause__

    def __contains__(self, key: object) -> bool:
        found: bool = self._store.read(lambda state: key in state.places)
        return found

    def __len__(self) -> int:
        count: int = self._store.read(lambda state: len(state.places))
        return count

    def __iter__(self) -> Iterator[K]:
        """The keys of one version, whatever is changed meanwhile; the first one is had at once."""
        keys: Iterator[K] = self._store.keys(False)
        return keys

    def __reversed__(self) -> Iterator[K]:
        keys: Iterator[K] = self._store.keys(True)
        return keys

    def _holds(self, predicate: Callable[[Any], object]) -> bool:
        return holds(predicate, self._store, self.snapshot)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self is other or self.copy() == dict(at_once(other))

    __hash__ = None  # type: ignore[assignment]

    @recursive_repr("{...}")
    def __repr__(self) -> str:
        if self.closed or not self._is_reached():
            return self._how_it_stands()
        return repr(readable(self.snapshot()))

    def _summary(self) -> str:
        count, first = self._store.read(
            lambda state: (len(state.places), list(islice(state.places.items(), ITEMS)))
        )
        shown = []
        for key, place in first:
            taken = self._store.size_of(place)
            shown.append((key, self._glimpse(key) if taken <= LOADED_BYTES else size(taken)))
        return listed(shown, count)

    def _glimpse(self, key: K) -> str:
        """One value; it may be gone or changed by now, then that is shown."""
        try:
            return shortened(self.get(key))
        except (UnloadableError, HandleError) as err:
            return repr(Unloadable(err))

    # --- Writing: each method one transaction ----------------------------------------------

    def __setitem__(self, key: K, value: V) -> None:
        definitions: dict[bytes, Any] = {}
        try:
            frames = encode(value, definitions)
        except UnpicklableError as err:
            raise at_key(err, key) from err.__cause__
        kept = {key: take_named()} if named else None
        if is_plain(frames[0]):  # Else its bytes alone do not tell whether it is another value.
            changes = ((), ((key, frames),), definitions)
            if self._store.put(changes, None, self._timeout, kept) is not None:
                return
        self._set_in_block(key, value)

    def _set_in_block(self, key: K, value: V) -> None:
        with self._change() as view:  # Or the caller has the lock.
            view._value[key] = value

    def __delitem__(self, key: K) -> None:
        with self._change() as view:
            del Draft(view)[key]

    def pop(self, key: K, *default: Any) -> Any:
        """Take a value out; ``default`` where there is none, else KeyError.

        A value that does not load here (UnloadableError) is not taken out, unless there is a
        ``default`` to be returned in its place; ``del d[key]`` needs no value.

        >>> SharedDict(a=1).pop("a")
        1
        """
        with self._change() as view:
            return Draft(view).pop(key, *default)

    def popitem(self) -> tuple[K, V]:
        """Take the last item out; KeyError where there is none.

        >>> SharedDict(a=1).popitem()
        ('a', 1)
        """
        with self._change() as view:
            item: tuple[K, V] = Draft(view).popitem()
            return item

    def setdefault(self, key: K, default: V = None) -> V:  # type: ignore[assignment]
        """The key's value, which is ``default`` from now on where there was none.

        >>> SharedDict(a=1).setdefault("a", 2)
        1
        """
        with self._change() as view:
            draft = Draft(view)
            value: V = view._value.taken(key) if key in draft else draft.setdefault(key, default)
            return value

    def update(self, /, *args: Any, **kwargs: Any) -> None:
        """Set many keys, all together; arguments as `dict.update` takes them.

        >>> d = SharedDict()
        >>> d.update({"a": 1}, b=2)
        >>> d.version
        1
        """
        items = dict(*map(at_once, args), **kwargs)  # Made without the lock.
        with self._change() as view:
            view._value.update(items)

    def transact(
        self, func: Callable[..., R], /, *args: Any, retries: int = 10, **kwargs: Any
    ) -> R:
        """Call ``func(view, *args, **kwargs)`` without the lock, and commit what it changed.

        All changes are committed together, and only if no key that ``func`` read or wrote was
        changed meanwhile; else ``func`` runs again, on fresh values. Worth it for work of a
        millisecond or more on keys that others seldom change; for less, a block is faster.

        Args:
            func: it **may run more than once**. Its view is like that of a block. Iteration over
                the view, or its length, reads all keys, though not all values.
            retries: how often it runs so, before it runs once more with the lock.

        Returns:
            What ``func`` returned.

        Raises:
            Whatever ``func`` raises, unchanged; then nothing is committed.
            As `locked` for the commit.

        Safety: as `locked`. Within one's own block it runs in that.

        >>> d = SharedDict(a=1, b=2)
        >>> def move(view, n):
        ...     view["a"] -= n
        ...     view["b"] += n
        >>> d.transact(move, 1)
        >>> d
        {'a': 0, 'b': 3}
        """
        plain_function(func, "transact")

        def work(view: Any) -> R:
            return func(view, *args, **kwargs)

        return optimistic(self, OptimisticView, work, retries_at_most(retries))

    def clear(self) -> None:
        """Take everything out.

        >>> d = SharedDict(a=1)
        >>> d.clear()
        >>> len(d)
        0
        """
        with self._change() as view:
            Draft(view).clear()

    def _change(self) -> Any:
        if in_own_block(self):
            raise TransactionError(
                "a change inside one's own locked() block goes to the block's view: write "
                "view[key] = ..."
            )
        return self.locked()
