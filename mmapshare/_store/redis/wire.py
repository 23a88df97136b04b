"""Calls to a server: connections, and what is done when one breaks.

A connection is taken out while it is in use, so that a signal handler or a finaliser, which may
come between a command and its reply, has one of its own.

A connection that is left in the middle of a command may still carry that out: later than what is
sent by the next one. So the server is told first to end it (CLIENT KILL): then the command has been
carried out by now, or never will be. Sent again it does no harm, since its tag tells it from others
(see `scripts`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import select
import time
from collections import deque
from collections.abc import Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..._closed import CLOSED_HERE
from ...errors import ClosedError, MmapShareError, StoreUnreachableError
from .refusals import WAITS, explained
from .resp import Argument, Cut, Refused, packed, reply_from

if TYPE_CHECKING:
    from ..._lock import Backend, Pause

_PAUSES_S: Final = (0.0, 0.02, 0.1)
_LAST_PAUSE_S: Final = 0.3
_LOOK_S: Final = 0.2
_JUST_NOW_S: Final = 0.1
_OWN: Final = frozenset({__name__.partition(".")[0], "redis", "socket", "ssl"})


class Script:
    """A program that the server runs whole, with nothing in between."""

    __slots__ = ("sha", "source")

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.sha = hashlib.sha1(self.source).hexdigest().encode()


class Maker(Protocol):
    """What makes connections."""

    lost: tuple[type[BaseException], ...]
    """What it raises where the server cannot be reached."""
    hello: list[tuple[bytes, ...]]
    """The commands that begin a connection."""

    def make(self) -> Any:
        """A connected socket."""

    def move(self, host: str, port: int) -> None:
        """The share is on another node of the cluster, from now on."""


@functools.cache
def _quiet(kind: Any) -> type:
    """Sockets that end in silence: in garbage they may go before what would have closed them."""
    return type(kind.__name__, (kind,), {"__slots__": (), "__del__": lambda sock: sock.close()})


class Connection:
    """One connection: made by redis-py, used by us."""

    __slots__ = ("_file", "client_id", "sock")

    def __init__(self, sock: Any, hello: list[tuple[bytes, ...]], reply_s: float) -> None:
        kind: Any = type(sock)
        sock.__class__ = _quiet(kind)
        self.sock = sock
        self._file = sock.makefile("rb", 1 << 16)
        self.client_id = b""
        """By what the server knows it; empty where it does not say."""
        sock.settimeout(reply_s)
        self.send(b"".join(map(packed, [*hello, (b"CLIENT", b"ID")])))

    def greeted(self, hello: list[tuple[bytes, ...]]) -> None:
        """Hear the answers to how it began."""
        for _ in range(len(hello) + 1):
            reply = self.read()
            if isinstance(reply, Refused) and reply.code != "NOPERM":
                raise reply
        if isinstance(reply, int):
            self.client_id = b"%d" % reply

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as err:
            raise self._last_words() or err from None

    def _last_words(self) -> Refused | None:
        """Why the server takes no more, where it has said so."""
        with contextlib.suppress(OSError):
            self.sock.settimeout(_LOOK_S)
            reply = self.read()
            return reply if isinstance(reply, Refused) else None
        return None

    def read(self) -> Any:
        return reply_from(self._file)

    def can_read(self) -> bool:
        """Whether a reply has begun to come in. (Nothing is left over of those before.)"""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self.sock.close()


class Wire:
    """A server, as one share of one process calls it.

    Without the GIL: the deques change by one ``append``, ``pop`` or ``remove``, which are atomic.

    Attributes:
        trips: how often it was asked for something and answered; for tests.
    """

    def __init__(self, maker: Maker, reply_s: float) -> None:
        """``reply_s``: how long a reply may take, twice as long until one gives up."""
        self._maker = maker
        self.reply_s = reply_s
        self.closed = False
        self.trips = 0
        self.gave_up_s = -_JUST_NOW_S
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Leave the parent's connections to it."""
        self._anchor: Connection | None = None
        self._idle: deque[Connection] = deque()
        self._doubtful: deque[bytes] = deque()
        """Clients that may have sent what is not done yet."""

    def close(self) -> None:
        """End the connections; every later call is a ClosedError."""
        self.closed = True
        self.end_idle()

    def end_idle(self) -> None:
        """End the connections that nobody uses: where one was cut, most were."""
        self._anchor = None
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    # --- Connections -----------------------------------------------------------------------

    def fresh(self) -> Connection:
        """A new connection, which the caller closes."""
        (conn,) = self._greeting()  # To its end: the answer is waited for as it is read.
        return conn

    def _greeting(self) -> Iterator[Connection]:
        """Make one; yields it before its first answer is read."""
        if self.closed:
            raise ClosedError(CLOSED_HERE)
        try:
            conn = Connection(self._maker.make(), self._maker.hello, self.reply_s)
            yield conn
            conn.greeted(self._maker.hello)
        except Refused as reply:
            if reply.code in WAITS:
                raise Cut(str(reply)) from None
            raise explained(reply) from None

    def take(self) -> Connection:
        """A connection that nobody uses."""
        try:
            conn = self._idle.pop()
        except IndexError:
            conn = self.fresh()
        if self._doubtful:
            for _ in self._fencing(conn):
                pass
        return conn

    def taking(self, backend: Backend) -> Generator[Pause, None, Connection]:
        """As `take`, by steps; but a host that does not take a connection is waited for."""
        try:
            conn = self._idle.pop()
        except IndexError:
            for conn in self._greeting():
                yield from self._answering(conn, backend)
        for _ in self._fencing(conn):
            yield from self._answering(conn, backend)
        return conn

    def _answering(self, conn: Connection, backend: Backend) -> Generator[Pause, None, None]:
        """Yields the pauses until an answer has begun to come in."""
        end = time.monotonic() + self.reply_s
        while not conn.can_read():
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise Cut("the server has not answered in time")
            yield partial(backend.readable, [conn.sock.fileno()]), left_s

    def _fencing(self, conn: Connection) -> Iterator[None]:
        """See to it that what other connections have sent is done, or never will be.

        Yields before it reads an answer.
        """
        for client_id in list(self._doubtful):
            conn.send(packed((b"CLIENT", b"KILL", b"ID", client_id)))
            yield
            conn.read()  # Perhaps it has ended by itself; or we may not, then that is all.
            with contextlib.suppress(ValueError):
                self._doubtful.remove(client_id)

    def give_back(self, conn: Connection) -> None:
        """It is used no more, and nothing is left to be read from it."""
        self._idle.append(conn)

    @property
    def client_id(self) -> bytes:
        """By what the server knows a connection that stands for as long as this process does.

        Empty where there is none, or the server does not say.
        """
        anchor = self._anchor
        return b"" if anchor is None else anchor.client_id

    def anchoring(self, backend: Backend) -> Generator[Pause, None, None]:
        """See to it that there is such a connection, by steps; yields the pauses until then."""
        attempts = None
        while self._anchor is None:
            try:
                self._anchor = conn = yield from self.taking(backend)
                self.give_back(conn)
            except BaseException as err:
                attempts = attempts or Attempts(self)
                attempts.failed(err, None)
                yield backend.sleep, attempts.pause_s

    def drop(self, conn: Connection) -> None:
        """End a connection that may have sent what nobody has waited for."""
        if conn is self._anchor:
            self._anchor = None
        if conn.client_id:
            self._doubtful.append(conn.client_id)
        conn.close()

    # --- Calls -----------------------------------------------------------------------------

    def run(self, script: Script, keys: tuple[bytes, ...], *arguments: Argument) -> Any:
        """What a script returns. It may run more than once: its arguments have to see to that."""
        count = b"%d" % len(keys)
        try:
            return self.call(b"EVALSHA", script.sha, count, *keys, *arguments)
        except Refused:  # The server does not know it yet.
            return self.call(b"EVAL", script.source, count, *keys, *arguments)

    def call(self, *arguments: Argument) -> Any:
        """One round trip; tried again for a while where the server does not answer."""
        return self.exchange(packed(arguments), 1)

    def exchange(self, data: bytes, count: int) -> Any:
        """The same for several commands, of which the last one's reply is returned."""
        attempts = Attempts(self)
        while True:
            conn = None
            try:
                conn = self.take()
                conn.send(data)
                for _ in range(count):
                    reply = conn.read()
                self._idle.append(conn)
            except BaseException as err:
                attempts.failed(err, conn)
            else:
                self.trips += 1
                if type(reply) is not Refused:
                    return reply
                attempts.refused(reply)
            time.sleep(attempts.pause_s)

    def running(
        self, backend: Backend, script: Script, keys: tuple[bytes, ...], *arguments: Argument
    ) -> Generator[Pause, None, Any]:
        """As `run`, by steps; yields the pauses until the reply is there."""
        count = b"%d" % len(keys)
        try:
            return (
                yield from self.calling(backend, b"EVALSHA", script.sha, count, *keys, *arguments)
            )
        except Refused:
            pass
        return (yield from self.calling(backend, b"EVAL", script.source, count, *keys, *arguments))

    def calling(self, backend: Backend, *arguments: Argument) -> Generator[Pause, None, Any]:
        """As `call`, by steps."""
        data = packed(arguments)
        attempts = Attempts(self)
        while True:
            conn = None
            try:
                conn = yield from self.taking(backend)
                conn.send(data)
                yield from self._answering(conn, backend)
                reply = conn.read()
                self._idle.append(conn)
            except BaseException as err:
                attempts.failed(err, conn)
            else:
                self.trips += 1
                if type(reply) is not Refused:
                    return reply
                attempts.refused(reply)
            yield backend.sleep, attempts.pause_s

    def has_given_up(self) -> bool:
        """Whether the server was found to be unreachable just now."""
        return time.monotonic() - self.gave_up_s < _JUST_NOW_S

    def leads_elsewhere(self, moved: Refused) -> None:
        """Follow where a node of a cluster sends us: ``MOVED slot host:port``."""
        host, _, port = str(moved).rpartition(" ")[2].rpartition(":")
        self._maker.move(host, int(port))
        self.end_idle()

    def is_lost(self, err: BaseException) -> bool:
        """Whether the server cannot be reached; what a signal handler raises is its own."""
        traceback = err.__traceback__
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        raised_in = "" if traceback is None else traceback.tb_frame.f_globals.get("__name__", "")
        ours = str(raised_in).partition(".")[0] in _OWN
        lost = isinstance(err, (OSError, *self._maker.lost))
        return ours and lost and not isinstance(err, MmapShareError)


class Attempts:
    """The attempts at one call: how long to wait before the next one, or what to raise."""

    __slots__ = ("_end", "_number", "_wire", "pause_s")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._end = time.monotonic() + 2 * wire.reply_s
        self._number = 0
        self.pause_s = 0.0

    def failed(self, err: BaseException, conn: Connection | None) -> None:
        """The connection is not to be used again."""
        if conn is not None:
            self._wire.drop(conn)
        if isinstance(err, Refused):
            self.refused(err)
        elif self._wire.is_lost(err):
            self._wire.end_idle()
            self._again(err)
        else:
            raise err

    def refused(self, reply: Refused) -> None:
        """The server has said so."""
        if reply.code == "NOSCRIPT":
            raise reply
        if reply.code == "MOVED":
            self._wire.leads_elsewhere(reply)
        elif reply.code not in WAITS:
            raise explained(reply) from None
        self._again(reply)

    def _again(self, err: BaseException) -> None:
        number, self._number = self._number, self._number + 1
        self.pause_s = _PAUSES_S[number] if number < len(_PAUSES_S) else _LAST_PAUSE_S
        if time.monotonic() + self.pause_s > self._end:
            self._wire.gave_up_s = time.monotonic()
            raise StoreUnreachableError(
                f"the server cannot be reached ({type(err).__name__}: {err}). Whether the last "
                "change has arrived is unknown; look when it is there again, and go on with the "
                "same share"
            ) from err
