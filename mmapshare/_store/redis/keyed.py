"""Values by key on a server: what writes them."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import attrs

from ...errors import VersionConflict
from ..base import Changes, KeyCodec, too_large
from .fields import OTHER, field_of
from .index import VALUE, Index, Place, mark_of
from .indexed import IndexedStore
from .orders import Order
from .remote import STORES, Found
from .scripts_keyed import COMMIT_KEYED, CREATE_KEYED, PUT_KEYED, TAKE_KEYED
from .sealing import body_of

_PUTS: Final = 3
"""So often others may commit in between before one takes the lock."""


class Write(NamedTuple):
    """One value as it is to be stored."""

    place: Place
    key: Any
    raw: bytes
    """The key's pickle, for the case that it is new: this process may not know that it is."""
    blob: bytes


@attrs.frozen
class KeyedOrder(Order):
    """An order, and what this process knows once it is made."""

    index: Index
    gone: list[bytes]
    writes: list[Write]


class RemoteKeyedStore(IndexedStore):
    """Values by key on a server; see `_store.base`."""

    __slots__ = ("_first",)

    take_script, commit_script, create_script = TAKE_KEYED, COMMIT_KEYED, CREATE_KEYED

    def __init__(self, found: Found, codec: KeyCodec) -> None:
        self._first: tuple[bytes, ...] = ()
        super().__init__(found, codec)

    def reserve(self, changes: Changes) -> None:
        index = self.current()
        writes = self._writes(index, changes, self._base + 1)
        live = sum(place.size for place in index.places.values())
        freed = [*changes[0], *(write.key for write in writes)]
        places = [index.places[key] for key in dict.fromkeys(freed) if key in index.places]
        after = live - sum(place.size for place in places)
        after += sum(write.place.size for write in writes)
        if after > max(live, self.max_size):
            most = self.max_size
            what = f"all values together take {after:,} bytes, the ceiling is {most:,} bytes"
            raise too_large(what, after, most)

    def _writes(self, index: Index | None, changes: Changes, version: int) -> list[Write]:
        """What is to be stored, and where, as far as the index knows."""
        gone, changed, needed = changes
        places: Any = {} if index is None else index.places
        serial = 0 if index is None else index.serial
        out = set(gone)
        self._codec.check_keys([key for key, _ in changed if key not in places])
        source: Any = ChainMap(needed, self._definitions) if needed else self._definitions
        writes = []
        for key, frames in changed:
            before = None if key in out else places.get(key)
            size, raw = sum(map(len, frames)), self._codec.encode_key(key)
            if before is not None:
                place = before._replace(version=version, size=size)
            else:
                serial += 1
                field = field_of(key)
                if field is None:
                    known = places.get(key)
                    field = OTHER + raw if known is None else known.field
                place = Place(field, version, serial, size, raw)
            needs = self._codec.closure(self._codec.needs_of(frames[0], len(frames[0])), source)
            definitions = self._codec.encode_key(needs) if needs else b""
            blob = self.seal.sealed(VALUE + place.field, version, body_of(frames, definitions))
            writes.append(Write(place, key, raw, blob))
        self._definitions.update(needed)
        return writes

    def _arguments(self, gone: Sequence[bytes], writes: list[Write]) -> list[bytes]:
        """As the scripts' `write` wants it."""
        arguments = [b"%d" % len(gone), *gone]
        for place, _, raw, blob in writes:
            size = b"%d" % place.size
            arguments += (place.field, raw, mark_of(place, self.seal), size, blob)
        return arguments

    def _put(self, changes: Changes) -> int:
        gone, changed, _ = changes
        if len(changed) == 1 and not gone:
            key, frames = changed[0]
            place = self.current().places.get(key)
            if place is not None and self.holds(place, frames):
                return self._base
        return self._commit(changes, True)

    def order(self, changes: Changes, last: bool) -> KeyedOrder:
        index, base = self.current(), self._base
        writes = self._writes(index, changes, base + 1)
        gone = [index.places[key].field for key in changes[0] if key in index.places]
        arguments = self._arguments(gone, writes)
        if self.is_unborn:
            self.reserve(changes)
            self._first = tuple(arguments)
        return KeyedOrder(changes, base, last, arguments, index, gone, writes)

    def committed(self, order: KeyedOrder, version: int) -> None:  # type: ignore[override]
        if not self.is_unborn:
            self._see(order.base, version)  # Another thread may have seen a later one by now.
        self._base = version
        self._made(order.index, order.base, version, order.gone, order.writes)

    def _made(
        self, index: Index | None, base: int, version: int, gone: list[bytes], writes: list[Write]
    ) -> None:
        """This process's commit is known here without asking, if nobody else's came before."""
        if index is None or version != base + 1:
            return
        with self._mutex:
            if index is self._index and index.version == base and not index.changing:
                serial = max([index.serial, *(write.place.serial for write in writes)])
                index.change(version, serial, gone, [(place, key) for place, key, *_ in writes])
        for place, _, _, blob in writes:
            self._values.add(place.field, version, blob)

    def put(self, changes: Changes, expect: Any, timeout_s: float | None, kept: Any) -> int | None:
        if self.lock.token is None:
            version = self._put_at_once(changes, expect)
            if version is not None:
                if kept or self.kept:
                    self.keep(changes, kept)
                return version
        return super().put(changes, expect, timeout_s, kept)

    def _put_at_once(self, changes: Changes, expect: Any) -> int | None:
        """Commit in one step; None, with nothing done, where one has to stand in line."""
        gone, changed, _ = changes
        # Where it must follow one version: where something is expected, or signed; or where only
        # who knows all keys knows whether this one is new, or by which field it is known.
        bound = expect is not None or bool(gone) or self.seal.signs
        bound = bound or any(field_of(key) is None for key, _ in changed)
        index = self._index
        if bound and index is None:
            index = self._caught_up()
        for _ in range(_PUTS):
            with self._mutex:
                if index is not None and index.changing:
                    return None
                base = 0 if index is None else index.version
                if expect is not None and not expect(index):
                    raise VersionConflict("something that was looked at has been changed meanwhile")
                writes = self._writes(index, changes, base + 1)
                bound = bound or any(write.place.field.startswith(OTHER) for write in writes)
                fields = (
                    [index.places[key].field for key in gone if key in index.places]
                    if index
                    else []
                )
            seen = self._newest
            with self.writing() as tag:
                reply = self.wire.run(
                    PUT_KEYED, self.names, self.region_id, tag, b"%d" % base if bound else b"",
                    *self._arguments(fields, writes),
                )  # fmt: skip
            what = reply[0]
            if what == b"ok":
                version = self._see(seen, int(reply[1]))
                self._made(index, base, version, fields, writes)
                self.replicated()
                return version
            if what == b"same":
                return self._see(seen, int(reply[1]))
            if what == b"held":
                return None
            if what != b"moved":
                self.refuse(reply)
            bound = True
            index = self._caught_up()
        return None

    # --- To be looked at -------------------------------------------------------------------

    def used_bytes(self) -> int:
        return int(self.fields(b"lb")[0] or 0)

    def first(self) -> tuple[bytes, ...]:
        self._newest = self._base
        return self._first


STORES[True] = RemoteKeyedStore
