"""A real Redis (or Valkey) for tests: started when it is first asked for, ended with the tests."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, Self

from .hosts import until_ended


def why_not() -> str:
    """Why there is none here; empty where there is one."""
    if importlib.util.find_spec("redis") is None:
        return "redis-py is not installed: pip install 'mmapshare[redis]'"
    if program() is None:
        return "no redis-server here: apt-get install redis-server"
    return ""


def program() -> str | None:
    return os.environ.get("MMAPSHARE_TEST_SERVER") or shutil.which("redis-server")


BUS: Final = 10_000
"""So far above its port is that on which a node of a cluster talks to the others."""


def free_port() -> int:
    """One that no connection is given as its own: a server that starts again finds it free."""
    while True:
        port = random.SystemRandom().randrange(10_000, 20_000)
        with socket.socket() as sock, socket.socket() as bus, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + BUS))
            return port


_END_WITH: Final = """
import os, select, signal, sys
starter, server = (os.pidfd_open(int(pid)) for pid in sys.argv[1:])
if os.fork():
    os._exit(0)
os.setsid()
if starter in select.select([starter, server], [], [])[0]:
    signal.pidfd_send_signal(server, signal.SIGKILL)
"""
"""Ends a server when another process has ended: a killed one can end nothing itself."""


class Server:
    """One server in a folder of its own, on a unix socket and a port; ended by its pid.

    It is no child of this process: nobody has to wait for it. It ends with this process, however
    that ends.
    """

    def __init__(self, *options: str, folder: str | None = None) -> None:
        self._folder = None if folder else tempfile.TemporaryDirectory(prefix="redis-")
        self.folder = Path(folder or self._folder.name)  # type: ignore[union-attr]
        self.options = options
        self.pid = 0
        try:
            self.port = free_port()
            while not self._begins():  # Another one took it just now.
                self.port = free_port()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        return f"unix://{self.folder}/socket/0"

    def start(self) -> None:
        """Begin again, on the same port."""
        assert self._begins(), "its port was taken meanwhile"

    def _begins(self) -> bool:
        """False where the port is another's."""
        found = program()
        assert found is not None
        pidfile, log = self.folder / "pid", self.folder / "log"
        for old in (pidfile, log):
            old.unlink(missing_ok=True)
        subprocess.run(
            [
                found, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
                "--unixsocket", str(self.folder / "socket"), "--pidfile", str(pidfile),
                "--daemonize", "yes", "--save", "", "--repl-diskless-sync-delay", "0",
                "--logfile", str(log),
                *self.options,
            ],
            check=True, stdout=subprocess.DEVNULL, close_fds=True,
        )  # fmt: skip
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError, ValueError):
                self.pid = int(pidfile.read_text())
                if self.command("PING") in {b"+PONG", b"-NOAUTH Authentication required."}:
                    break
            said = log.read_text() if log.exists() else ""
            if any(f"listening on port {port} " in said for port in (self.port, self.port + BUS)):
                return False
            assert time.monotonic() < end, f"the server does not start: {said[-2000:]}"
            time.sleep(0.01)
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _END_WITH, str(os.getpid()), str(self.pid)],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return True

    def command(self, *words: Any) -> bytes:
        """The first line of what it answers, by nobody's client."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
            sock.sendall(b"".join([b"*%d\r\n" % len(words), *map(_bulk, words)]))
            with sock.makefile("rb") as file:
                line = file.readline()
                if line[:1] == b"$" and line != b"$-1\r\n":
                    return file.read(int(line[1:]))
                return line.strip()

    def kill(self) -> None:
        """End it at once."""
        if self.pid:
            # With all its threads: one of them may have the port for longer than the first.
            with until_ended([self.pid]), contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.pid = 0

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def _bulk(word: Any) -> bytes:
    raw = word if isinstance(word, bytes) else str(word).encode()
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


@functools.cache
def of_tests() -> Server:
    """The one that the tests of this process have in common."""
    mine, server = os.getpid(), Server()

    def end() -> None:
        if os.getpid() == mine:
            server.close()

    atexit.register(end)
    return server
