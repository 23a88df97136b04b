"""What `Share` and `SharedDict` have in common: life, waiting, handles.

Knows transactions and stores, and never what is in a store.
"""

from .base import Shared, ShareInfo, locked
from .registry import list_shares, open_shares

__all__ = [
    "ShareInfo",
    "Shared",
    "list_shares",
    "locked",
    "open_shares",
]
