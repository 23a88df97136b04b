"""The benchmarks are no tests, and want packages that nobody needs for these."""

from __future__ import annotations

from pathlib import Path


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    is_ours = collection_path.is_dir() or collection_path.name.startswith("test_")
    return None if is_ours else True
