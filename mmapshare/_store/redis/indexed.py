"""Values by key as one process reads them: its index, caught up each time, and what it has seen."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from threading import get_ident
from typing import Any, Final, NamedTuple, TypeVar

from ..._bytes import Frame
from ..base import KeyCodec, KeyedStore
from ..image import Image
from .fields import field_of
from .index import VALUE, Index, Place
from .remote import Found, RemoteStore
from .scripts_keyed import FETCH, LIST
from .sealing import ONE, frames_of
from .values import Values

T = TypeVar("T")

_HOT_MOST: Final = 16
_FIELDS_ALONE: Final = b""


class Overtaken(Exception):  # noqa: N818
    """Another commit has replaced what was to be read."""


class News(NamedTuple):
    """What the server tells of a version."""

    version: int
    serial: int
    heads: Any
    """What has changed since the version that was named; None where that is too much."""
    values: dict[bytes, tuple[int, bytes]]


class IndexedStore(RemoteStore, KeyedStore):
    """What reads; see `_store.base`.

    Without the GIL: the index changes under the mutex; only who reads from it asks the server
    meanwhile. ``_newest`` is written by one store, and may lag.
    """

    __slots__ = (
        "_base", "_codec", "_definitions", "_epochs", "_hot", "_index", "_mutex",
        "_newest", "_reader", "_values",
    )  # fmt: skip

    parts = (b":free", b":wait", b":heads", b":values", b":changed")

    def __init__(self, found: Found, codec: KeyCodec) -> None:
        self._codec = codec
        self._epochs = itertools.count()
        self._definitions: dict[bytes, Any] = {}
        self._index: Index | None = None
        self._values = Values()
        self._hot: dict[bytes, None] = {}
        """The fields that the last block has read: the next one gets them with the lock."""
        self._base = 0
        """The holder's: the newest version."""
        self._newest = 0
        """The newest version that this process has seen."""
        super().__init__(found)

    def _enter_process(self) -> None:
        super()._enter_process()
        # A forked child must not wait for its parent's thread, nor use what that was changing.
        self._mutex = threading.RLock()
        self._reader = 0
        """The thread that looks at the index, under the mutex."""
        if self._index is not None and self._index.changing:
            self._index = None

    def mutex(self) -> Any:
        return self._mutex

    # --- Reading ---------------------------------------------------------------------------

    @property
    def version(self) -> int:
        return self._see(self._newest, int(self.fields(b"v")[0]))

    @property
    def base_version(self) -> int:
        return self._base

    @property
    def seen_version(self) -> int:
        return self._newest

    def _see(self, seen: int, version: int) -> int:
        """That is there now; ``seen`` is what had been seen when it was asked for."""
        if version < seen:
            self._newest, self._index = 0, None
            self._values = Values()
            raise self.older(seen, version)
        self._newest = max(self._newest, version)
        return version

    def read(self, look: Callable[[Any], T]) -> T:
        return self._read(look, ())

    def read_known(self, look: Callable[[Any], T]) -> T:
        with self._mutex, contextlib.suppress(Overtaken):
            return self._looked(look, self._index)
        return self.read(look)

    def _looked(self, look: Callable[[Any], T], index: Index | None) -> T:
        """Under the mutex; Overtaken also where the index is none to be used."""
        if index is None or index.changing:
            raise Overtaken
        before, self._reader = self._reader, get_ident()
        try:
            return look(index)
        finally:
            self._reader = before

    def _read(self, look: Callable[[Any], T], fields: Iterable[bytes]) -> T:
        """As `read`; the values of these fields come along."""
        while True:
            index = self._caught_up(fields)
            with self._mutex, contextlib.suppress(Overtaken):
                return self._looked(look, index)

    def _caught_up(self, fields: Iterable[bytes] = ()) -> Index:
        """The index, not older than this call."""
        while True:
            index = self._index
            if index is None or index.changing:
                index = self._loaded()
                if not fields:
                    return index
            since = index.version
            news = self._ask(b"%d" % since, fields)
            if self._apply(index, since, news):
                return index

    def _ask(self, since: bytes, fields: Iterable[bytes]) -> News:
        seen = self._newest
        reply = self.wire.run(
            FETCH, self.names, self.region_id, since, *self._values.wanted(fields)
        )
        if reply[0] != b"ok":
            self.refuse(reply)
        _, version, serial, heads, values = reply
        self._see(seen, int(version))
        return News(int(version), int(serial or 0), heads, self._values.told(values))

    def _apply(self, index: Index, since: int, news: News) -> bool:
        """Bring the index up by what was told; False where it has to be asked for again."""
        if news.heads is None:
            self._loaded()
            return False
        with self._mutex:
            if index.changing or index is not self._index:
                return False
            if index.version == since and news.version > since:
                index.follow(news.version, news.serial, news.heads, self._codec, self.seal)
            return index.version >= news.version

    def _loaded(self) -> Index:
        """The index, made anew."""
        index = Index(next(self._epochs), self._definitions)
        if not self.is_unborn:
            version, serial, heads, _ = self._listed(b"0")
            index.follow(version, serial, heads, self._codec, self.seal)
        with self._mutex:
            self._index = index
        return index

    def _listed(self, with_values: bytes) -> tuple[int, int, Any, dict[bytes, bytes]]:
        """The newest version, the last serial number, all heads and, if wanted, all values."""
        seen = self._newest
        reply = self.wire.run(LIST, self.names, self.region_id, with_values)
        if reply[0] != b"ok":
            self.refuse(reply)
        _, version, serial, heads, values = reply
        by_field = dict(zip(values[::2], values[1::2], strict=True))
        pairs = list(zip(heads[::2], heads[1::2], strict=True))
        return self._see(seen, int(version)), int(serial or 0), pairs, by_field

    def fetch(self, key: Any) -> tuple[Sequence[Frame], Any]:
        index = self._index
        place = None if index is None else index.places.get(key)
        field = field_of(key) if place is None else place.field
        if index is None and field is not None:
            found = self._alone(field)
            if found is not None:
                return self._frames(*found), self._definitions

        def look(state: Any) -> tuple[Sequence[Frame], Any]:
            return self.frames(state.places[key]), state.definitions

        return self._read(look, () if field is None else (field,))

    def _alone(self, field: bytes) -> tuple[bytes, int, bytes] | None:
        """A value that is read without any index; None where that has to tell."""
        found = self._ask(_FIELDS_ALONE, (field,)).values.get(field)
        return None if found is None else (field, *found)

    def frames(self, place: Place) -> Sequence[Frame]:
        return self._frames(place.field, place.version, self._blob(place))

    def _frames(self, field: bytes, version: int, blob: bytes) -> Sequence[Frame]:
        frames, definitions = frames_of(self.seal.opened(VALUE + field, version, blob))
        if definitions:
            self._definitions.update(self._codec.decode_key(definitions))
        return frames

    def single(self, place: Place) -> bytes | None:
        body = self.seal.opened(VALUE + place.field, place.version, self._blob(place))
        return body[1:] if body[:1] == ONE else None

    def _blob(self, place: Place) -> bytes:
        """What is stored there: Overtaken in `read`, LeaseLostError for a holder who is none."""
        if self._reader != get_ident() and len(self._hot) < _HOT_MOST:
            self._hot[place.field] = None
        blob = self._values.get(place)
        if blob is not None:
            return blob
        version, blob = self._ask(_FIELDS_ALONE, (place.field,)).values.get(place.field, (0, b""))
        if version != place.version:
            if self._reader == get_ident():
                raise Overtaken
            self.refuse([b"lost", b"%d" % version])
        return blob

    def prefetch(self, places: Iterable[Place | None]) -> None:
        missing = [p.field for p in places if p is not None and self._values.get(p) is None]
        if missing:
            self._ask(_FIELDS_ALONE, missing)

    def size_of(self, place: Place) -> int:
        return place.size

    def image(self) -> Image:
        version, serial, heads, blobs = self._listed(b"1")
        index = Index(0, self._definitions)
        index.follow(version, serial, heads, self._codec, self.seal)
        copies = {
            key: self._frames(place.field, place.version, blobs[place.field])
            for key, place in index.places.items()
        }
        return Image(version, copies, self._definitions)

    # --- The lock brings what is new -------------------------------------------------------

    def take_arguments(self) -> tuple[bytes, ...]:
        index = self._index
        hot, self._hot = self._hot, {}
        fields = self._values.wanted(hot)
        self._base = self._newest  # What is there now is not older.
        if index is None or index.changing:
            return (b"-1", *fields)
        return (b"%d" % index.version, *fields)

    def taken(self, rest: list[Any]) -> None:
        version, serial, heads, values = rest
        self._base = self._see(self._base, int(version))
        news = News(self._base, int(serial or 0), heads, self._values.told(values))
        index = self._index
        if index is None or not self._apply(index, index.version, news):
            self._caught_up()

    def current(self) -> Index:
        with self._mutex:
            index = self._index
            if index is not None and not index.changing and index.version == self._base:
                return index
        return self._caught_up()
