"""In a real kernel: shares show themselves, and cells run in forked children."""

import os
import re
import subprocess
import sys

import pytest
from support import Wanted, inside
from support.hosts import ROOT

from mmapshare import Share, SharedDict, shared_state

numpy = Wanted("numpy")
nbformat = pytest.importorskip("nbformat")
NotebookClient = pytest.importorskip("nbclient").NotebookClient
pytest.importorskip("ipykernel")

pytestmark = [
    # The kernel's client leaves sockets and loops to the collector.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(60),
]


class Kernel:
    """A running kernel; called with a cell's source it returns the cell's outputs."""

    def __init__(self, client, notebook):
        self._client, self._notebook = client, notebook

    def __call__(self, source):
        cell = nbformat.v4.new_code_cell(source)
        self._notebook.cells.append(cell)
        self._client.execute_cell(cell, len(self._notebook.cells) - 1)
        return cell.outputs

    def text(self, source):
        return "".join(out.get("text", "") for out in self(source))


@pytest.fixture(scope="module")
def kernel():
    notebook = nbformat.v4.new_notebook()
    client = NotebookClient(notebook, kernel_name="python3", timeout=30, allow_errors=True)
    with client.setup_kernel():
        kernel = Kernel(client, notebook)
        assert kernel.text("%load_ext mmapshare\nfrom mmapshare import *\nimport os, time") == ""
        yield kernel


def _html(outputs):
    (shown,) = [out.data["text/html"] for out in outputs if "data" in out]
    return shown


# --- Cards -----------------------------------------------------------------------------------


def _texts(shared):
    bundle = shared._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    return bundle["text/plain"], bundle["text/html"]


def test_a_card_says_what_there_is_and_how_it_stands(make):
    share = make({"hits": 1})
    with share.locked():
        text, page = _texts(share)
    for said in ("{'hits': 1}", "version 1", f"held by pid {os.getpid()}", "of 1.0 GiB"):
        assert said in text
    assert "contended waits" in page
    assert "<svg" in page
    assert "commits 1" in _texts(share.info())[0]


def test_a_card_has_no_script_and_escapes_what_it_shows():
    share = Share({"<script>alert('x')</script>": "<b>&"})
    page = _texts(share)[1]
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;&amp;" in page


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (numpy.zeros(10**6), r"numpy\.ndarray"),
        (numpy.zeros((10**3, 10**3)).T[::2], r"numpy\.ndarray"),
        ({n: str(n) * 10 for n in range(5000)}, "dict"),
        ([str(n) for n in range(50_000)], "list"),
        (b"x" * 100_000, "object"),
    ],
)
def test_a_large_value_is_not_loaded_for_its_card(monkeypatch, value, kind):
    share = Share(value)
    monkeypatch.setattr(Share, "get", None)
    assert re.search(rf"value {kind}.*, [\d.]+ (KiB|MiB); version 1", _texts(share)[0])


def test_a_dicts_card_shows_its_first_items_and_loads_small_ones_only():
    shared = SharedDict({n: n * n for n in range(1000)})
    assert "{0: 0, 1: 1, 2: 4, 3: 9, 4: 16, 5: 25, ... 994 more}" in _texts(shared)[0]
    shared = SharedDict(a=1, big=bytes(100_000))
    assert "{'a': 1, 'big': 97.7 KiB}" in _texts(shared)[0]


def test_cards_of_the_empty_the_closed_and_the_unloadable():
    share = Share()
    assert "value empty; version 0, empty" in _texts(share)[0]

    share.set([10**5000])  # Its repr is refused by Python itself.
    assert re.search(r"value (<list|\[<int)[^;]*; version 1", _texts(share)[0])
    inside.map_of(inside.region_of(share))[4096:4100] = b"torn"
    inside.commit_of.set(inside.region_of(share), (0, (), 0, 0, 0, 0))
    assert "CorruptRegionError" in _texts(share)[0]
    share.close()
    assert _texts(share)[0] == "Share (closed)"


def test_a_decorated_functions_card_is_its_shares_under_its_name():
    @shared_state(initial=3)
    def tally(state, n):
        state.value += n

    text, _ = _texts(tally)
    assert re.match(r".*tally\(n\) on Share \w{8}; value 3; version 1", text)


def test_a_card_costs_no_transaction(make):
    share = make(1)
    with share.locked():
        before = share.info()
        _texts(share)
    assert share.info().commits == before.commits


@pytest.mark.parametrize(
    ("size_bytes", "said"), [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"),
                             (3 << 30, "3.0 GiB"), (1 << 70, "1024.0 EiB")]
)  # fmt: skip
def test_sizes_as_people_read_them(size_bytes, said):
    assert inside.card_size(size_bytes) == said


def test_watch_in_a_terminal_writes_a_line_for_each_change(capsys):
    share = Share(0)
    assert share.watch(timeout=0) is False
    assert share.watch(lambda n: n == 0) is True
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("value 0; version 1" in line for line in lines)


# --- In the kernel ----------------------------------------------------------------------------


def test_a_share_shows_itself_in_a_cell(kernel):
    page = _html(kernel("share = Share({'hits': 0})\nshare"))
    assert "hits" in page
    assert "<svg" in page
    assert "ceiling" in _html(kernel("share.info()"))


def test_a_forked_cell_runs_in_each_child_with_its_rank(kernel):
    kernel("share = Share({'ranks': []})")
    text = kernel.text(
        "%%fork 3\n"
        "with share.locked() as view: view['ranks'].append(rank)\n"
        "print('I am', rank)\n"
        "os.system('echo from outside of Python')"
    )
    heads = re.findall(r"^── rank (\d), pid \d+\n((?:(?!──).*\n)*)", text, re.M)
    assert [rank for rank, _ in heads] == ["0", "1", "2"]
    for rank, said in heads:
        assert f"I am {rank}\n" in said
        assert "from outside of Python\n" in said
    assert "[0, 1, 2]" in kernel.text("print(sorted(share.get()['ranks']))")
    assert "NameError" in str(kernel("rank"))  # The children's variables are their own.


def test_what_children_display_is_displayed(kernel):
    outputs = kernel(
        "%%fork 2\nfrom IPython.display import HTML, display\n"
        "display(HTML(f'<i>{rank}</i>'))\nrank * 10"
    )
    found = [out.data for out in outputs if "data" in out]
    assert [data.get("text/html") or data["text/plain"] for data in found] == [
        "<i>0</i>", "0", "<i>1</i>", "10",
    ]  # fmt: skip


def test_a_childs_exception_is_its_traceback(kernel):
    text = kernel.text("%%fork 2\nif rank: raise ValueError('only rank 1')\nprint('fine')")
    assert text.count("ValueError") >= 1
    assert "only rank 1" in text
    assert "Traceback" in text
    assert text.count("\nfine\n") == 1


def test_a_killed_child_and_one_that_takes_too_long_end_and_are_named(kernel):
    text = kernel.text(
        "%%fork 3 --timeout 2\nprint('here', flush=True)\n"
        "if rank == 1: os.kill(os.getpid(), 9)\n"
        "if rank == 2: time.sleep(60)"
    )
    assert text.count("here") == 3
    assert "killed by SIGKILL" in text
    assert "stopped: its time was over" in text
    zombies = "from pathlib import Path\nprint([p for p in Path('/proc').glob('[0-9]*/stat')\n"
    zombies += "    if p.read_text().rsplit(')')[1].split()[:2] == ['Z', str(os.getpid())]])"
    assert kernel.text(zombies) == "[]\n"


def test_a_kill_inside_of_the_block_of_a_forked_cell_leaves_the_value_whole(kernel):
    kernel("share = Share({'n': 0})")
    kernel(
        "%%fork 4\nfor done in range(50):\n    with share.locked() as view:\n"
        "        view['n'] += 1\n        if rank == 2 and done == 30: os.kill(os.getpid(), 9)"
    )
    assert int(kernel.text("print(share.get()['n'])")) == 3 * 50 + 30


def test_an_interrupt_ends_the_children(kernel):
    text = str(
        kernel(
            "import signal\nsignal.signal(signal.SIGALRM, signal.default_int_handler)\n"
            "signal.alarm(1)\n"
            "get_ipython().run_cell_magic('fork', '2', 'time.sleep(60)')"
        )
    )
    assert "KeyboardInterrupt" in text
    assert kernel.text("try: print(os.waitpid(-1, os.WNOHANG))\nexcept OSError: print('none')") == (
        "none\n"
    )


def test_a_senseless_count_is_a_usage_error(kernel):
    assert "one child at least" in str(kernel("%%fork 0\n1"))


def test_the_open_shares_are_listed_with_their_names(kernel):
    kernel("my_counter = Share(7)\n@shared_state(initial=1)\ndef my_tally(state): pass")
    (out,) = [out for out in kernel("%shares") if "data" in out]
    assert re.search(r"my_counter +<Share \w{8}: version 1> +7 ", out.data["text/plain"])
    assert "my_tally" in out.data["text/html"]


def test_shares_whose_holder_died_stand_in_one_table_with_others():
    """Only they have a count of the dead, and the table wanted it of all."""
    page = inside.card_table([{"name": "a"}, {"name": "b", "holders found dead": "1"}])["text/html"]
    assert page.count("<td") == 4
    assert "holders found dead" in page


def test_watch_draws_one_display_anew_while_children_work(kernel):
    outputs = kernel(
        "from multiprocessing import get_context\n"
        "share = Share(0)\n"
        "def work():\n"
        "    for _ in range(20): share.update(lambda n: n + 1); time.sleep(0.02)\n"
        "child = get_context('fork').Process(target=work)\n"
        "child.start()\n"
        "done = share.watch(lambda n: n == 20, timeout=20)\n"
        "child.join(); print(done)"
    )
    shown = [out for out in outputs if "data" in out]
    assert len(shown) == 1
    assert "value 20; version 21" in shown[0].data["text/plain"]
    assert "True" in str(outputs)


def test_the_cells_of_the_examples_readme_run(kernel):
    readme = (ROOT / "examples" / "README.md").read_text()
    assert readme.count("```ipython") == 2
    kernel("with Share(0).locked() as view:\n    view.value += 1")  # Whose block has ended.
    for cell in readme.split("```ipython\n")[1:]:
        outputs = kernel(cell.split("```")[0])
        assert not [output for output in outputs if output.output_type == "error"]
    assert "careful" in _html(kernel("%shares"))
    assert kernel.text("print(careful.get())") == "20000\n"


def test_nothing_of_the_library_depends_on_ipython():
    program = "import sys; from mmapshare import Share; Share(1)._repr_mimebundle_();"
    program += "print('IPython' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n"
