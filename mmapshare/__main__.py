"""``python -m mmapshare``, and the script ``mmapshare``."""

from __future__ import annotations

import sys

from mmapshare import __version__

from ._cli import main as run


def main() -> int:
    """What the script calls; the exit code."""
    return run(__version__)


if __name__ == "__main__":
    sys.exit(main())
