"""What a server refuses, and what that means to who asked."""

from __future__ import annotations

from typing import Final

from ...errors import MmapShareError, RegionFullError, StoreRefusedError
from .resp import Refused

WAITS: Final = frozenset({"LOADING", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "BUSY", "ASK"})
"""What is over after a while."""
_FULL: Final = "nothing was changed: the server has no memory left (maxmemory): {}"
_TOO_LONG: Final = (
    "nothing was changed: the server takes no value of that size (proto-max-bulk-len): {}"
)
_WAYS_OUT: Final = {
    "READONLY": "this is a replica, which takes no change: give the URL of the primary",
    "NOREPLICAS": "the server takes changes only while it has replicas (min-replicas-to-write)",
    "MISCONF": "the server cannot save its data, and takes no change until it can",
    "NOAUTH": "the server wants a password: redis://user:password@host/0/name",
    "WRONGPASS": "the server knows no such user and password",
    "NOPERM": "the server's ACL does not let this user do that: it needs ~mmapshare:* "
    "&mmapshare:* +@hash +@sortedset +@list +@scripting +@pubsub +exists +unlink +pexpire +time "
    "+client|id +client|kill +client|list +memory|usage",
    "CROSSSLOT": "the keys of a share belong in one slot of a cluster; a name in braces sees to it",
    "WRONGTYPE": "something else than a share has that name",
}


def explained(reply: Refused) -> MmapShareError:
    """The error to raise for an error reply."""
    text = str(reply)
    if reply.code == "OOM" or "OOM command not allowed" in text:
        return RegionFullError(_FULL.format(text), needed_bytes=0, max_size_bytes=0)
    if "invalid bulk length" in text or "string exceeds maximum allowed size" in text:
        return RegionFullError(_TOO_LONG.format(text), needed_bytes=0, max_size_bytes=0)
    for code, way_out in _WAYS_OUT.items():
        if reply.code == code or f"-{code} " in text:  # What a script meets is told in its error.
            return StoreRefusedError(f"the server refused: {way_out} ({text})")
    return StoreRefusedError(f"the server refused: {text}")
