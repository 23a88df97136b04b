"""Committed bytes by version: the contract of a store (`base`), and the one over memory.

Knows every byte of a region, and the lock; never an object, and so never the codec.
"""

from .held import Held
from .keyed import MemoryKeyedStore
from .order import FEW, NO_KEY, Ends, Places, begin
from .segment import Segment
from .value import MemoryValueStore

__all__ = [
    "FEW",
    "NO_KEY",
    "Ends",
    "Held",
    "MemoryKeyedStore",
    "MemoryValueStore",
    "Places",
    "Segment",
    "begin",
]
