"""Redis: a server of its own for each measurement, on a socket in shared memory, nothing stored."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pickle import dumps, loads
from tempfile import mkdtemp
from time import sleep
from typing import Any

from tests.benchmarks.lmdb_dict import SHARED_MEMORY
from tests.benchmarks.peers.peer import Buckets

SERVER = "redis-server"
NOTHING_STORED = ["--save", "", "--appendonly", "no", "--port", "0", "--daemonize", "no"]


class Redis(Buckets):
    """Values are pickled, changes are WATCH and MULTI: `Redis.transaction`."""

    package = "redis"
    notes = (
        "a server on a unix socket without persistence; a block is WATCH and MULTI, done again "
        "after a conflict (a fixed addition such as HINCRBY is one round trip); SET and PUBLISH "
        "in one pipeline wake a subscriber; arrays as bare bytes"
    )

    def __init__(self, tag: str) -> None:
        if not shutil.which(SERVER):
            raise FileNotFoundError(f"no {SERVER} here")
        self._folder = mkdtemp(prefix=tag, dir=SHARED_MEMORY)
        socket = f"{self._folder}/socket"
        command = [SERVER, "--unixsocket", socket, "--dir", self._folder, *NOTHING_STORED]
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._open(socket)

    def _open(self, socket: str) -> None:
        import redis

        super().__init__("")
        self._socket = socket
        self._redis = redis.Redis(unix_socket_path=socket)
        while True:
            try:
                self._redis.ping()
                return
            except redis.ConnectionError:
                if self._server.poll() is not None:
                    raise
                sleep(1e-3)

    @classmethod
    def version(cls) -> str:
        try:
            out = subprocess.run([SERVER, "--version"], capture_output=True, text=True).stdout
        except FileNotFoundError:
            return f"{super().version()}, no {SERVER}"
        found = re.search(r"v=(\S+)", out)
        return f"{super().version()} with a server {found and found[1]}"

    def address(self) -> Any:
        return self._socket

    @classmethod
    def attach(cls, address: Any) -> Redis:
        self = cls.__new__(cls)
        self._open(address)
        return self

    def read(self, key: str) -> bytes:
        return self._redis.get(key)

    def write(self, items: Iterable[tuple[str, bytes]]) -> None:
        # A pipeline of one costs more than the command.
        ready = dict(items)
        if len(ready) == 1:
            self._redis.set(*ready.popitem())
        else:
            self._redis.mset(ready)

    def add_to_key(self, key: str) -> None:
        def add(pipe: Any) -> None:
            value = loads(pipe.get(key))
            value["hits"] += 1
            pipe.multi()
            pipe.set(key, dumps(value, 5))

        self._redis.transaction(add, key)

    def move(self, pause: Callable[[], object]) -> None:
        def move(pipe: Any) -> None:
            left, right = map(loads, pipe.mget("left", "right"))
            pipe.multi()
            pipe.set("left", dumps(left - 1))
            pause()
            pipe.set("right", dumps(right + 1))

        self._redis.transaction(move, "left", "right")

    def set_array(self, array: Any) -> None:
        self._redis.set("array", array.data.cast("B"))

    def get_array(self) -> Any:
        import numpy as np

        return np.frombuffer(self._redis.get("array"))

    def announce(self, value: dict[str, Any]) -> None:
        with self._redis.pipeline() as pipe:
            pipe.set("value", dumps(value, 5))
            pipe.publish("changed", b"")
            pipe.execute()

    def next_hits(self, ready: Callable[[], object]) -> int:
        with self._redis.pubsub() as messages:
            messages.subscribe("changed")
            messages.get_message(timeout=None)  # That it is subscribed.
            ready()
            messages.get_message(timeout=None)
        return self.hits()

    def close(self) -> None:
        self._redis.close()
        self._server.terminate()
        self._server.wait()
        shutil.rmtree(self._folder)
