"""Frames as one string of bytes, and the signature of such: what stands in the server's fields.

====== ======= ==========================================================================
begin  size    what
====== ======= ==========================================================================
0      1       UNSIGNED or SIGNED
(1)    (32)    only SIGNED: HMAC-SHA256, with the secret, over ``mmapshare 1``, the region's
               id, the version that wrote it, the field's name with its length, and the body
1, 33          the body: ONE and the one frame; or MANY, the number of frames, the size of
               the definitions, the size of each frame; the definitions; the frames
====== ======= ==========================================================================

Bound to all that, what is signed in one place and at one version is nothing in another one.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from typing import Final

from ..._bytes import Frame
from ...errors import CorruptRegionError

UNSIGNED: Final = b"\x01"
SIGNED: Final = b"\x03"
SIGNED_BEGIN: Final = 33
ONE: Final = b"\x01"
_MANY: Final = b"\x02"
_HEAD: Final = struct.Struct("<IQ")
_PLACE: Final = struct.Struct("<QQ")

assert len(SIGNED) + hashlib.sha256().digest_size == SIGNED_BEGIN


def body_of(frames: Sequence[Frame], definitions: bytes = b"") -> bytes:
    """Frames, and the definitions that they need, as one."""
    if len(frames) == 1 and not definitions:
        return ONE + bytes(frames[0])
    head = _HEAD.pack(len(frames), len(definitions))
    sizes = struct.pack(f"<{len(frames)}Q", *map(len, frames))
    return b"".join((_MANY, head, sizes, definitions, *frames))


def frames_of(body: bytes) -> tuple[Sequence[Frame], bytes]:
    """The frames, this process's own, and the definitions; CorruptRegionError where it is none."""
    if body[:1] == ONE:
        return (body[1:],), b""
    try:
        if body[:1] != _MANY:
            raise ValueError("it begins as none")
        count, size = _HEAD.unpack_from(body, 1)
        sizes = struct.unpack_from(f"<{count}Q", body, 1 + _HEAD.size)
        begin = 1 + _HEAD.size + 8 * count
        if not count or begin + size + sum(sizes) != len(body):
            raise ValueError("its frames do not fill it")
    except (ValueError, struct.error, MemoryError) as err:
        raise CorruptRegionError(f"a stored value is none of this format: {err}") from None
    definitions = body[begin : begin + size]
    begin += size
    frames: list[Frame] = []
    with memoryview(body) as view:
        for size in sizes:
            piece = view[begin : begin + size]
            frames.append(bytearray(piece) if frames else bytes(piece))
            begin += size
    # One frame is in a tuple, and may be taken for what was encoded alike.
    return (tuple(frames) if count == 1 else frames), definitions


class Seal:
    """Signs and checks what one region stores, where there is a secret."""

    __slots__ = ("_secret", "region_id")

    def __init__(self, region_id: bytes, secret: bytes | None) -> None:
        self.region_id = region_id
        self._secret = secret

    @property
    def signs(self) -> bool:
        return self._secret is not None

    def sealed(self, field: bytes, version: int, body: bytes) -> bytes:
        """As it is stored."""
        if self._secret is None:
            return UNSIGNED + body
        return SIGNED + self.mark(field, version, body) + body

    def mark(self, field: bytes, version: int, body: bytes) -> bytes:
        """The signature."""
        assert self._secret is not None
        made = hmac.new(self._secret, b"mmapshare 1\0", hashlib.sha256)
        made.update(self.region_id + _PLACE.pack(version, len(field)) + field)
        made.update(body)
        return made.digest()

    def opened(self, field: bytes, version: int, blob: bytes | None) -> bytes:
        """The body; CorruptRegionError unless it is what was stored there at that version."""
        if self._secret is None:
            if blob is not None and blob[:1] == UNSIGNED:
                return blob[1:]
            raise CorruptRegionError("what the server has is no value of this format")
        if blob is not None and blob[:1] == SIGNED and len(blob) >= SIGNED_BEGIN:
            body = blob[SIGNED_BEGIN:]
            expected = self.mark(field, version, body)
            if hmac.compare_digest(blob[1:SIGNED_BEGIN], expected):
                return body
        raise CorruptRegionError(
            "what the server has was not signed, for this place and version, by who has the "
            "share's secret; nothing of it was loaded"
        )
