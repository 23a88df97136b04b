"""`examples/web_app.py`, with traps: a test kills or stops it in the middle of a transaction.

A server imports this in the place of the app. It looks in the folder TRAPS for what to do at which
request.
"""

import contextlib
import os
import signal
from multiprocessing import get_context
from pathlib import Path

import web_app
from web_app import app, asgi, requests

TRAPS = Path(os.environ["TRAPS"])


def take(bucket, now_ns, plain=web_app.take):
    """Within the transaction of request number ``calls``; the draft has been changed already."""
    number = bucket["calls"]
    allowed = plain(bucket, now_ns)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(TRAPS / f"kill-{number}")  # Whoever comes next with this number lives.
        os.kill(os.getpid(), signal.SIGKILL)
    with contextlib.suppress(FileNotFoundError):
        (TRAPS / f"stop-{number}").read_bytes()  # A fifo: until the test has closed it.
    return allowed


class Unlocked:
    """The requests without their lock: two transactions both read before one of them writes."""

    both_have_read = get_context("fork").Barrier(2)

    @contextlib.contextmanager
    def locked(self):
        draft = requests.copy()
        self.both_have_read.wait(60)
        yield draft
        requests.update(draft)


web_app.take = take
if "UNLOCKED" in os.environ:
    web_app.requests = Unlocked()

__all__ = ["app", "asgi"]
