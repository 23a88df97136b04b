"""Programs with classes of their ``__main__``, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from .children import TESTS

PRELUDE = """
import enum, os, pickle, sys, attrs
from mmapshare import Share
sys.path.insert(0, {tests!r})
from support import in_child, stranger

@attrs.define
class Point:
    x: int
    y: int = 2
    def double(self):
        return Point(self.x * 2, self.y * 2)

class Color(enum.Enum):
    RED = 1
    BLUE = 2

class MyError(Exception):
    pass
"""


def run(program, tmp_path):
    """Run a program as ``__main__``, as a file (so that spawned children can import it)."""
    path = tmp_path / "program.py"
    path.write_text(PRELUDE.format(tests=TESTS) + textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", str(path)],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()
