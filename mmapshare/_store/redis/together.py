"""Several shares of one server, committed in one step: see `mmapshare.locked`.

One script looks at all of them first, and then changes all, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ...errors import StoreRefusedError
from .keys import slot_of
from .scripts import COMMITTING, PRELUDE
from .scripts_keyed import COMMITTING_KEYED
from .wire import Script

TOGETHER: Final = Script(
    PRELUDE
    + COMMITTING
    + "local commit_value = commit\n"
    + COMMITTING_KEYED
    + """
-- (how many keys and arguments a share has, and those arguments)...
local keys, arguments = KEYS, ARGV
local parts = {}
local key, at = 1, 1
while at <= #arguments do
  local key_end, at_end = key + arguments[at] - 1, at + 1 + arguments[at + 1]
  parts[#parts + 1] = {{unpack(keys, key, key_end)}, {}}
  for i = at + 2, at_end do
    table.insert(parts[#parts][2], arguments[i])
  end
  key, at = key_end + 1, at_end + 1
end
local replies = {}
for _, dry in ipairs({true, false}) do
  for i, part in ipairs(parts) do
    K, W, Q, H, V, C = unpack(part[1])
    A = part[2]
    replies[i] = (H and commit or commit_value)(dry)
    if replies[i][1] ~= 'ok' then return {'refused', i, replies[i]} end
  end
end
return {'ok', replies}
"""
)


def commit_together(made: Sequence[tuple[Any, Any]]) -> None:
    """Commit the changes of several stores on one server, all or none.

    In a cluster shares may be in different slots, of which no script may have two: then those of
    one slot, whose names have the same part in braces, go after those of another.
    """
    orders = [(store, store.order(changes, store.is_last)) for store, changes in made]
    names: list[bytes] = []
    arguments: list[Any] = []
    for store, order in orders:
        told = store.order_arguments(order)
        names += store.names
        arguments += (b"%d" % len(store.names), b"%d" % len(told), *told)
    try:
        reply = made[0][0].wire.run(TOGETHER, tuple(names), *arguments)
    except StoreRefusedError as err:
        slots: dict[bytes, list[tuple[Any, Any]]] = {}
        for store, changes in made:
            slots.setdefault(slot_of(store.names[0]), []).append((store, changes))
        if "CROSSSLOT" not in str(err) or len(slots) == 1:
            raise
        for part in slots.values():
            commit_together(part)
        return
    if reply[0] != b"ok":
        for store, _ in orders:
            store.done()
        refused, _ = orders[reply[1] - 1]
        refused.refuse(reply[2])
    for (store, order), each in zip(orders, reply[1], strict=True):
        store.ordered(order, each)
