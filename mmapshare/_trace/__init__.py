"""A timeline of locks: who waited for which share, who held it, and what was committed.

Knows the lock's and the stores' methods, in whose places it puts its own while it records. Nothing
of the package knows it, so that it costs nothing while it does not.
"""

from .tracing import Trace, Tracing, opened, start_as_told

__all__ = ["Trace", "Tracing", "opened", "start_as_told"]
