"""The house: who imports whom, what an import costs, and what the errors carry."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import mmapshare
from mmapshare import errors

PACKAGE = Path(mmapshare.__file__).parent
WALLS = {
    "_owner": set(),
    "_hub": set(),
    "_guard": set(),
    "_misuse": set(),
    "_arguments": set(),
    "_blame": set(),
    "_shape": {"_content"},
    "_card": {"_late"},
    "_descent": set(),
    "_content": {"_descent", "_late"},
    "_showing": {"errors", "_arguments", "_card"},
    "errors": set(),
    "_closed": {"errors"},
    "_weak": set(),
    "_descriptor": {"errors", "_closed"},
    "_memory": {"errors", "_closed", "_descriptor", "_door", "_late", "_search"},
    "_search": set(),
    "_carried": set(),
    "_layout": {"errors"},
    "_futex": set(),
    "_wait": {"errors", "_arguments", "_async", "_hub", "_late", "_region"},
    "_deadlock": {"errors", "_guard", "_layout", "_weak"},
    "_door": {"errors", "_descriptor"},
    "_lock": {
        "errors", "_owner", "_async", "_closed", "_deadlock", "_door", "_futex", "_guard", "_hub",
        "_late", "_search",
    },
    "_together": {"errors", "_arguments", "_guard", "_nested", "_shared", "_transaction"},
    "_definitions": {"errors", "_content", "_descent", "_known", "_shape"},
    "_tensors": {"_late"},
    "_unloadable": {"errors", "_definitions", "_late"},
    "_codec": {"errors", "_blame", "_definitions", "_known", "_pickler", "_tensors", "_unloadable"},
    "_sameness": {"errors", "_codec", "_definitions", "_known", "_pickler", "_region"},
    "_view": {"errors", "_owner", "_misuse", "_nested"},
    "_region": {"errors", "_owner", "_closed", "_futex", "_late", "_layout", "_lock", "_memory"},
    "_handle": {"errors", "_late", "_memory", "_search"},
    "_nested": {"errors"},
    "_known": {"_descent"},
    "_pickler": {"_content", "_definitions", "_known", "_shape"},
    "_log": {"errors", "_layout", "_region"},
    "_directory": {"errors", "_codec", "_layout", "_order"},
    "_order": {"_view", "_weak"},
    "_glance": {"errors", "_codec", "_index", "_known", "_optimistic"},
    "_index": {
        "errors", "_owner", "_closed", "_codec", "_directory", "_layout", "_log", "_memory",
        "_order", "_region", "_sameness",
    },
    "_draft": {
        "errors", "_owner", "_codec", "_directory", "_handle", "_index", "_order", "_sameness",
        "_view", "_wait",
    },
    "_dict": {
        "errors", "_owner", "_arguments", "_card", "_codec", "_directory", "_draft", "_glance",
        "_handle", "_index", "_known", "_layout", "_log", "_memory", "_optimistic", "_region",
        "_shared", "_view",
    },
    "_optimistic": {"errors", "_owner", "_codec", "_directory", "_draft", "_index", "_log"},
    "_transaction": {"errors", "_owner", "_guard", "_lock", "_misuse", "_nested", "_view"},
    "_async": {"_owner", "_late"},
    "_shared": {
        "errors", "_owner", "_arguments", "_card", "_carried", "_closed", "_handle", "_lock",
        "_region", "_showing", "_transaction", "_view", "_wait",
    },
    "_share": {
        "errors", "_owner", "_arguments", "_card", "_codec", "_handle", "_memory", "_misuse",
        "_region", "_sameness", "_shared", "_view",
    },
    "_described": {"_late"},
    "_state_class": {"_arguments", "_described", "_share"},
    "_state": {"_codec", "_described", "_handle", "_share", "_shared", "_state_class"},
    "_late": set(),
}  # fmt: skip


def _imports(path):
    found = set()
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and getattr(branch.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in typing_only:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
    return found


def test_rooms_import_what_the_walls_allow_and_nothing_else():
    rooms = {path.stem: _imports(path) for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert rooms == WALLS


def test_what_is_imported_late_keeps_forks_away():
    """A child of a fork in mid-import waited for ever for a thread that it had not."""
    for path in PACKAGE.glob("*.py"):
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
        assert path.stem == "__init__" or late <= guarded, path


def test_importing_pulls_in_nothing_heavy():
    program = (
        "import sys, mmapshare; "
        "print([m for m in ('filelock', 'asyncio', 'ctypes', 'numpy', 'multiprocessing', 'tqdm')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


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


def test_each_block_of_the_readme_is_run_by_something():
    """Doctests by pytest, the first program above, cells in a kernel, commands by CI."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    kinds = [block.split("\n")[0] for block in readme.split("```")[1::2]]
    assert set(kinds) == {"python", "sh", "ipython"}
    programs = [block for block in readme.split("```python\n")[1:] if ">>>" not in block[:200]]
    assert len(programs) == 1


def test_the_top_level_is_as_it_is_listed():
    top = Path(__file__).parent.parent
    if not (top / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=top, capture_output=True, text=True).stdout
    entries = {line.split("/")[0] for line in listed.splitlines()}
    assert {name for name in entries if not name.startswith(".")} <= {
        "CHANGELOG.md", "LICENSE", "README.md", "examples", "mmapshare", "pyproject.toml", "tests",
    }  # fmt: skip
