"""What a subclass of a share has added to it, and how that travels: as pickle would carry it.

A share is pickled as a handle, and a process has one object for a region. The attributes of a
subclass travel with the handle to where that object is made. Where it is there already it keeps
its own: loading a handle changes nothing that is in use.
"""

from __future__ import annotations

from typing import Any


def state_of(share: Any) -> Any:
    """The attributes and slots that are no share's own, as ``object.__getstate__`` tells them."""
    if _is_ours(type(share)):
        return None
    state = object.__getstate__(share)
    attributes, slots = state if isinstance(state, tuple) else (state, {})
    own = {name for cls in type(share).__mro__ if _is_ours(cls) for name in _slots(cls)}
    slots = {name: value for name, value in slots.items() if name not in own}
    return (attributes, slots) if slots else attributes


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def arguments_of(share: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What ``__new__`` wants when the share is made elsewhere; nothing, unless it says so."""
    if hasattr(share, "__getnewargs_ex__"):
        args, kwargs = share.__getnewargs_ex__()
        return args, kwargs
    if hasattr(share, "__getnewargs__"):
        return share.__getnewargs__(), {}
    return (), {}


def restore(share: Any, state: Any) -> None:
    """Give a share that has just been made its attributes, in the way that pickle does.

    1. Thread A makes the share. 2. Thread B loads the same handle and gets it, without them.
    So whoever comes before A is done sets them too.
    """
    if not share._unset:
        return
    if hasattr(share, "__setstate__"):
        share.__setstate__(state)
    else:
        is_pair = isinstance(state, tuple) and len(state) == 2
        attributes, slots = state if is_pair else (state, None)
        if attributes:
            vars(share).update(attributes)
        for name, value in (slots or {}).items():
            setattr(share, name, value)
    share._unset = False
