"""Packages that not everybody has."""

from __future__ import annotations

import importlib
from typing import Any


class Wanted:
    """A package that not everybody has: a test that uses it is skipped where it is missing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # Collectors ask whatever stands in a module.
            raise AttributeError(name)
        import pytest  # Processes that fork a lot do without it.

        module = pytest.importorskip(self._name)
        try:
            return getattr(module, name)
        except AttributeError:  # A part of it that nobody has imported yet.
            return importlib.import_module(f"{self._name}.{name}")
