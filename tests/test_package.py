"""The house: who imports whom, what an import costs, and what the errors carry."""

import ast
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmapshare
from mmapshare import errors

PACKAGE = Path(mmapshare.__file__).parent
HELPERS = {"errors", "_arguments", "_bytes", "_closed", "_cores", "_late", "_proc", "_weak"}
"""Rooms of their own, which know nothing but each other."""
WINGS = {
    "_lock": set(),
    "_store": {"_lock"},
    "_codec": set(),
    "_display": set(),
    "_transaction": {"_store", "_lock", "_codec"},
    "_shared": {"_transaction", "_store", "_lock", "_codec", "_display"},
    "_share": {"_shared", "_transaction", "_store", "_lock", "_codec", "_display"},
    "_dict": {"_shared", "_transaction", "_store", "_lock", "_codec", "_display"},
    "_decorator": {"_share", "_shared", "_codec"},
    "integrations": {"_shared", "_display"},
    "_cli": {"_store", "_lock", "_codec", "_display", "_trace"},
    "_trace": {"_transaction", "_store", "_lock"},
    "__main__": {"_cli"},
}
"""What each wing may know of the others, from below to above."""
PROGRAM = {"__main__", "_cli", "_trace"}
"""What stands above all of it, and is known to none of it."""
TOP = {"__init__.py", "_compiled.py"}
"""What puts all together, and is known by nobody."""
ROOMS = {
    path.relative_to(PACKAGE).with_suffix("").parts: path
    for path in PACKAGE.rglob("*.py")
    if path.parent != PACKAGE or path.name not in TOP
}
ARROWS_MOST = 45
"""So many rooms may know another wing."""


def _imports(room):
    """The rooms that a room imports, early or late; a wing's ``__init__`` is a room too."""
    found, tree = set(), ast.parse(ROOMS[room].read_text())
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and getattr(branch.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in typing_only:
            home = room[: len(room) - node.level] + tuple((node.module or "").split("."))
            home = tuple(filter(None, home))
            if home in ROOMS:
                found.add(home)
                continue
            for alias in node.names:
                inner = (*home, alias.name)
                found.add(inner if inner in ROOMS else (*home, "__init__"))
    return found


@pytest.mark.parametrize("wing", [*WINGS, *sorted(HELPERS)])
def test_a_wing_knows_what_the_walls_allow_and_nothing_else(wing):
    known = {other[0] for room in ROOMS if room[0] == wing for other in _imports(room)} - {wing}
    assert {room[0] for room in ROOMS} == WINGS.keys() | HELPERS
    assert all(room in ROOMS for room in _imports(next(r for r in ROOMS if r[0] == wing)))
    assert known - HELPERS <= WINGS.get(wing, set())
    if wing in HELPERS:
        assert known <= HELPERS


def test_no_room_is_known_by_what_it_knows():
    left = {room: _imports(room) for room in ROOMS}
    while left:
        done = {room for room, known in left.items() if not known & left.keys()}
        assert done, f"a circle among {sorted(left)}"
        left = {room: known for room, known in left.items() if room not in done}


def test_a_wing_is_known_by_what_it_hands_on_and_to_few():
    """Early imports of another wing's names go through its ``__init__``, and few rooms have any."""
    arrows = {
        (room, other[0])
        for room in ROOMS
        for other in _imports(room)
        if other[0] != room[0] and not {room[0], other[0]} & HELPERS and room[0] not in PROGRAM
    }
    assert not {wing for _, wing in arrows} & PROGRAM
    assert len(arrows) < ARROWS_MOST, sorted(arrows)
    for room, path in ROOMS.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.level == len(room) and node.module:
                assert "." not in node.module, f"{room} reaches into {node.module}"


def test_each_wing_says_what_it_is_for():
    for wing in WINGS:
        head = PACKAGE / wing / "__init__.py"
        if head.exists():
            assert ast.get_docstring(ast.parse(head.read_text())), wing


def test_what_is_imported_late_keeps_forks_away():
    """A child of a fork in mid-import waited for ever for a thread that it had not."""
    for path in ROOMS.values():
        tree = ast.parse(path.read_text())
        guarded = {
            node
            for block in ast.walk(tree)
            if isinstance(block, ast.With) and ast.unparse(block.items[0]) == "importing"
            for node in ast.walk(block)
        }
        late = {
            node
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert late <= guarded or path.parent.name == "integrations", path


@pytest.mark.untraced
def test_importing_pulls_in_nothing_heavy():
    program = (
        "import sys, mmapshare; "
        "print([m for m in sys.modules if m in ('filelock', 'asyncio', 'ctypes', 'numpy', 'tqdm',"
        " 'multiprocessing', 'argparse', 'rich') or m.endswith(('._cli', '._trace', '.outside'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


@pytest.mark.untraced
def test_using_a_memfd_share_pulls_in_nothing_heavy():
    program = (
        "import sys, pickle, mmapshare; s = mmapshare.Share([1]); s.update(list.append, 2);"
        "pickle.dumps(s); s.info();"
        "print([m for m in ('filelock', 'asyncio', 'ctypes', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


@pytest.mark.parametrize(
    "name", [n for n in mmapshare.__all__ if n.endswith(("Error", "Timeout", "Conflict"))]
)
def test_every_error_survives_pickle_with_its_facts(name):
    cls = getattr(mmapshare, name)
    err = cls("what to do", pid=7, version=3)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(err, protocol))
        assert type(copy) is cls
        assert str(copy) == "what to do"
        assert (copy.pid, copy.version) == (7, 3)
    assert issubclass(cls, mmapshare.MmapShareError)


def test_all_names_are_there_and_documented():
    for name in mmapshare.__all__:
        assert getattr(mmapshare, name).__doc__, name
    assert set(vars(errors)) >= {n for n in mmapshare.__all__ if n.endswith("Error")}


@pytest.mark.parametrize(
    "cls", [mmapshare.Share, mmapshare.SharedDict, mmapshare.View, mmapshare.SharedFunction]
)
def test_every_public_method_is_documented_and_the_share_has_doctests(cls):
    for name, member in vars(cls).items():
        if name.startswith("_") or name in {"fork"}:
            continue
        doc = getattr(member, "__doc__", None)
        assert doc, name
        if cls in {mmapshare.Share, mmapshare.SharedDict} and name not in {"closed", "version"}:
            assert ">>>" in doc, name


def test_the_readmes_first_program_prints_what_it_says(tmp_path):
    readme = Path(__file__).parent.parent / "README.md"
    program = readme.read_text().split("```python\n")[1].split("```")[0]
    path = tmp_path / "program.py"
    path.write_text(program)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.stdout == "{'hits': 4000}\n", done.stderr
    assert "# {'hits': 4000}" in program


def test_the_readme_is_read_to_the_end():
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    assert len(readme.splitlines()) <= 230
    for target in re.findall(r"\]\((?!http)([^)#]+)", readme):
        assert (Path(__file__).parent.parent / target).exists(), target


def test_each_block_of_the_readme_is_run_by_something():
    """Doctests by pytest, the first program above, commands by CI."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    kinds = [block.split("\n")[0] for block in readme.split("```")[1::2]]
    assert set(kinds) == {"python", "sh"}
    programs = [block for block in readme.split("```python\n")[1:] if ">>>" not in block[:200]]
    assert len(programs) == 1


def test_the_top_level_is_as_it_is_listed():
    top = Path(__file__).parent.parent
    if not (top / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=top, capture_output=True, text=True).stdout
    entries = {line.split("/")[0] for line in listed.splitlines()}
    assert {name for name in entries if not name.startswith(".")} <= {
        "CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "examples", "mmapshare",
        "pyproject.toml", "tests",
    }  # fmt: skip
