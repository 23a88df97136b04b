"""The command line: looks at shares from outside. It is known to nothing but ``__main__``.

Knows regions as `_store.outside` reads them, what a server has as `_store.redis.outside` does, and
values as `_codec.placeholders` shows them. Opens a share as a program does only where it takes a
name away, or is to load what a server has.
"""

from .main import main

__all__ = ["main"]
