"""What CPython 3.13 without the GIL breaks by itself, and the tests that cannot be run there."""

from __future__ import annotations

import sys

_FIRST = sys.version_info < (3, 14) and not getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether this is the first Python without the GIL."""

FORKS_BESIDE_THREADS_HANG = _FIRST
"""``planted_fork_beside_threads.py`` shows it, without mmapshare."""


def _let_classes_end() -> bool:
    """Whether classes that nobody uses any more go, with all that their methods hold.

    There no class goes once a second thread was started; but CPython's own tests can ask for it.
    """
    if not _FIRST:
        return True
    try:
        from _testinternalcapi import suppress_immortalization
    except ImportError:  # Not every build brings it.
        return False
    suppress_immortalization(True)
    return True


CLASSES_END = _let_classes_end()

UNFIT = {
    "forks_beside_threads": (
        FORKS_BESIDE_THREADS_HANG,
        "CPython 3.13 without the GIL leaves locks of its own taken in a child that is forked "
        "beside busy threads, see tests/support/planted_fork_beside_threads.py",
    ),
    "classes_end": (
        not CLASSES_END,
        "CPython 3.13 without the GIL keeps each class for ever once a thread was started",
    ),
}
"""By marker: whether what has it is skipped here, and why."""
