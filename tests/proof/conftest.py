"""What proves the promise: every way to break it that we can think of.

=====================  ==================================================================
file                   the check
=====================  ==================================================================
test_kills.py          SIGKILL at every bytecode of every commit
test_steps.py          a commit, one machine instruction at a time, by either core
test_core.py           the compiled core under sanitizers
test_exceptions.py     an exception at every bytecode; storms of signals
test_syscalls.py       the N-th system call fails
test_holding.py        readers that hold a version, writers and kills at every bytecode
test_histories.py      histories of four processes are linearizable
test_machines.py       hypothesis against a model, over two worker processes
test_crash.py          power cuts: any subset of the sectors of a durable commit
test_openings.py       SIGKILL while names are made, opened and unlinked; 16 at once
test_crowd.py          200 children, most of them killed
test_mutants.py        any byte of the region changed
test_schedules.py      two processes in every order of their loads and stores
test_litmus.py         the same where the machine reorders them, by ARM's memory model
test_many_threads.py   many threads do everything at once
test_remote.py         on a server: kills of all, cuts, lost and late answers, pauses, forgery
test_soak.py           nothing grows
=====================  ==================================================================

Each check has a planted bug that it must catch. A plain run of the tests takes one event in so
many, others each time; with ``--planted`` the planted bugs come too; ``--whole`` takes all events;
``--soak`` does more of everything, for an hour or a night. A failure prints the command that
repeats its one event.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from lean import Events

_events = pytest.StashKey[Events]()
_counts = pytest.StashKey[Counter[str]]()
_NOUNS = {
    "crash": "images after a power cut",
    "crowd": "children of a crowd",
    "holding": "steps beside holds",
    "machines": "steps of state machines",
    "openings": "processes at names",
    "many_threads": "steps of many threads",
    "soak": "rounds of everything",
    "remote": "faults on the way to a server",
    "steps": "machine instructions",
    "syscalls": "failed system calls",
}
_SEED = int.from_bytes(os.urandom(4), "little")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_counts] = Counter()
    config.addinivalue_line("markers", "part(n): one event in n is run, without --whole")
    config.addinivalue_line("markers", "soak: only with --soak")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    soak, planted = config.getoption("soak"), _is_whole(config) or config.getoption("planted")
    if soak:
        for item in items:
            item.add_marker(pytest.mark.timeout(0))

    def is_left_out(item: pytest.Item) -> bool:
        left_out = item.get_closest_marker("soak") is not None and not soak
        return left_out or (item.get_closest_marker("planted") is not None and not planted)

    left_out = [item for item in items if is_left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _is_whole(config: pytest.Config) -> bool:
    given = ("whole", "soak", "event")
    return any(config.getoption(name) not in {None, False} for name in given)


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for a lot more."""
    return bool(request.config.getoption("soak"))


@pytest.fixture
def events(request: pytest.FixtureRequest, soak: bool) -> Iterator[Events]:
    """The events of this test; see `lean`. What it counts is told at the end of the run."""
    seed, only = request.config.getoption("seed"), request.config.getoption("event")
    planted, part = map(request.node.get_closest_marker, ("planted", "part"))
    all_events = _is_whole(request.config) or planted is not None or part is None
    some = 1 if all_events else part.args[0]
    events = Events(_SEED if seed is None else seed, only, some)
    request.node.stash[_events] = events
    yield events
    if "planted" not in request.node.name:
        kind = request.node.path.stem.removeprefix("test_")
        request.config.stash[_counts][kind] += events.count


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    events = item.stash.get(_events, None)
    if events is not None and report.failed:
        event = "" if events.current is None else f" --event {events.current}"
        command = f'{sys.executable} -m pytest "{item.nodeid}" --seed {events.seed}{event}'
        report.sections.append(("the same again", command))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = terminalreporter.config.stash[_counts]
    if counts:
        found = ", ".join(f"{n:,} {_NOUNS.get(kind, kind)}" for kind, n in sorted(counts.items()))
        terminalreporter.write_line(f"proof: {found}")
