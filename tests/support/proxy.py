"""What stands between a client and a server: it cuts, at a byte or all, and holds answers back."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import threading
import time
from typing import Self

from .redis_server import free_port


class Proxy:
    """Passes on what both sides say, in threads; `cut_at` says when it ends a connection.

    Bytes are counted over all connections, each way for itself.

    Given a seed and `late_s` it holds back some answers, for so long at most. Which ones, and for
    how long, is drawn for each connection by its number, whatever the others do.
    """

    def __init__(self, port: int, seed: object = 0, late_s: float = 0) -> None:
        self._to = port
        self._seed, self._late_s = seed, late_s
        self._numbers = itertools.count()
        self.port = free_port()
        self.said = [0, 0]
        """Bytes that went to the server, and to the client."""
        self._cut: tuple[int, int] | None = None
        self.cuts = 0
        self._mutex = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut_at(self, way: int, number: int) -> None:
        """Pass on so many bytes more that way (0: to the server), then end that connection."""
        with self._mutex:
            self._cut = (way, self.said[way] + number)

    def cut_now(self) -> None:
        """End all connections."""
        with self._mutex:
            ends = list(self._open)
        for sock in ends:
            _end(sock)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                client.close()
                continue
            with self._mutex:
                self._open |= {client, server}
            drawn = random.Random(f"{self._seed} {next(self._numbers)}")
            for way, (source, sink) in enumerate([(client, server), (server, client)]):
                threading.Thread(
                    target=self._pump, args=(way, source, sink, drawn), daemon=True
                ).start()

    def _pump(
        self, way: int, source: socket.socket, sink: socket.socket, drawn: random.Random
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                if way and self._late_s and drawn.random() < 1 / 16:
                    time.sleep(drawn.uniform(0, self._late_s))
                with self._mutex:
                    cut = self._cut
                    left = None
                    if cut is not None and cut[0] == way and self.said[way] + len(piece) >= cut[1]:
                        left, self._cut = cut[1] - self.said[way], None
                        self.cuts += 1
                    self.said[way] += len(piece)
                if left is not None:
                    sink.sendall(piece[:left])
                    break
                sink.sendall(piece)
        for sock in (source, sink):
            _end(sock)
            with self._mutex:
                self._open.discard(sock)

    def close(self) -> None:
        _end(self._listener)
        self.cut_now()
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
