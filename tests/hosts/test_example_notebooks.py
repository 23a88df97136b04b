"""The example notebooks run in a real kernel, and their stored outputs belong to their sources."""

import pytest
from support.hosts import EXAMPLES

for _name in ("ipykernel", "matplotlib", "sklearn"):
    pytest.importorskip(_name)
jupytext = pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")
NotebookClient = pytest.importorskip("nbclient").NotebookClient

FOLDER = EXAMPLES / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))

pytestmark = pytest.mark.filterwarnings("ignore")  # The client leaves sockets to the collector.


def _sources(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_there_are_five():
    assert len(NAMES) == 5
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_its_script_with_outputs(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert _sources(notebook) == _sources(jupytext.read(FOLDER / f"{name}.py"))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs) or name[0] == "2"


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_runs(name):
    """Each ends with what must hold."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    assert "assert" in notebook.cells[-1].source
    NotebookClient(notebook, kernel_name="python3", timeout=100).execute()


def test_a_planted_failure_is_seen():
    notebook = jupytext.read(FOLDER / f"{NAMES[0]}.py")
    cells = [cell for cell in notebook.cells if "careful" in cell.source]
    for cell in cells:
        cell.source = cell.source.replace("with careful.locked() as view:", "if True:").replace(
            "view.value += 1", "careful.set(1)"
        )
    with pytest.raises(Exception, match="careful.get"):
        NotebookClient(notebook, kernel_name="python3", timeout=100).execute()
