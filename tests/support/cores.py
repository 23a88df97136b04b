"""The compiled core in builds of its own: with a planted bug, or watched by sanitizers."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

from .inside import CORE_FILE, CORE_MODULE

BUILT: Final = "MMAPSHARE_TESTS_CORE"
"""Names the build that a process works by, if it is another than the installed one."""
_SOURCE: Final = Path(__file__).resolve().parents[2] / CORE_FILE


def why_not() -> str | None:
    """Why nothing can be built here; None where it can."""
    if sysconfig.get_config_var("Py_GIL_DISABLED") or sys.implementation.name != "cpython":
        return "it is for CPython with the GIL"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "there is no Python.h"
    try:
        subprocess.run([*compiler(), "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "there is no compiler"
    return None


def compiler() -> list[str]:
    """How it is called."""
    return shlex.split(os.environ.get("CC") or "cc")


def build(folder: Path, *flags: str) -> str:
    """The core built with these flags of the compiler; its path, for `BUILT`."""
    made = folder / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = sysconfig.get_path("include")
    command = [*compiler(), "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter",
               "-Wno-missing-field-initializers", "-fPIC", "-shared", *flags, f"-I{include}",
               str(_SOURCE), "-o", str(made)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(made)


def load() -> None:
    """Work by what the environment names; before the package is imported."""
    path = os.environ.get(BUILT)
    if path and CORE_MODULE not in sys.modules:
        spec = importlib.util.spec_from_file_location(CORE_MODULE, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[CORE_MODULE] = module
