"""The keys of a share on a server: its hash, and what belongs to it."""

from __future__ import annotations

from typing import Final

_NAMESPACE: Final = b"mmapshare:"


def keys_of(name: str, parts: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The keys of a share: its hash, and what belongs to it, all in one slot of a cluster.

    What stands in braces decides the slot; a name may bring its own.
    """
    raw = name.encode()
    main = _NAMESPACE + (raw if b"{" in raw else b"{" + raw + b"}")
    return (main, *(main + part for part in parts))


def name_of(key: bytes) -> str | None:
    """The share's name of which that is the hash's key; None where it is no such key."""
    name = key.removeprefix(_NAMESPACE).decode("utf-8", "replace")
    if name.startswith("{") and name.endswith("}") and name.count("{") == 1:
        name = name[1:-1]
    return name if keys_of(name, ())[0] == key else None


def slot_of(key: bytes) -> bytes:
    """What decides the key's slot."""
    return key.partition(b"{")[2].partition(b"}")[0]
