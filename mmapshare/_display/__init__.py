"""What people see of a share: cards, and `watch`. A leaf: it is handed what it shows."""

from .card import (
    GLIMPSE_BYTES,
    ITEMS,
    LOADED_BYTES,
    bundle,
    kind_of,
    listed,
    shortened,
    size,
    table,
)
from .showing import Showing

__all__ = [
    "GLIMPSE_BYTES",
    "ITEMS",
    "LOADED_BYTES",
    "Showing",
    "bundle",
    "kind_of",
    "listed",
    "shortened",
    "size",
    "table",
]
