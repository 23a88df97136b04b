"""What does the work that is done all the time in this process: the compiled core, or Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

used = "python"
"""Or "c", the compiled core."""

methods: dict[str, dict[tuple[type, str], Any]] = {"python": {}}
"""By core: what stands in the classes while that works; `_compiled` finds it."""

put: dict[str, Callable[[type, str, Any], None]] = {"python": setattr}
"""What puts a core's method into a class."""


def use(core: str) -> str:
    """Have this process work by "c", where that is there, or by "python"; what it works by now.

    Blocks that run go on. A program says ``MMAPSHARE_CORE=python`` before it starts.
    """
    global used  # noqa: PLW0603
    used = core if core in methods else "python"
    for (cls, name), method in methods[used].items():
        if vars(cls)[name] is not method:
            put[used](cls, name, method)
    return used
