"""Which part of a value cannot be pickled: a search that runs only once pickling has failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from types import FunctionType
from typing import Any, Final

_STEPS: Final = 1000
_SECONDS: Final = 0.5
"""How many parts are looked at, and for how long, perhaps under the lock; past that the deepest
culprit so far is named."""
_PATH_MOST: Final = 300


def blame(value: object, can_pickle: Callable[[object], bool]) -> tuple[str, str]:
    """The path to the innermost part at fault, and what it is: ``value['model'].lock``, ``a lock``.

    ``can_pickle`` tries a part by itself. Never raises for what user code does.
    """
    try:
        return _search(value, can_pickle)
    except Exception:
        return "value", "an object whose own code fails"


def _search(value: object, can_pickle: Callable[[object], bool]) -> tuple[str, str]:
    path, culprit = "value", value
    seen = {id(value)}
    steps = 0
    descended = True
    end = monotonic() + _SECONDS
    while descended and steps < _STEPS:
        descended = False
        for step, part in _parts(culprit):
            steps += 1
            if steps >= _STEPS or monotonic() > end:
                steps = _STEPS
                break
            if id(part) not in seen and not can_pickle(part):
                seen.add(id(part))
                path, culprit, descended = path + step, part, True
                break
    kind = type(culprit)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    if len(path) > _PATH_MOST:
        path = f"{path[: _PATH_MOST // 2]} ... {path[-_PATH_MOST // 2 :]}"
    return path, f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts that pickling a value would meet, each with its step of the path."""
    try:
        if isinstance(value, Mapping):
            for key, part in list(value.items()):
                yield f"[{key!r}]", part
                yield f".key({key!r})", key
        elif isinstance(value, list | tuple):
            for index, part in enumerate(value):
                yield f"[{index}]", part
        elif isinstance(value, set | frozenset):
            for part in value:
                yield f".member({part!r})", part
        elif isinstance(value, FunctionType):
            yield from _function_parts(value)
        if hasattr(value, "__self__") and hasattr(value, "__func__"):
            yield ".__self__", value.__self__
        yield from [(f".{name}", part) for name, part in getattr(value, "__dict__", {}).items()]
        for cls in type(value).__mro__:
            slots = vars(cls).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, name):
                    yield f".{name}", getattr(value, name)
    except Exception:  # A property or a repr of the user's own failed: this part is the culprit.
        return


def _function_parts(function: FunctionType) -> Iterator[tuple[str, Any]]:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        yield f".closure({name})", cell.cell_contents
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f".globals({name})", function.__globals__[name]
