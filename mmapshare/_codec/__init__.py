"""Objects to frames and back. A leaf: knows objects and pickle, and no other wing."""

from .content import goes_by_name, look_up
from .frames import EMPTY_SET, FROZENSET, GLOBAL, Gathered, decode, encode, is_plain, recover
from .known import Definitions, UnknownDefinitionError
from .references import is_being_stored, named, note, take_named
from .sameness import Trust, Trusts, unchanged

__all__ = [
    "EMPTY_SET",
    "FROZENSET",
    "GLOBAL",
    "Definitions",
    "Gathered",
    "Trust",
    "Trusts",
    "UnknownDefinitionError",
    "decode",
    "encode",
    "goes_by_name",
    "is_being_stored",
    "is_plain",
    "look_up",
    "named",
    "note",
    "recover",
    "take_named",
    "unchanged",
]
