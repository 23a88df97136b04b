"""One expensive fixture for all of pytest-xdist's workers: who needs it first makes it.

    cd examples/xdist && pytest -n 4

Copy this file. What a fixture makes through `once` is made by one worker, and the others get a
copy of their own as soon as it is there; they wait for it meanwhile. Without ``-n``, or without
xdist, it is made once too.

xdist starts its workers by execnet, not by fork. So the controller makes the share and gives each
worker its handle, as bytes among its input. What is made must be picklable, and each worker has
its own copy: a database or a server is made once too, if what is kept is its address.

A worker that is killed while it makes something leaves nothing behind: the next one makes it.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest

from mmapshare import SharedDict

made = pytest.StashKey[SharedDict[Any, Any]]()
LOG = "made by"


def pytest_configure(config: pytest.Config) -> None:
    worker_input = getattr(config, "workerinput", None)  # The controller has none.
    config.stash[made] = pickle.loads(worker_input["made"]) if worker_input else SharedDict()


@pytest.hookimpl(optionalhook=True)  # There without xdist, where nobody calls it.
def pytest_configure_node(node: Any) -> None:
    """In the controller, for each worker that is about to start, also in another's place."""
    node.workerinput["made"] = pickle.dumps(node.config.stash[made])


@pytest.fixture(scope="session")
def once(pytestconfig: pytest.Config) -> Callable[[str, Callable[[], Any]], Any]:
    """``once(name, make)``: what ``make()`` returned to the first who asked for ``name``."""
    share = pytestconfig.stash[made]
    worker_input = getattr(pytestconfig, "workerinput", {"workerid": "the only process"})

    def once(name: str, make: Callable[[], Any]) -> Any:
        if name not in share:
            with share.locked() as view:  # Whoever else wants something waits here.
                if name not in view:
                    start = time.perf_counter()
                    view[name] = make()
                    took_s = time.perf_counter() - start
                    by = f"{worker_input['workerid']} in {took_s:.2f} s"
                    view[LOG, name] = [*view.get((LOG, name), ()), by]
        return share[name]

    return once


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    share = config.stash[made]
    for key in share:
        if key[0] == LOG:
            terminalreporter.write_line(f"{key[1]}: made by {' and '.join(share[key])}")
