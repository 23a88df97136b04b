"""The draft of a `SharedDict`'s block: values become private objects when they are first touched.

What is stored stays where it is until then. When the block ends, only the values that were
touched are pickled again, and only those whose bytes differ are written.

Without the GIL: a draft is its owner's alone, and what is stored does not change while that has
the lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from itertools import filterfalse
from typing import Any, Final, Self

from .._bytes import Frame
from .._codec import Gathered, decode, encode, is_plain, named, take_named, unchanged
from .._lock import here
from .._store import FEW, NO_KEY, Ends, Held, Places, begin
from ..errors import HandleError, UnloadableError, UnpicklableError, at_key
from .view import DROPPED, Unloadable, View

_ATOMS: Final = frozenset({int, float, complex, bool, str, bytes, type(None)})
"""Values of these types cannot be changed in place, so having been read they need no new look."""


NONE: Final[dict[Any, Any]] = {}
"""Stands where there is nothing yet; never changed."""


class WriteSet(dict[Any, Any]):
    """What a block may have changed: the values that it has set, and those that it has loaded, for
    they may be changed in place. A missing one is loaded from what is stored."""

    __slots__ = ("base", "ends", "gone", "read", "state", "store")

    store: Any
    state: Any
    gone: dict[Any, None]
    """Stored keys that the block has deleted, perhaps to set them again at the end."""
    read: dict[Any, Any]
    """The frames of which values were made that have buffers; they may be the values' memory."""
    ends: Ends | None
    """The first and the last stored key that are left, once somebody has asked for one."""
    base: list[Any]
    """The view's; as long as it takes to say that the view has to be dropped."""

    def __missing__(self, key: Any) -> Any:
        place = self.state.places.get(key)
        if place is None or (self.gone and key in self.gone):
            raise KeyError(key)
        raw = self.store.single(place)
        if raw is None:
            return self._load(key, self.store.draft(key, place))
        try:
            value = decode((raw,), self.state.definitions)
        except UnloadableError as err:
            raise at_key(err, key) from err.__cause__
        if type(value) not in _ATOMS:
            self[key] = value
        return value

    def _load(self, key: Any, frames: Any) -> Any:
        """The value of several frames."""
        try:
            value = decode(frames, self.state.definitions)
        except UnloadableError as err:
            raise at_key(err, key) from err.__cause__
        if type(frames) is Held:
            self.base[1:] = DROPPED  # Its memory is held as long as anything has it.
        self.read = self.read or {}
        self.read[key] = frames
        self[key] = value
        return value

    def taken(self, key: Any) -> Any:
        """A value that is handed out for good: a copy, for a draft would hold what it lies in."""
        place = None if key in self or key in self.gone else self.state.places.get(key)
        if place is None or self.store.single(place) is not None:
            return self[key]
        return self._load(key, self.store.frames(place))


def new_write_set(
    store: Any, state: Any, base: list[Any], kind: type[WriteSet] = WriteSet
) -> WriteSet:
    """An empty one."""
    writes = kind()
    writes.store = store
    writes.state = state
    writes.base = base
    writes.gone = writes.read = NONE
    writes.ends = None
    return writes


class Versioned:
    """What has a `snapshot`, of one version."""

    __slots__ = ()

    def snapshot(self) -> Any:
        raise NotImplementedError


def at_once(items: Any) -> Any:
    """What is of one version at a time, at its newest; anything else as it is."""
    return items.snapshot() if isinstance(items, Versioned) else items


class Merging:
    """The operator by which dicts are merged, for what has `copy` and `update`."""

    __slots__ = ()

    copy: Any
    update: Any

    def __or__(self, other: Any) -> Any:
        """A plain dict."""
        return self.copy() | dict(at_once(other)) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return dict(at_once(other)) | self.copy() if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self


class Draft(Merging, MutableMapping[Any, Any]):
    """A mapping as a block sees and changes it. It is the view's, and as dead as that."""

    __slots__ = ("_view",)

    def __init__(self, view: MappingView) -> None:
        self._view = view

    @property
    def writes(self) -> WriteSet:
        """The block's write set; ViewClosedError outside of the block."""
        view = self._view
        if view._owner is not here.owner:
            view._check()
        return view._value

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    def __getitem__(self, key: Any) -> Any:
        return self.writes[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.writes[key] = value

    def __delitem__(self, key: Any) -> None:
        writes = self.writes
        if writes.ends is not None:
            writes.ends.settle()
        if writes.pop(key, NO_KEY) is NO_KEY and not _is_stored(writes, key):
            raise KeyError(key)
        if key in writes.state.places:
            writes.gone = writes.gone or {}
            writes.gone[key] = None

    def __contains__(self, key: object) -> bool:
        return key in self.writes or _is_stored(self.writes, key)

    def __iter__(self) -> Iterator[Any]:
        """The keys in order, as they were when the iteration began."""
        writes = self.writes
        gone, places, added = writes.gone, writes.state.places, _added(writes)
        count = len(places)

        def all_keys() -> list[Any]:
            keys = list(places)
            del keys[count:]  # What was committed since then came at the end.
            return [*(filterfalse(gone.__contains__, keys) if gone else keys), *added]

        if type(places) is not Places or count <= FEW:
            return iter(all_keys())
        ends = _ends(writes)
        first = ends.first(gone)
        if first is NO_KEY:
            return iter(added)
        return begin([first], all_keys, writes.store.mutex, ends, places)

    def __reversed__(self) -> Iterator[Any]:
        writes = self.writes
        yield from reversed(_added(writes))
        last = _ends(writes).last(writes.gone)
        if last is not NO_KEY:
            yield last
            for key in reversed(writes.state.places):
                if key is not last and key not in writes.gone:
                    yield key

    def __len__(self) -> int:
        writes: Any = self.writes
        places, gone = writes.state.places, writes.gone
        stored = sum(map(places.__contains__, writes))
        again = sum(map(writes.__contains__, gone))
        count: int = len(places) - len(gone) + len(writes) - stored + again
        return count

    def clear(self) -> None:
        if self.writes.ends is not None:
            self.writes.ends.settle()
        self.writes.clear()
        self.writes.gone = dict.fromkeys(self.writes.state.places)

    def pop(self, key: Any, *default: Any) -> Any:
        """Take a value out; ``default`` where there is none, or none that can be loaded here."""
        try:
            value = self.writes.taken(key)
        except KeyError:
            if default:
                return default[0]
            raise
        except (UnloadableError, HandleError):
            if not default:
                raise
            value = default[0]
        del self[key]
        return value

    def popitem(self) -> tuple[Any, Any]:
        """Take the last item out, as a dict does."""
        writes = self.writes
        places, gone = writes.state.places, writes.gone
        for key in reversed(writes):
            if key not in places or key in gone:
                return key, self.pop(key)
        last = _ends(writes).last(gone)
        if last is NO_KEY:
            raise KeyError("popitem(): the dict is empty")
        return last, self.pop(last)

    def copy(self) -> dict[Any, Any]:
        """A plain dict of the same values; those that were touched are the draft's own."""
        return dict(self)

    def update(self, /, *args: Any, **kwargs: Any) -> None:
        """Set many keys; arguments as `dict.update` takes them."""
        super().update(*map(at_once, args), **kwargs)

    def __repr__(self) -> str:
        return repr(readable(self))


def _ends(writes: WriteSet) -> Ends:
    if writes.ends is None:
        writes.ends = Ends(writes.state.places)
    return writes.ends


def _is_stored(writes: WriteSet, key: object) -> bool:
    return key in writes.state.places and key not in writes.gone


def _added(writes: WriteSet) -> list[Any]:
    """Keys that the block has set and that go to the end, in their order."""
    places, gone = writes.state.places, writes.gone
    return [key for key in writes if key not in places or key in gone]


def readable(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """A mapping's items, to be shown: what cannot be loaded says so."""
    shown: dict[Any, Any] = {}
    for key in values:
        try:
            shown[key] = values[key]
        except (UnloadableError, HandleError) as err:
            shown[key] = Unloadable(err)
    return shown


def _replaced(writes: WriteSet, value: Any) -> WriteSet:
    """What ``view.value = value`` stands for: everything else is gone."""
    if isinstance(value, Draft) and value.writes is writes:
        return writes
    if not isinstance(value, Mapping):
        raise TypeError(
            f"the value of a SharedDict is a mapping, not {type(value).__name__}; "
            "assign items of the view, or a dict"
        )
    new = new_write_set(writes.store, writes.state, writes.base, type(writes))
    new.update(at_once(value))
    places = writes.state.places
    new.gone = {key: None for key in places if key not in new}
    # What stays keeps its place; where that is not the new order, everything is set anew.
    if [*(key for key in places if key in new), *_added(new)] != list(new):
        new.gone = dict.fromkeys(places)
    return new


class MappingView(Merging, View[Any]):
    """The view of a `SharedDict`'s block: a mutable mapping.

    A value that is read from it is a private object, loaded when it is first asked for; what is
    changed in it is committed too. ``view.value`` is the mapping behind it; a mapping that is
    assigned there replaces everything.
    """

    __slots__ = ()

    _value: WriteSet

    @property
    def value(self) -> Any:
        """All of it, as a mapping; assigning one replaces it."""
        self._check()
        return Draft(self)

    @value.setter
    def value(self, value: Any) -> None:
        self._check()
        self._put(value)

    def __getitem__(self, key: Any) -> Any:
        if self._owner is not here.owner:
            self._check()
        return self._value[key]

    def __repr__(self) -> str:
        if self._owner is None:
            return "<View, closed>"
        return f"<View of version {self._base[0]}: {Draft(self)!r}>"

    def _put(self, value: Any) -> None:
        self._value = value if isinstance(value, WriteSet) else _replaced(self._value, value)

    # --- The draft: what a transaction asks for ----------------------------------------------

    def _open(self, share: Any, base: Any) -> None:
        self._share = share
        self._failed = None
        self._named = NONE
        self._value = writes = WriteSet()
        self._base = writes.base = [base.version]
        writes.store = share._store
        writes.state = base
        writes.gone = writes.read = NONE
        writes.ends = None

    def _committed(self) -> Any:
        writes = self._value
        return new_write_set(writes.store, writes.store.current(), self._base, type(writes))

    def _changes(self) -> Any:
        """What the block has changed: encoded, and compared with what is stored."""
        writes = self._value
        store, places, gone = writes.store, writes.state.places, writes.gone
        changed: list[tuple[Any, tuple[Frame, ...]]] = []
        definitions: Gathered = {}
        if len(writes) > 1:
            store.prefetch(map(places.get, writes))
        for key, value in writes.items():
            try:
                frames = encode(value, definitions)
            except UnpicklableError as err:
                raise at_key(err, key) from err.__cause__
            if named:
                self._named = {**self._named, key: take_named()}
            place = places.get(key)
            if place is not None and not (gone and key in gone):
                before = store.single(place)
                if before is not None and len(frames) == 1:
                    if before == frames[0] or (
                        not is_plain(before) and self._is_same(key, frames, place)
                    ):
                        continue
                elif store.holds(place, frames) or self._is_same(key, frames, place):
                    continue
            changed.append((key, frames))
        return (list(gone), changed, definitions) if changed or gone else None

    def _is_same(self, key: Any, frames: Any, place: Any) -> bool:
        """Whether a value whose frames are others is what is stored; see `_codec.sameness`."""
        writes = self._value
        store = writes.store
        before = writes.read.get(key) or store.frames(place)
        if len(frames) > 1 and frames[0] == before[0]:
            return False
        trust = self._share._trust[key]
        if trust.believes(before[0], frames[0]):
            return False
        same = unchanged(
            writes[key],
            frames,
            before,
            lambda: store.frames(place),
            trust,
            writes.state.definitions,
        )
        take_named()  # The second look's own.
        return same


MutableMapping.register(MappingView)
