"""The draft of a `SharedDict`'s block: values become private objects when they are first touched.

What is stored stays where it is until then. When the block ends, only the values that were
touched are pickled again, and only those whose bytes differ are written.

Without the GIL: a draft is its owner's alone, and what is stored does not change while that has
the lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from itertools import filterfalse
from typing import Any, Final

from .._bytes import Frame
from .._codec.frames import Gathered, decode, encode, is_plain
from .._codec.references import named, take_named
from .._codec.sameness import unchanged
from .._lock.owner import here
from .._store.order import FEW, NO_KEY, Ends, Places, begin
from ..errors import HandleError, UnloadableError, UnpicklableError, at_key
from .view import Unloadable, View

_ATOMS: Final = frozenset({int, float, complex, bool, str, bytes, type(None)})
"""Values of these types cannot be changed in place, so having been read they need no new look."""


NONE: Final[dict[Any, Any]] = {}
"""Stands where there is nothing yet; never changed."""


class Touched(dict[Any, Any]):
    """The values that a block has touched or set; a missing one is loaded from what is stored."""

    __slots__ = ("ends", "gone", "read", "state", "store")

    store: Any
    state: Any
    gone: dict[Any, None]
    """Stored keys that the block has deleted, perhaps to set them again at the end."""
    read: dict[Any, Any]
    """The frames of which values were made that have buffers; they may be the values' memory."""
    ends: Ends | None
    """The first and the last stored key that are left, once somebody has asked for one."""

    def __missing__(self, key: Any) -> Any:
        place = self.state.places.get(key)
        if place is None or (self.gone and key in self.gone):
            raise KeyError(key)
        raw = self.store.single(place)
        frames = (raw,) if raw is not None else self.store.frames(place)
        try:
            value = decode(frames, self.state.definitions)
        except UnloadableError as err:
            raise at_key(err, key) from err.__cause__
        if raw is None:
            self.read = self.read or {}
            self.read[key] = frames
        if type(value) not in _ATOMS:
            self[key] = value
        return value

    def stored(self, key: Any, place: Any) -> Any:
        """The frames that are stored there, anew; nothing where they are gone."""
        return self.store.frames(place)


def touched_at(store: Any, state: Any, kind: type[Touched] = Touched) -> Touched:
    """Nothing touched yet."""
    touched = kind()
    touched.store = store
    touched.state = state
    touched.gone = touched.read = NONE
    touched.ends = None
    return touched


class Draft(MutableMapping[Any, Any]):
    """A mapping as a block sees and changes it. It is the view's, and as dead as that."""

    __slots__ = ("_view",)

    def __init__(self, view: MappingView) -> None:
        self._view = view

    @property
    def touched(self) -> Touched:
        """What the block has touched; ViewClosedError outside of the block."""
        view = self._view
        if view._owner is not here.owner:
            view._check()
        return view._value

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    def __getitem__(self, key: Any) -> Any:
        return self.touched[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.touched[key] = value

    def __delitem__(self, key: Any) -> None:
        touched = self.touched
        if touched.ends is not None:
            touched.ends.settle()
        if touched.pop(key, NO_KEY) is NO_KEY and not _is_stored(touched, key):
            raise KeyError(key)
        if key in touched.state.places:
            touched.gone = touched.gone or {}
            touched.gone[key] = None

    def __contains__(self, key: object) -> bool:
        return key in self.touched or _is_stored(self.touched, key)

    def __iter__(self) -> Iterator[Any]:
        """The keys in order, as they were when the iteration began."""
        touched = self.touched
        gone, places, added = touched.gone, touched.state.places, _added(touched)
        count = len(places)

        def all_keys() -> list[Any]:
            keys = list(places)
            del keys[count:]  # What was committed since then came at the end.
            return [*(filterfalse(gone.__contains__, keys) if gone else keys), *added]

        if type(places) is not Places or count <= FEW:
            return iter(all_keys())
        ends = _ends(touched)
        first = ends.first(gone)
        if first is NO_KEY:
            return iter(added)
        return begin([first], all_keys, touched.store.mutex, ends, places)

    def __reversed__(self) -> Iterator[Any]:
        touched = self.touched
        yield from reversed(_added(touched))
        last = _ends(touched).last(touched.gone)
        if last is not NO_KEY:
            yield last
            for key in reversed(touched.state.places):
                if key is not last and key not in touched.gone:
                    yield key

    def __len__(self) -> int:
        touched: Any = self.touched
        places, gone = touched.state.places, touched.gone
        stored = sum(map(places.__contains__, touched))
        again = sum(map(touched.__contains__, gone))
        count: int = len(places) - len(gone) + len(touched) - stored + again
        return count

    def clear(self) -> None:
        if self.touched.ends is not None:
            self.touched.ends.settle()
        self.touched.clear()
        self.touched.gone = dict.fromkeys(self.touched.state.places)

    def pop(self, key: Any, *default: Any) -> Any:
        """Take a value out; ``default`` where there is none, or none that can be loaded here."""
        try:
            value = self[key]
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
        touched = self.touched
        places, gone = touched.state.places, touched.gone
        for key in reversed(touched):
            if key not in places or key in gone:
                return key, self.pop(key)
        last = _ends(touched).last(gone)
        if last is NO_KEY:
            raise KeyError("popitem(): the dict is empty")
        return last, self.pop(last)

    def copy(self) -> dict[Any, Any]:
        """A plain dict of the same values; those that were touched are the draft's own."""
        return dict(self)

    def __or__(self, other: Any) -> Any:
        return {**self, **other} if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return {**other, **self} if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Draft:
        self.update(other)
        return self

    def __repr__(self) -> str:
        return repr(readable(self))


def _ends(touched: Touched) -> Ends:
    if touched.ends is None:
        touched.ends = Ends(touched.state.places)
    return touched.ends


def _is_stored(touched: Touched, key: object) -> bool:
    return key in touched.state.places and key not in touched.gone


def _added(touched: Touched) -> list[Any]:
    """Keys that the block has set and that go to the end, in their order."""
    places, gone = touched.state.places, touched.gone
    return [key for key in touched if key not in places or key in gone]


def readable(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """A mapping's items, to be shown: what cannot be loaded says so."""
    shown: dict[Any, Any] = {}
    for key in values:
        try:
            shown[key] = values[key]
        except (UnloadableError, HandleError) as err:
            shown[key] = Unloadable(err)
    return shown


def _replaced(touched: Touched, value: Any) -> Touched:
    """What ``view.value = value`` stands for: everything else is gone."""
    if isinstance(value, Draft) and value.touched is touched:
        return touched
    if not isinstance(value, Mapping):
        raise TypeError(
            f"the value of a SharedDict is a mapping, not {type(value).__name__}; "
            "assign items of the view, or a dict"
        )
    new = touched_at(touched.store, touched.state)
    new.update(at_once(value))
    places = touched.state.places
    new.gone = {key: None for key in places if key not in new}
    # What stays keeps its place; where that is not the new order, everything is set anew.
    if [*(key for key in places if key in new), *_added(new)] != list(new):
        new.gone = dict.fromkeys(places)
    return new


class Versioned:
    """What has a `snapshot`, of one version."""

    __slots__ = ()

    def snapshot(self) -> Any:
        raise NotImplementedError


def at_once(items: Any) -> Any:
    """What is of one version at a time, at its newest; anything else as it is."""
    return items.snapshot() if isinstance(items, Versioned) else items


class MappingView(View[Any]):
    """The view of a `SharedDict`'s block: a mutable mapping.

    A value that is read from it is a private object, loaded when it is first asked for; what is
    changed in it is committed too. ``view.value`` is the mapping behind it; a mapping that is
    assigned there replaces everything.
    """

    __slots__ = ()

    _value: Touched

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

    def __ior__(self, other: Any) -> MappingView:
        self.value.update(at_once(other))
        return self

    def update(self, /, *args: Any, **kwargs: Any) -> None:
        """Set many keys; arguments as `dict.update` takes them."""
        self.value.update(*map(at_once, args), **kwargs)

    def __or__(self, other: Any) -> Any:
        return self.value | other

    def __ror__(self, other: Any) -> Any:
        return other | self.value

    def __repr__(self) -> str:
        if self._owner is None:
            return "<View, closed>"
        return f"<View of version {self._base[0]}: {Draft(self)!r}>"

    def _put(self, value: Any) -> None:
        self._value = value if isinstance(value, Touched) else _replaced(self._value, value)

    # --- The draft: what a transaction asks for ----------------------------------------------

    def _open(self, share: Any, base: Any) -> None:
        self._share = share
        self._base = (base.version,)
        self._failed = None
        self._named = NONE
        self._value = touched = Touched()
        touched.store = share._store
        touched.state = base
        touched.gone = touched.read = NONE
        touched.ends = None

    def _committed(self) -> Any:
        store = self._share._store
        return touched_at(store, store.current())

    def _changes(self) -> Any:
        """What the block has changed: encoded, and compared with what is stored."""
        touched = self._value
        store, places, gone = touched.store, touched.state.places, touched.gone
        changed: list[tuple[Any, tuple[Frame, ...]]] = []
        definitions: Gathered = {}
        for key, value in touched.items():
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
        touched = self._value
        before = touched.read.get(key) or touched.stored(key, place)
        if not before or (len(frames) > 1 and frames[0] == before[0]):
            return False
        trust = self._share._trust[key]
        if trust.believes(before[0], frames[0]):
            return False
        same = unchanged(
            touched[key],
            frames,
            before,
            lambda: touched.stored(key, place),
            trust,
            touched.state.definitions,
        )
        take_named()  # The second look's own.
        return same


MutableMapping.register(MappingView)
