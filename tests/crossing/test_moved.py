"""The package without its sources, elsewhere: as PyInstaller, zips and moved folders have it."""

import compileall
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mmapshare

PACKAGE = Path(mmapshare.__file__).parent


@pytest.fixture(scope="module", params=["folder", "zip"])
def moved(request, tmp_path_factory):
    """A place to import it from: bytecode only, whose code objects name files that are gone."""
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    shutil.copytree(PACKAGE, here / "mmapshare", ignore=shutil.ignore_patterns("__pycache__"))
    assert compileall.compile_dir(here, quiet=1, legacy=True, force=True)
    for source in here.rglob("*.py"):
        source.unlink()
    if request.param == "folder":
        shutil.move(here / "mmapshare", there)
        return there
    with zipfile.ZipFile(there / "all.zip", "w") as archive:
        for path in here.rglob("*.pyc"):
            archive.write(path, path.relative_to(here))
    return there / "all.zip"


def run(place, program):
    start = f"import sys; sys.path.insert(0, {str(place)!r})\n{program}"
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_share_that_a_stored_value_names_is_kept_alive(moved):
    """It was told by a file's name whether the codec pickles, and moved code has another."""
    program = """
from mmapshare import Share, SharedDict
outer, shared = Share({}), SharedDict()
with outer.locked() as view:
    view["inner"] = Share(5)
shared["inner"] = Share(6)
del view
print(outer.get()["inner"].get(), shared["inner"].get())
"""
    assert run(moved, program) == ["5", "6"]


def test_a_share_used_in_the_middle_of_its_own_commit_says_so(moved):
    """The frames of the commit were told by their files' names: nobody saw it under way."""
    program = """
from mmapshare import DeadlockError, Share, SharedDict, locked

class Hook:
    def __reduce__(self):
        try:
            use()
        except DeadlockError:
            print("refused")
        return int, ()

share, shared = Share([]), SharedDict(a=1)
use = lambda: share.set("lost")
with share.locked() as view:
    view.append(Hook())
with locked(share) as (view,):
    view.append(Hook())
use = lambda: shared.locked().__enter__()
with shared.locked() as view:
    view["b"] = Hook()
print(len(share.get()), shared["a"])
"""
    assert run(moved, program) == ["refused"] * 3 + ["2", "1"]
