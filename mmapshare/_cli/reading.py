"""What is in a share, as far as it can be said; nothing is unpickled but by `loaded`."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from .._codec import decode, placeholders
from .._codec import frames as codec
from .._display import GLIMPSE_BYTES, ITEMS, kind_of, listed, shortened, size
from .._store import outside
from ..errors import EmptyShareError, OpenError

SHOWN_MOST: Final = 1 << 20
"""Up to so many bytes a value is read to be shown in a line."""
_READ_MOST: Final = 64 << 20
"""The same where it was asked for."""
_DEPTH_MOST: Final = 50


def in_a_line(region: Any) -> str:
    """The value, as far as there is place."""
    return versioned(region)[1]


def versioned(region: Any) -> tuple[int, str]:
    """The same with its version."""
    store = region.store(placeholders, SHOWN_MOST)
    if region.has_keys:
        found: tuple[int, str] = store.read(
            lambda state: (state.version, keys_in_a_line(store, state))
        )
        return found
    version, frames, *_ = store.read()
    if not version:
        return 0, "empty"
    if isinstance(frames[0], outside.Left) or len(frames[0]) < SHOWN_MOST:
        return version, _sketched(frames, None)
    kind = kind_of(bytes(frames[0][:GLIMPSE_BYTES]))
    return version, f"{kind}, {size(store.used_bytes())}"


def keys_in_a_line(store: Any, state: Any) -> str:
    """The first keys with their values, within a `read` of the store."""
    first = [(key, sketched_in_a_line(store, state, key)) for key in islice(state.places, ITEMS)]
    return str(listed(first, len(state.places)))


def sketched_in_a_line(store: Any, state: Any, key: Any) -> str:
    """One key's value, within a `read` of the store."""
    return _sketched(store.frames(state.places[key]), state.definitions)


def _sketched(frames: Any, definitions: Any) -> str:
    if isinstance(frames[0], outside.Left):
        return f"<{size(frames[0].size_bytes)}>"
    try:
        return shortened(placeholders.sketch(frames, definitions))
    except Exception as err:
        return f"not shown: {type(err).__name__}: {err}"


def sketched(region: Any, key: str | None) -> Any:
    """The value, or that of a key, with placeholders for all that is not plain data."""
    store = region.store(placeholders, _READ_MOST)
    return _value(region, store, key, _sketch)


def _sketch(frames: Any, definitions: Any = None) -> Any:
    if isinstance(frames[0], outside.Left) or len(frames[0]) >= _READ_MOST:
        raise OpenError(f"the value takes more than {size(_READ_MOST)}: --load loads it")
    try:
        return placeholders.sketch(frames, definitions)
    except Exception as err:
        raise OpenError(f"the value cannot be shown ({type(err).__name__}: {err})") from err


def loaded(region: Any, key: str | None) -> Any:
    """The value itself: this runs what it says."""
    return _value(region, region.store(codec, None), key, decode)


def _value(region: Any, store: Any, key: str | None, load: Any) -> Any:
    if not region.has_keys:
        if key is not None:
            raise OpenError("this is a Share, which has no keys: leave out --key")
        version, frames, *_ = store.read()
        if not version:
            raise EmptyShareError("the share is empty: it has no value yet")
        return load(frames)

    def copied(state: Any) -> tuple[list[Any], Any]:
        keys = state.places if key is None else [_key(state.places, key)]
        return [(each, store.frames(state.places[each])) for each in keys], state.definitions

    pairs, definitions = store.read(copied)
    if key is not None:
        return load(pairs[0][1], definitions)
    return {each: load(frames, definitions) for each, frames in pairs}


def _key(places: Mapping[Any, Any], key: str) -> Any:
    """The key that was meant: that str, or what it is as Python writes it."""
    if key in places:
        return key
    try:
        literal = ast.literal_eval(key)
        if literal in places:
            return literal
    except (ValueError, SyntaxError, TypeError):
        pass
    for each in places:
        if repr(each) == key:
            return each
    raise OpenError(
        f"there is no key {key!r}; the first are {shortened(list(islice(places, ITEMS)))}"
    )


def as_json(value: Any) -> str:
    """JSON: of what that has no word for, its repr as a string."""
    return json.dumps(_jsonable(value, 0), ensure_ascii=False)


def _jsonable(value: Any, depth: int) -> Any:
    kind = type(value)
    if value is None or kind in {bool, int, str} or (kind is float and math.isfinite(value)):
        return value
    if depth < _DEPTH_MOST:
        if kind in {list, tuple, set, frozenset}:
            return [_jsonable(item, depth + 1) for item in value]
        if kind is dict:
            return {
                key if type(key) is str else repr(key): _jsonable(item, depth + 1)
                for key, item in value.items()
            }
    return repr(value)
