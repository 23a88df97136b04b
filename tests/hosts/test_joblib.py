"""`examples/early_stopping.py`: functions of ``__main__`` in joblib's workers, one region."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.hosts import EXAMPLES, run

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("joblib")
pytest.importorskip("ipykernel")
pytestmark = pytest.mark.filterwarnings("ignore")  # The client leaves sockets to the collector.

SCRIPT = EXAMPLES / "early_stopping.py"
ONE_PROCESS = "check: each answer is what one process would give\n"
LINE = re.compile(r"rate .*: loss +[\d.]+, +(\d+) epochs: (.*)")

KILL = """
import os, signal
from joblib.externals.loky.process_executor import TerminatedWorkerError

def die():
    with report.share.locked() as state:
        state["reports"] = -1
        os.kill(os.getpid(), signal.SIGKILL)

try:
    Parallel(n_jobs=2)([delayed(die)()])
except TerminatedWorkerError:
    print("killed")
print(report.share.get() == left, Parallel(n_jobs=2)(delayed(report)(0, 1, 1.0) for _ in range(2)))
print(report.share.info().holders_found_dead, report.share.get()["reports"] - left["reports"])
"""

WITHOUT_THE_LOCK = '''
from mmapshare import Share

share, arrived = Share(START), Share(0)

def report(trial, epoch, loss):
    """Trials 0 and 1 both read before one of them writes."""
    state = share.get()
    if epoch == 1 and trial in (0, 1):
        arrived.update(int.__add__, 1)
        arrived.wait(lambda n: n == 2, timeout=20)
    answer = judge(state, trial, epoch, loss)
    share.set(state)
    return answer

report.share = share
'''


def in_a_kernel(*cells: str) -> list[str]:
    """What the cells of a notebook print, run in a real kernel."""
    notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)])
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=100).execute()
    return [
        "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
        for cell in notebook.cells
    ]


def test_the_whole_search_stops_with_the_trial_that_found_it(tmp_path: Path) -> None:
    code, out, err = run("-W", "error", SCRIPT, home=tmp_path)

    assert code == 0, err
    assert out.endswith(ONE_PROCESS)
    trials = LINE.findall(out)
    assert len(trials) == 20
    reasons = [reason for _, reason in trials]
    assert reasons.count("good enough") == 1
    assert f"\n{sum(int(epochs) for epochs, _ in trials)} of 8000 epochs\n" in out
    late = [int(epochs) for epochs, reason in trials if reason == "another was good enough"]
    # Three may have been in work; those that came afterwards made one report each.
    assert sum(epochs > 1 for epochs in late) <= 3
    assert all(int(epochs) > 30 for epochs, reason in trials if reason == "far behind")


def test_pasted_into_a_cell_it_works_and_so_does_the_region_after_a_kill() -> None:
    first, second = in_a_kernel(SCRIPT.read_text(), KILL)

    assert first.endswith(ONE_PROCESS)
    assert len(LINE.findall(first)) == 20
    killed, numbers, counted = second.splitlines()
    assert killed == "killed"
    assert numbers.startswith("True [(")
    assert counted == "1 2"


def test_planted_reports_without_the_lock_are_found_out(tmp_path: Path) -> None:
    text = SCRIPT.read_text()
    at, end = text.index("@shared_state(initial"), text.index("def train(")
    planted = tmp_path / "planted.py"
    planted.write_text(text[:at] + WITHOUT_THE_LOCK + text[end:])
    code, out, err = run(planted, home=tmp_path)

    assert code == 1
    assert ONE_PROCESS not in out
    assert err.startswith("check: NOT what one process would answer: report ")
