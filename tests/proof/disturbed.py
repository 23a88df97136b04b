"""A server that is killed and started again, behind a proxy that holds answers back."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Final

from subjects import SERVER
from support import Child
from support.proxy import Proxy
from support.redis_server import Server

_LATE_S: Final = 0.06
_PATIENCE_S: Final = (0.03, 1.0)
"""How long an answer may take: those that are late are given up, or are waited for."""


@contextlib.contextmanager
def disturbed(rng: random.Random) -> Iterator[Callable[[], None]]:
    """Such a server, whose URL is in the environment; what is given kills it and starts it again.

    It writes down each change before it answers: what was acknowledged is there again.
    """
    patience_s, seed = rng.choice(_PATIENCE_S), rng.random()
    with Server("--appendonly", "yes", "--appendfsync", "always") as server:
        proxy = Child(_hold_back, server.port, seed)  # Not in a thread of who forks.
        os.environ[SERVER] = f"{proxy.hear()}?socket_timeout={patience_s}"

        def restart() -> None:
            server.kill()
            time.sleep(rng.choice([0, 0.1]))
            server.start()

        try:
            yield restart
        finally:
            proxy.say()
            proxy.result()


def _hold_back(child: Child, port: int, seed: float) -> None:
    with Proxy(port, seed, _LATE_S) as proxy:
        child.say(proxy.url)
        child.hear()
