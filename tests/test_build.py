"""The package is built with a compiler and without one, and what is handed on has all of it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from support import inside
from support.inside import CORE_FILE

TOP = Path(__file__).parent.parent
PARTS = "mmapshare", "examples", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"
NOT_OURS = shutil.ignore_patterns("*.so", "__pycache__", ".*", "*.egg-info", "build")
HEADER = Path(sysconfig.get_path("include")) / "Python.h"
COMPILER = shutil.which("gcc") or shutil.which("cc")
CAN = COMPILER and HEADER.exists() and not sysconfig.get_config_var("Py_GIL_DISABLED")

pytest.importorskip("setuptools", minversion="77")
pytestmark = [
    pytest.mark.skipif(not inside.is_built(), reason="it was built without the core"),
    pytest.mark.untraced,
]


@pytest.fixture
def source(tmp_path):
    copy = tmp_path / "a source"
    copy.mkdir()
    for part in PARTS:
        if (TOP / part).is_dir():
            shutil.copytree(TOP / part, copy / part, ignore=NOT_OURS)
        else:
            shutil.copy(TOP / part, copy / part)
    return copy


def _pip(source, *words, **environment):
    """What pip says while it builds."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", words[0], "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", *words[1:]],
        cwd=source, env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _core_in(wheel):
    """What a program that has installed this works by."""
    folder = wheel.parent / "installed"
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        packed.extractall(folder)
    assert "mmapshare/py.typed" in names and CORE_FILE not in names
    assert not [name for name in names if name.startswith(("tests", "examples"))]
    program = "import mmapshare; print(mmapshare.core, mmapshare.Share([1]).get())"
    environment = {key: value for key, value in os.environ.items() if key != "MMAPSHARE_CORE"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "PYTHONPATH": str(folder)},
        cwd=wheel.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0]


def _without_headers(tmp_path):
    """A compiler that finds no Python.h."""
    script = tmp_path / "cc without headers"
    script.write_text(
        '#!/bin/sh\nfor word; do shift; case $word in -I*) ;; *) set -- "$@" "$word";; esac; '
        f'done\nexec {COMPILER or "/bin/false"} "$@"\n'
    )
    script.chmod(0o755)
    plain = tmp_path / "cc"
    plain.symlink_to(script)
    return str(plain)


def _compiler(tmp_path, lacking):
    if lacking == "headers":
        return _without_headers(tmp_path)
    return "/bin/false" if lacking else COMPILER


WAYS = [None, "a compiler", "headers"]


@pytest.mark.parametrize("lacking", WAYS)
def test_a_wheel_has_the_core_where_it_can_be_built_and_nothing_is_said_else(
    source, tmp_path, lacking
):
    if lacking is None and not CAN:
        pytest.skip("no compiler, or no use for it")
    said = _pip(source, "wheel", "-w", source.parent, ".", CC=_compiler(tmp_path, lacking)).lower()
    assert not [word for word in ("error", "warn", "fail", "exception") if word in said], said
    (wheel,) = source.parent.glob("*.whl")
    assert _core_in(wheel) == ("python" if lacking else "c")


@pytest.mark.parametrize("lacking", WAYS)
def test_an_editable_one_has_the_core_beside_its_source_or_none(source, tmp_path, lacking):
    if lacking is None and not CAN:
        pytest.skip("no compiler, or no use for it")
    prefix = source.parent / "prefix"
    said = _pip(
        source, "install", "-q", "--ignore-installed", "--no-warn-script-location",
        "--prefix", prefix, "-e", ".", CC=_compiler(tmp_path, lacking),
    )  # fmt: skip
    assert said == ""
    assert bool(list((source / "mmapshare").glob("*.so"))) == (lacking is None)
    (path,) = prefix.rglob("*mmapshare*.pth")
    # The folder itself, and no finder: type checkers read it, and an import costs no more.
    assert Path(path.read_text().strip()).samefile(source)


def test_the_source_distribution_has_all_of_the_package(source):
    program = "from setuptools.build_meta import build_sdist; build_sdist('..')"
    subprocess.run([sys.executable, "-c", program], cwd=source, check=True, capture_output=True)
    (packed,) = source.parent.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    kept = {str(path.relative_to(source)) for path in (source / "mmapshare").rglob("*.*")}
    assert not (kept | {"pyproject.toml", "README.md", "LICENSE"}) - names
    assert not {name for name in names if name.endswith((".so", ".pyc"))}
