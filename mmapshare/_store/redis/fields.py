"""Fields: what stands for a key on the server, the same for all keys that are equal.

What equals a key only Python knows. But for the common ones a field says it: for text, bytes,
numbers, None, and tuples of such. So one reads or writes such a key without knowing any other.
For all others the field is the key's pickle, and who sets one has to know all keys first.
"""

from __future__ import annotations

import math
from typing import Any, Final

OTHER: Final = b"p"
"""With what the fields of all other keys begin."""


def field_of(key: Any) -> bytes | None:  # noqa: PLR0911
    """The field of a key, and of all that equal it; None where only Python knows these.

    >>> field_of(1), field_of(1.0), field_of(True), field_of("a"), field_of(1j)
    (b'i1', b'i1', b'i1', b'sa', None)
    """
    kind = type(key)
    if kind is str:
        return b"s%b" % key.encode("utf-8", "surrogatepass")
    if kind is int or kind is bool:
        return b"i%d" % key
    if kind is bytes:
        return b"b%b" % key
    if kind is float and not math.isnan(key):
        return b"i%d" % int(key) if key.is_integer() else b"f%r" % key
    if key is None:
        return b"n"
    if kind is tuple:
        parts = [part for part in map(field_of, key) if part is not None]
        if len(parts) == len(key):
            return b"t" + b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return None
