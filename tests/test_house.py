"""How the tests are laid out: what may reach where."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import TESTS, inside
from support.media import MEDIA, Medium, OneProcess, fitting

FILES = sorted(path for path in Path(TESTS).rglob("*.py") if path.name != Path(__file__).name)
INSIDE = Path(inside.__file__)
PRIVATE = re.compile(
    r"mmapshare\._(?!_)|mmapshare import [^\n;]*\b_[a-z]|\._(region|index|lock|share)\b"
)
OTHERS = {
    # The standard library's.
    *("_exit", "_getframe", "_make", "_replace", "_fields", "_slotnames", "_is_owned", "_config"),
    *("_forkserver", "_resource_tracker", "_stop", "_log_destroy_pending"),
    # IPython's, which asks for it.
    "_repr_mimebundle_",
    # Other packages'.
    *("_PICKLE_BY_VALUE_MODULES", "_tmp_path_factory", "_SHM_NAME_PREFIX"),
    # A test's own, which says so.
    "_private",
}
"""Names with an underscore that are no part of this package, or are its public ones."""


def _reaches_into_privates(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("mmapshare"):
                own = any(name.name.startswith("_") for name in names)
                found = own or "._" in module
            case ast.Import(names=names):
                found = any(name.name.startswith("mmapshare._") for name in names)
            case ast.Attribute(value=ast.Name("self" | "cls")):
                found = False
            case ast.Attribute(attr=attr):
                found = attr.startswith("_") and not attr.startswith("__") and attr not in OTHERS
            case ast.Constant(value=str(text)):  # A program that is started.
                found = PRIVATE.search(text) is not None
            case _:
                continue
        if found:
            yield f"line {node.lineno}: {ast.unparse(node)[:80]}"


def test_what_reaches_into_the_package_goes_through_inside() -> None:
    found = {}
    for path in FILES:
        if path != INSIDE:
            found[path.name] = list(_reaches_into_privates(ast.parse(path.read_text())))
    assert {name: reaches for name, reaches in found.items() if reaches} == {}


@pytest.mark.parametrize(
    "code",
    [
        "from mmapshare import Share, _lock",
        "from mmapshare._lock import Lock",
        "import mmapshare._lock",
        "share._region.lock",
        "share._region = None",
        "run('from mmapshare import _lock')",
        "monkeypatch.setattr('mmapshare._lock.Lock', None)",
    ],
)
def test_reaching_into_the_package_is_seen(code: str) -> None:
    assert list(_reaches_into_privates(ast.parse(code)))


def test_inside_knows_nothing_that_is_not_there_or_not_used() -> None:
    for name in inside.PLACES:
        getattr(inside, name)
    words = {
        word for path in FILES if path != INSIDE for word in re.findall(r"\w+", path.read_text())
    }
    defined = re.findall(r"^(?:def )?([a-z]\w*)(?: = |\()", INSIDE.read_text(), re.MULTILINE)
    assert {*inside.PLACES, *defined} - words == set()


# --- The layout ------------------------------------------------------------------------------

WINGS = {
    # What a user sees, on every medium; what is in the way between processes; what others start.
    *("public", "crossing", "hosts", "remote"),
    # A folder for each wing of the package.
    *("decorator", "shared", "transaction", "store", "lock", "codec", "display", "integrations"),
    *("cli", "trace"),
    *("proof", "benchmarks", "typing", "support"),
}


def test_each_test_stands_in_a_folder_that_says_what_it_is_about() -> None:
    of_the_whole = {"conftest.py", "test_build.py", "test_package.py", Path(__file__).name}
    assert {path.name for path in Path(TESTS).glob("*.py")} == of_the_whole
    folders = {path.relative_to(TESTS).parts[0] for path in FILES if path.parent != Path(TESTS)}
    assert folders == WINGS


def test_no_test_imports_another_and_each_has_a_name_of_its_own() -> None:
    """What several of them need is in `support`, or a fixture."""
    tests = [path.stem for path in FILES if path.stem.startswith("test_")]
    assert len(tests) == len(set(tests))
    for path in FILES:
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported |= {*(node.module or "").split("."), *(name.name for name in node.names)}
            elif isinstance(node, ast.Import):
                imported |= {part for name in node.names for part in name.name.split(".")}
        assert not imported & {*tests, "conftest"}, path


def test_no_test_file_is_too_long_to_be_looked_through() -> None:
    tests = [path for path in FILES if path.stem.startswith("test_")]
    assert [path for path in tests if len(path.read_text().splitlines()) > 400] == []


# --- The media -------------------------------------------------------------------------------


class Desk(Medium):
    """One that no other process has."""

    name = "desk"
    crosses_fork = crosses_spawn = False


def test_a_contract_runs_on_each_medium_that_promises_what_it_needs() -> None:
    media = [Desk, *MEDIA]
    assert fitting(set(), False, media) == media
    assert fitting({"reads_wait_for_nobody"}, True, media) == [Desk]
    crossing = [medium for medium in MEDIA if medium.crosses_fork]
    assert fitting({"crosses_fork", "reads_wait_for_nobody"}, False, media) == crossing
    assert set(MEDIA) - set(crossing) == {OneProcess}
    with pytest.raises(AssertionError, match="no medium promises"):
        fitting({"flies"}, False)


# --- What is called by others ----------------------------------------------------------------


def test_each_part_of_ci_that_is_called_is_one() -> None:
    top = Path(TESTS).parent
    if not (top / ".ci").exists():
        pytest.skip("not a checkout")
    run = (top / ".ci" / "run").read_text()
    parts = " ".join(re.findall(r"^(?:ALL|NAMED)=\((.*)\)$", run, re.MULTILINE)).split()
    called = set()
    for path in (top / ".github").rglob("*.*"):
        for names in re.findall(r"(?m)^(?: *- run: )?\.ci/run((?: [a-z]+)*)", path.read_text()):
            called |= set(names.split())
    assert {"lint", "tests", "coverage", "proof"} <= called <= set(parts)
