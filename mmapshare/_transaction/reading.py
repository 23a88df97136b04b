"""What a `SharedDict` has for reading beside ``d[key]``: each method sees one version."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from .._codec import decode
from ..errors import UnloadableError, at_key
from .snapshot import DictSnapshot

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")


class Reading(Generic[K, V]):
    """Takes no lock, and never waits for a holder."""

    __slots__ = ()

    _store: Any

    if TYPE_CHECKING:

        def __getitem__(self, key: K) -> V: ...
        def __iter__(self) -> Iterator[K]: ...

    @overload
    def get(self, key: K, default: None = None, /, *, copy: bool = ...) -> V | None: ...

    @overload
    def get(self, key: K, default: V | R, /, *, copy: bool = ...) -> V | R: ...

    def get(self, key: K, default: Any = None, /, *, copy: bool = True) -> Any:
        """The key's value; ``default`` where there is none.

        ``copy=False`` maps the large buffers of a value of 4 MiB or more, as `Share.get` does.

        >>> from mmapshare import SharedDict
        >>> SharedDict(a=1).get("b", 2)
        2
        """
        try:
            held = None if copy else self._store.hold(key)
            if held is None:
                return self[key]
        except KeyError:
            return default
        try:
            return decode(*held)
        except UnloadableError as err:
            raise at_key(err, key) from err.__cause__

    def snapshot(self, *, copy: bool = True) -> DictSnapshot[K, V]:
        """All of it at one version, as a read-only mapping; copied, but not loaded.

        With ``copy=False``, and a value of 4 MiB or more in it, all is held in place for as long
        as the snapshot or anything large that was loaded from it is used, as `Share.get` does.

        >>> from mmapshare import SharedDict
        >>> d = SharedDict(a=1)
        >>> before = d.snapshot()
        >>> d["a"] = 2
        >>> before["a"], before.version
        (1, 1)
        """
        return DictSnapshot(self._store.image() if copy else self._store.hold_image())

    def keys(self) -> KeysView[K]:
        """The keys of one version, now's.

        >>> from mmapshare import SharedDict
        >>> SharedDict(a=1).keys() == {"a"}
        True
        """
        return dict.fromkeys(self).keys()

    def values(self) -> ValuesView[V]:
        """The values of one version, now's; each is loaded when it is its turn.

        >>> from mmapshare import SharedDict
        >>> sum(SharedDict(a=1, b=2).values())
        3
        """
        return self.snapshot().values()

    def items(self) -> ItemsView[K, V]:
        """The items of one version, now's.

        >>> from mmapshare import SharedDict
        >>> list(SharedDict(a=1).items())
        [('a', 1)]
        """
        return self.snapshot().items()

    def copy(self) -> dict[K, V]:
        """A plain dict of one version.

        >>> from mmapshare import SharedDict
        >>> SharedDict(a=1).copy()
        {'a': 1}
        """
        return dict(self.snapshot())
