"""`examples/word_count.py`, run as its users run it: a script in a process of its own."""

from __future__ import annotations

import io
import keyword
import os
import random
import re
import runpy
import signal
import subprocess
import sys
import sysconfig
import time
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.hosts import ROOT

SCRIPT = ROOT / "examples" / "word_count.py"
LIBRARY = Path(sysconfig.get_path("stdlib"))
PACKAGES = [LIBRARY / name for name in ("json", "asyncio", "email")]
EQUAL = "check: equal to a single-process count"
KILLED = re.compile(r"worker (\d+) killed: (.*)")

pytest.importorskip("tqdm")
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the example forks its workers"),
    pytest.mark.timeout(240),
]

SOURCES = {
    "plain.py": "import os\ndef walk(top, depth=0):\n    return [os, top, depth, top]\n",
    "strings.py": "quoted = 'it is # no comment' + \"nor 'this'\"  # \"or this'\nafter = quoted\n",
    "docstring.py": '"""A "doc" string\n\\""" of two lines."""\nname = r"raw\\"s" + b\'\'\n',
    "numbers.py": "big = 1e5 + 0xFF + 1_000j\n",
    "names.py": "straße = __dunder__ = x1 = None\nstraße += x1\n",
    "sub/empty.py": "",
    "sub/many.py": "".join(f"word_{i % 30} = word_{i % 7}\n" for i in range(300)),
    "sub/no_python.txt": "left out",
}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    for name, text in SOURCES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A file that keeps its reader waiting until the test feeds it."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@contextmanager
def started(*args: object, stderr: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """The script, running; whose workers must all be gone when it is."""
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [env.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(SCRIPT), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=env,
        start_new_session=True,
    )
    try:
        yield process
        process.wait(100)
        with pytest.raises(ProcessLookupError):  # Its process group is empty.
            os.killpg(process.pid, 0)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def run(*args: object) -> tuple[int, str, str]:
    with started(*args) as process:
        out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def counted(out: str) -> list[tuple[str, int]]:
    return [(name, int(n)) for n, name in re.findall(r"^ *(\d+) (\S+)$", out, re.MULTILINE)]


def top(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]


def by_version(out: str) -> dict[int, int]:
    found = re.findall(r"^tokenizer version (\d+): (\d+) files$", out, re.MULTILINE)
    return {int(version): int(files) for version, files in found}


def names_in(files: Iterable[Path]) -> Counter[str]:
    """An independent count, by Python's own tokenizer."""
    counts: Counter[str] = Counter()
    for file in files:
        depth = 0  # Of f-strings, which are tokens of many parts since Python 3.12.
        for token in tokenize.tokenize(io.BytesIO(file.read_bytes()).readline):
            kind = tokenize.tok_name[token.type]
            depth += kind.endswith("STRING_START") - kind.endswith("STRING_END")
            if kind == "NAME" and not depth and not keyword.iskeyword(token.string):
                counts[token.string] += 1
    return counts


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if wanted in line:
            return seen
    raise AssertionError(f"no {wanted!r} in {seen!r}")


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_counts_are_those_of_pythons_own_tokenizer(sources: Path, workers: int, kill: bool) -> None:
    code, out, err = run("--workers", workers, *["--kill"] * kill, sources)

    files = list(sources.rglob("*.py"))
    assert code == 0, err
    assert counted(out) == top(names_in(files))
    assert f"{len(files)} files in " in out
    assert f"with {workers} worker" in out
    assert sum(by_version(out).values()) == len(files)
    assert out.endswith(f"{EQUAL}\n")
    assert f"{len(files)}/{len(files)}" in err  # The progress bar went to its end.
    assert len(KILLED.findall(out)) == kill


@pytest.mark.parametrize("kill", [False, True])
def test_packages_of_the_standard_library_are_counted_exactly(kill: bool) -> None:
    code, out, err = run("--workers", 3, *["--kill"] * kill, *PACKAGES)

    assert code == 0, err
    assert counted(out) == top(names_in(f for folder in PACKAGES for f in folder.rglob("*.py")))
    assert len(KILLED.findall(out)) == kill


def test_without_paths_the_standard_library_is_counted_in_spite_of_a_kill() -> None:
    code, out, err = run("--kill")

    found = re.search(
        r"^(\d+) files in [\d.]+ s, \d+ files/s with \d+ workers?$", out, re.MULTILINE
    )
    assert code == 0, err
    assert found is not None
    assert int(found[1]) > 400
    assert len(counted(out)) == 20
    assert counted(out)[0][0] == "self"
    assert set(by_version(out)) == {1, 2}
    assert sum(by_version(out).values()) == int(found[1])
    assert len(KILLED.findall(out)) == 1
    assert EQUAL in out


def test_links_may_lead_out_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's sitecustomize.py does, and was looked for below the library, in vain."""
    library, etc = tmp_path / "lib", tmp_path / "etc" / "tests"
    for file in (library / "a.py", library / "test" / "b.py", etc / "site.py"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (library / "site.py").symlink_to(etc / "site.py")
    (library / "dangling.py").symlink_to(etc / "nothing.py")
    (tmp_path / "link").symlink_to(library)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "link"))
    found = runpy.run_path(str(SCRIPT))["find_library"]()
    assert found == [str(library / "a.py"), str(etc / "site.py")]


def test_the_file_of_a_killed_worker_is_put_back_and_counted_once(fifo: Path) -> None:
    with started("--kill", "--workers", 2, fifo, stderr=subprocess.STDOUT) as process:
        early = read_until(process, "killed: ")
        fifo.write_text("one two two\n")
        out = read_until(process, " files in ")
        fifo.write_text("one two two\n")  # For the single-process count.
        out += read_until(process, "check")

    assert KILLED.findall(early)[0][1].strip() == f"{fifo} put back"
    assert counted(out) == [("two", 2), ("one", 1)]
    assert EQUAL in out


def test_a_swapped_tokenizer_is_used_from_the_next_file_on(sources: Path, fifo: Path) -> None:
    plain = sources / "plain.py"
    with started("--workers", 1, plain, fifo, stderr=subprocess.STDOUT) as process:
        read_until(process, "tokenizer swapped")
        fifo.write_text("fed = fed\n")
        out = read_until(process, " files in ")
        fifo.write_text("fed = fed\n")
        rest = read_until(process, "check")

    assert counted(out) == top(names_in([plain]) + Counter(fed=2))
    assert by_version(rest) == {1: 1, 2: 1}
    assert EQUAL in rest


def test_a_count_that_differs_fails_the_check(fifo: Path) -> None:
    with started("--workers", 1, fifo, stderr=subprocess.STDOUT) as process:
        fifo.write_text("one two two\n")
        read_until(process, " files in ")
        fifo.write_text("one two\n")
        out = read_until(process, "check")

    assert process.returncode == 1
    assert "check: NOT equal to a single-process count" in out


def test_a_file_whose_counts_were_committed_is_not_put_back() -> None:
    example = runpy.run_path(str(SCRIPT))["Run"](["counted", "lost", "waiting"])
    example.jobs.set({"pending": ["waiting"], "working": {1: "counted", 2: "lost"}})
    example.tally.set({"counts": Counter(name=3), "done": {"counted": 1}})
    example.collect()

    assert [example.put_back(pid) for pid in (1, 2, 3)] == [None, "lost", None]
    assert example.jobs.get() == {"pending": ["waiting", "lost"], "working": {}}


def test_workers_killed_from_outside_at_any_moment_change_nothing() -> None:
    more = [LIBRARY / name for name in ("encodings", "unittest", "importlib")]
    with started("--workers", 3, *PACKAGES, *more) as process:
        kills = 0
        while process.poll() is None and kills < 12:
            kills += kill_a_child(process.pid)
            time.sleep(random.uniform(0, 0.02))  # Only to spread the kills over the run.
        out, err = process.communicate(timeout=100)

    assert process.returncode == 0, err
    assert EQUAL in out
    assert 1 <= len(KILLED.findall(out)) <= kills


def test_an_interrupt_leaves_no_worker_behind(fifo: Path) -> None:
    with started("--kill", "--workers", 2, fifo, stderr=subprocess.STDOUT) as process:
        read_until(process, "killed: ")  # Its replacement is the one that reads the fifo now.
        os.killpg(process.pid, signal.SIGINT)
        out = process.communicate(timeout=100)[0]

    assert process.returncode != 0
    assert EQUAL not in out


def test_a_file_named_twice_is_counted_once(sources: Path) -> None:
    code, out, _ = run(sources / "plain.py", sources, sources / "sub" / ".." / "plain.py")

    assert code == 0
    assert counted(out) == top(names_in(sources.rglob("*.py")))


def test_a_file_that_cannot_be_read_ends_the_run_with_its_name(sources: Path) -> None:
    unreadable = "/proc/self/mem"  # Exists, is a file, and has nothing at its beginning.
    code, out, err = run(sources, unreadable)

    assert code == 1
    assert "word_count: cannot read /proc/" in err
    assert "Traceback" not in err
    assert EQUAL not in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no/such/path"], "no such file or directory: no/such/path"),
        (["--workers", "0"], "--workers: it takes at least one, not 0"),
        (["--workers", "many"], "invalid int value: 'many'"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(args: list[str], message: str) -> None:
    code, out, err = run(*args)

    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_folder_without_python_files_is_told(tmp_path: Path) -> None:
    code, _, err = run(tmp_path)

    assert code == 2
    assert "no Python files in these directories" in err


def children(parent: int) -> list[int]:
    return [
        int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and is_child(p, parent)
    ]


def is_child(proc: Path, parent: int) -> bool:
    try:
        return int((proc / "stat").read_text().rpartition(")")[2].split()[1]) == parent
    except OSError:
        return False


def kill_a_child(parent: int) -> bool:
    """SIGKILL one child of the script, which is nobody else: a pidfd survives no reuse of a pid."""
    for pid in random.sample(found := children(parent), len(found)):
        try:
            child = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if is_child(Path(f"/proc/{pid}"), parent):
                signal.pidfd_send_signal(child, signal.SIGKILL)
                return True
        except OSError:
            continue
        finally:
            os.close(child)
    return False
