"""Count identifiers over many files with forked workers that share three Python objects.

    python examples/word_count.py [--workers N] [--kill] [PATH ...]

- ``jobs``: which files are pending, and which one each worker has in work.
- ``tokenizer``: a closure, which the parent swaps for another while the workers run.
- ``tally``: the counts found so far, and the files that they come from.

A transaction pickles the whole value of its share. So things that change apart are shares of
their own, and the parent keeps taking the collected counts out of ``tally``: its commits stay
small, and the run is ten times as fast as with counts that pile up there.

Any worker may be killed at any moment. The counts of a file and the note that it is done are one
commit; the file of a dead worker is put back just where that commit is missing.

Needs tqdm (``pip install mmapshare[examples]``) and a system that can fork.
"""

from __future__ import annotations

import argparse
import keyword
import multiprocessing
import os
import re
import signal
import sys
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmapshare import Share

Tokenizer = Callable[[str], list[str]]

FEW = 300
"""So few files may all be done before anybody sees that a third of them is."""

# --- The tokenizers: two closures that find the same names ---------------------------------

TOKEN = r"""(?xs)
      \#[^\n]*                                                 # Skip comments
    | (?:\b[bfru]{1,2})?                                       # and strings;
      (?: \"{3} (?:[^\\]|\\.)*? \"{3} | '{3} (?:[^\\]|\\.)*? '{3}
        | \"(?:[^\"\\\n]|\\.)*\"      | '(?:[^'\\\n]|\\.)*' )
    | \b([^\W\d]\w*)                                           # keep names.
"""


def make_tokenizer(pattern: str, ignored: Sequence[str]) -> Tokenizer:
    token = re.compile(pattern)

    def tokenize(text: str) -> list[str]:
        names = [match[1] for match in token.finditer(text)]
        return [name for name in names if name is not None and name not in ignored]

    return tokenize


def make_faster_tokenizer(pattern: str, ignored: Sequence[str]) -> Tokenizer:
    find, skipped = re.compile(pattern).findall, {"", *ignored}
    return lambda text: [name for name in find(text) if name not in skipped]


# --- A worker ------------------------------------------------------------------------------


def work(jobs: Share[Any], tokenizer: Share[Tokenizer], tally: Share[Any]) -> None:
    """Count one file after the other until none is pending."""
    while (name := take_file(jobs)) is not None:
        text = read(name)
        code = tokenizer.snapshot()  # Takes no lock; sees a swap from the next file on.
        counts = Counter(code.value(text))
        with tally.locked() as results:
            results["counts"].update(counts)
            results["done"][name] = code.version


def take_file(jobs: Share[Any]) -> str | None:
    with jobs.locked() as queue:
        # Whoever comes for the next file has committed the counts of its last one.
        queue["working"].pop(os.getpid(), None)
        if not queue["pending"]:
            return None
        name: str = queue["pending"].pop()
        queue["working"][os.getpid()] = name
        return name


def read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8", errors="replace")
    except OSError as err:
        sys.exit(f"word_count: cannot read {name}: {err.strerror}")


# --- The parent ----------------------------------------------------------------------------


class Run:
    """One count over ``files``; afterwards its results are in ``counts`` and ``done``."""

    def __init__(self, files: list[str]) -> None:
        self.files = files
        self.counts: Counter[str] = Counter()
        self.done: dict[str, int] = {}  # File: version of the tokenizer that counted it.
        self.workers: dict[int, BaseProcess] = {}
        self.jobs: Share[Any] = Share({"pending": files[::-1], "working": {}})
        self.tokenizer = Share(make_tokenizer(TOKEN, keyword.kwlist))
        self.tally: Share[Any] = Share({"counts": Counter(), "done": {}})

    def count(self, workers: int, *, kill: bool) -> None:
        """Start the workers and look after them until all files are done.

        With ``kill``, one that has a file in work gets a SIGKILL: after a third of the files, or
        with its first file where there are but few.
        """
        tqdm.monitor_interval = 0  # No thread of tqdm's: this process forks.
        tqdm.set_lock(threading.RLock())  # And only this one draws: no lock among processes.
        # The workers inherit the mask: Ctrl-C is for the parent, which then knows every worker. And
        # that one takes it where it waits: in a finaliser, say of a Process, it would be lost.
        unmasked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with tqdm(total=len(self.files), unit="file") as bar:
                with self.tally.locked():  # Till this block ends, no file can be done.
                    for _ in range(workers):
                        self.start_worker()
                    while kill and len(self.files) < FEW:
                        kill = not self.kill_worker()
                while self.workers:
                    finished = self.show_progress(bar)
                    if kill and finished >= len(self.files) // 3:
                        kill = not self.kill_worker()
                    if self.tokenizer.version == 1 and finished >= len(self.files) // 2:
                        self.tokenizer.set(make_faster_tokenizer(TOKEN, keyword.kwlist))
                        bar.write("tokenizer swapped", file=sys.stderr)
                    self.collect()
                    self.reap(bar, timeout_s=0.001 if kill else 0.02)
                self.show_progress(bar)
        finally:
            for worker in self.workers.values():
                worker.kill()
                worker.join()
            signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
        if kill:
            print("no worker killed: the run was over too soon")

    def start_worker(self) -> None:
        shares = (self.jobs, self.tokenizer, self.tally)
        worker = multiprocessing.get_context("fork").Process(target=work, args=shares)
        worker.start()
        assert worker.pid is not None
        self.workers[worker.pid] = worker

    def show_progress(self, bar: tqdm[Any]) -> int:
        """Read the queue without its lock, so that looking on slows nobody down."""
        queue = self.jobs.get()
        finished = len(self.files) - len(queue["pending"]) - len(queue["working"])
        bar.update(finished - bar.n)
        return finished

    def collect(self) -> None:
        """Take what the workers have added to the tally, and leave it empty."""
        with self.tally.locked() as results:
            counts, done = results["counts"], results["done"]
            results.value = {"counts": Counter(), "done": {}}
        self.counts.update(counts)
        self.done.update(done)

    def kill_worker(self) -> bool:
        """SIGKILL a worker that has a file in work, whatever it is doing just now."""
        for pid in self.jobs.get()["working"]:
            worker = self.workers[pid]
            worker.kill()
            worker.join()
            return worker.exitcode != 0  # It may have come to its end just before.
        return False

    def reap(self, bar: tqdm[Any], timeout_s: float) -> None:
        """Wait until a worker ends; put back its file and start another if it was killed."""
        sentinels = [worker.sentinel for worker in self.workers.values()]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            ended = wait(sentinels, timeout_s)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        for pid, worker in list(self.workers.items()):
            if worker.sentinel not in ended:
                continue
            worker.join()
            del self.workers[pid]
            self.collect()  # All that this worker committed, before its file is looked for.
            if worker.exitcode and worker.exitcode > 0:
                sys.exit(f"word_count: worker {pid} failed")
            if worker.exitcode:
                name = self.put_back(pid)
                fate = f"{name} put back" if name else "its last file was counted already"
                bar.write(f"worker {pid} killed: {fate}", file=sys.stdout)
                self.start_worker()

    def put_back(self, pid: int) -> str | None:
        """Make the file of a dead worker pending again, unless its counts were committed."""
        with self.jobs.locked() as queue:
            name: str | None = queue["working"].pop(pid, None)
            if name is None or name in self.done:
                return None
            queue["pending"].append(name)
            return name


def count_alone(files: list[str]) -> Counter[str]:
    """The same in this process, without any share."""
    tokenize, counts = make_tokenizer(TOKEN, keyword.kwlist), Counter[str]()
    for name in files:
        counts.update(tokenize(read(name)))
    return counts


# --- The command ---------------------------------------------------------------------------


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Count identifiers (names outside of comments and strings, without Python's "
        "keywords) with forked workers that share a queue, a tokenizer and a tally."
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        type=Path,
        help="files, and directories to search for *.py (default: this Python's standard "
        "library, without its tests and site-packages)",
    )
    parser.add_argument(
        "--workers", metavar="N", type=int, default=os.cpu_count(), help="default: %(default)s"
    )
    parser.add_argument("--kill", action="store_true", help="SIGKILL a worker in mid-run")
    args = parser.parse_args()
    if args.workers < 1:
        parser.error(f"--workers: it takes at least one, not {args.workers}")
    for path in args.paths:
        if not path.exists():
            parser.error(f"no such file or directory: {path}")
    args.files = find_files(args.paths) if args.paths else find_library()
    if not args.files:
        parser.error("no Python files in these directories")
    return args


def find_files(paths: list[Path], left_out: frozenset[str] = frozenset()) -> list[str]:
    """Each file once, however often it is named: by its name the tally knows it.

    ``left_out``: folders to skip, by their names below a path; links may lead anywhere.
    """
    names: list[str] = []
    for path in paths:
        inside = sorted(
            file
            for file in path.rglob("*.py")
            if left_out.isdisjoint(file.relative_to(path).parts) and file.is_file()
        )
        names += [str(file.resolve()) for file in (inside if path.is_dir() else [path])]
    return list(dict.fromkeys(names))


def find_library() -> list[str]:
    left_out = frozenset({"test", "tests", "site-packages", "dist-packages"})
    return find_files([Path(sysconfig.get_path("stdlib"))], left_out)


def main() -> None:
    args = parse_args()
    run = Run(args.files)
    start = time.perf_counter()
    run.count(args.workers, kill=args.kill)
    took_s = time.perf_counter() - start

    for name, count in sorted(run.counts.items(), key=lambda item: (-item[1], item[0]))[:20]:
        print(f"{count:8} {name}")
    print(
        f"{len(run.done)} files in {took_s:.2f} s, {len(run.done) / took_s:.0f} files/s "
        f"with {args.workers} worker{'s' * (args.workers > 1)}"
    )
    for version, files in sorted(Counter(run.done.values()).items()):
        print(f"tokenizer version {version}: {files} files")
    if run.counts != count_alone(args.files):
        sys.exit("check: NOT equal to a single-process count")
    print("check: equal to a single-process count")


if __name__ == "__main__":
    main()
