"""From taking the lock to the commit: blocks, views, drafts, and work without the lock.

Knows objects and how they are encoded, and of a store its methods; never a face, and never where a
store keeps anything.
"""

from .block import Transaction
from .hints import NotAContainer
from .mapping import Draft, MappingView, Merging, Versioned, at_once, readable
from .optimistic import Conflict, OptimisticView, ReadSet, optimistic
from .own import in_own_block, own_block, own_token, put_inside
from .reading import Reading
from .several import Together
from .snapshot import DictSnapshot, holds
from .view import MISSING, Unloadable, View

__all__ = [
    "MISSING",
    "Conflict",
    "DictSnapshot",
    "Draft",
    "MappingView",
    "Merging",
    "NotAContainer",
    "OptimisticView",
    "ReadSet",
    "Reading",
    "Together",
    "Transaction",
    "Unloadable",
    "Versioned",
    "View",
    "at_once",
    "holds",
    "in_own_block",
    "optimistic",
    "own_block",
    "own_token",
    "put_inside",
    "readable",
]
