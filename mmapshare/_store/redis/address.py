"""Addresses of shares on a server: ``redis://user:password@host:6379/0/jobs``.

All begin as redis-py's URLs do, and end with the number of a database and the share's name:

- ``redis://`` and ``valkey://``, over TCP; ``rediss://`` and ``valkeys://``, with TLS;
- ``unix:///run/redis.sock/0/jobs``, over a socket of this machine.

The options are redis-py's (``ssl_ca_certs``, ``socket_connect_timeout``), and three are read here:
``socket_timeout``, the seconds that a reply may take (default 1; after twice that the server counts
as unreachable), ``replicas``, the number of those that must have a commit (see ``WAIT``), and
``replicas_timeout``, the seconds that they have for that.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import attrs

from ..._late import importing
from ...errors import OpenError

_SCHEMES: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}
_PATH: Final = re.compile(r"(.*)/(\d+)(?:/([^/]*))?")
_NAME: Final = re.compile(r"[A-Za-z0-9_{][A-Za-z0-9._@+{}:-]{0,127}")
_REPLY_S: Final = 1.0
_known: dict[str, str] = {}
"""Servers that this process has been given a password for: by what a handle says, their URLs."""
_secrets: dict[tuple[str, str], bytes] = {}
"""Likewise the secrets of shares: by server and name."""


@attrs.frozen
class Server:
    """A server, or a database on it.

    Attributes:
        url: as redis-py takes it, without the options that are read here.
        reply_s: how long a reply may take.
        replicas: how many must have a commit, and how many seconds they have for it.
    """

    url: str = attrs.field(repr=False)
    reply_s: float
    replicas: tuple[int, float]

    def __str__(self) -> str:
        """As a user writes it, without the password."""
        parts = urlsplit(self.public().url)
        options = dict(parse_qsl(parts.query))
        if parts.scheme != "unix":
            return parts.geturl()
        path = f"unix://{parts.path}/{options.pop('db')}"
        return f"{path}?{urlencode(options)}" if options else path

    def public(self) -> Server:
        """The same without user and password."""
        parts = urlsplit(self.url)
        netloc = parts.netloc.rpartition("@")[2]
        query = [(key, value) for key, value in parse_qsl(parts.query) if "password" not in key]
        bare = urlunsplit(parts._replace(netloc=netloc, query=urlencode(query)))
        return attrs.evolve(self, url=bare.replace("unix:/", "unix:///", 1) if not netloc else bare)

    def is_beside_us(self) -> bool:
        """Whether nothing that goes there leaves this machine."""
        host = urlsplit(self.url).hostname
        if self.url.startswith("unix:") or host in {None, "localhost"}:
            return True
        try:
            return ipaddress.ip_address(str(host)).is_loopback
        except ValueError:
            return False


@attrs.frozen
class ServerAddress:
    """A share on a server; ``str`` is how a person calls it, without the password."""

    server: Server
    name: str
    lease_s: float
    secret: bytes | None = attrs.field(repr=False)
    is_signed: bool
    """Whether there is a secret, though it may not be here."""

    is_name = False

    def __str__(self) -> str:
        url, mark, query = str(self.server).partition("?")
        return f"{url}/{self.name}{mark}{query}"

    def public(self) -> ServerAddress:
        """What may be stored, or go to anybody."""
        return attrs.evolve(self, server=self.server.public(), secret=None)

    def remember(self) -> None:
        """For handles that will be loaded here: they have neither password nor secret."""
        server = self.server.public().url
        _known[server] = self.server.url
        if self.secret is not None:
            _secrets[server, self.name] = self.secret

    def as_known(self) -> ServerAddress:
        """The same with what is secret and has been given to this process, if it has."""
        server = self.server.public().url
        known = _known.get(server, self.server.url)
        secret = self.secret
        if self.is_signed:  # Nobody who has the server can have it opened without.
            secret = secret or _secrets.get((server, self.name)) or secret_of(None)
        return attrs.evolve(self, server=attrs.evolve(self.server, url=known), secret=secret)


def secret_of(given: str | bytes | None) -> bytes | None:
    """The secret that a user has given, or the environment; None where neither has."""
    found = given or os.environ.get("MMAPSHARE_SECRET") or None
    return found.encode() if isinstance(found, str) else found


def address_of(url: str, lease_s: float, secret: bytes | None) -> ServerAddress:
    """The address that a URL says; ValueError where it says none."""
    server, name = split(url)
    if not name or not _NAME.fullmatch(name):
        raise ValueError(
            f"{_shown(url)} ends with no name for a share: write redis://host:6379/0/jobs, with a "
            "name of 1 to 128 letters, digits and . _ @ + - : { }"
        )
    return ServerAddress(server, name, lease_s, secret, secret is not None)


def server_of(url: str) -> Server:
    """The server that a URL leads to, which names no share."""
    server, name = split(url)
    if name:
        raise ValueError(f"{_shown(url)} names a share: write redis://host:6379/0")
    return server


def split(url: str) -> tuple[Server, str]:
    """The server of a URL, and the name of a share there, empty where there is none."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError(
            f"{_shown(url)} begins with none of {', '.join(f'{one}://' for one in _SCHEMES)}"
        )
    try:
        parts.port  # noqa: B018
    except ValueError:  # It may be a password whose host was forgotten: it is not shown.
        raise ValueError(
            "the address has a port that is no number: write redis://host:6379/0/jobs, and "
            "redis://user:password@host:6379/0/jobs where there is a password"
        ) from None
    scheme, found = _SCHEMES[parts.scheme], _PATH.fullmatch(parts.path)
    if found is None or bool(found[1]) != (scheme == "unix"):
        raise ValueError(
            f"{_shown(url)} names no database: write redis://host:6379/0/jobs, or "
            "unix:///run/redis.sock/0/jobs"
        )
    path, database, name = found.groups()
    options = dict(parse_qsl(parts.query))
    for read_here in ("decode_responses", "protocol", "db"):
        options.pop(read_here, None)
    reply_s = float(options.pop("socket_timeout", _REPLY_S))
    replicas = int(options.pop("replicas", 0)), float(options.pop("replicas_timeout", 1.0))
    if scheme == "unix":
        options["db"] = database
    else:
        path = f"/{database}"
    query = f"?{urlencode(options)}" if options else ""
    return Server(f"{scheme}://{parts.netloc}{path}{query}", reply_s, replicas), unquote(name or "")


def _shown(url: str) -> str:
    """Without what may be a password: one that was not quoted may have anything in it."""
    return repr(re.sub(r"//.*@", "//", url.partition("?")[0]))


class RedisMaker:
    """Connections as redis-py makes them."""

    def __init__(self, server: Server) -> None:
        try:
            with importing:
                import redis
                from redis.backoff import NoBackoff
                from redis.retry import Retry
        except ImportError as err:
            raise OpenError(
                f"{server} is opened through redis-py, which is not installed: "
                "pip install 'mmapshare[redis]'"
            ) from err
        self.lost: tuple[type[BaseException], ...] = (redis.ConnectionError, redis.TimeoutError)
        pool = redis.ConnectionPool.from_url(server.url)
        self._kind: Any = pool.connection_class
        self._options: dict[str, Any] = {
            "socket_connect_timeout": server.reply_s,
            **pool.connection_kwargs,
            "socket_timeout": server.reply_s,
            "retry": Retry(NoBackoff(), 0),
            "redis_connect_func": lambda conn: None,  # What begins a connection is ours.
        }
        try:
            self._kind(**self._options)
        except TypeError as err:
            raise ValueError(f"{server} has an option that redis-py does not know: {err}") from err
        self.hello: list[tuple[bytes, ...]] = []
        user, password = self._options.get("username"), self._options.get("password")
        if user or password:
            words = [word.encode() for word in (user, password) if word]
            self.hello.append((b"AUTH", *words))
        if int(self._options.get("db") or 0):
            self.hello.append((b"SELECT", b"%d" % int(self._options["db"])))

    def make(self) -> Any:
        """A connected socket."""
        conn = self._kind(**self._options)
        conn.connect()
        sock, conn._sock = conn._sock, None  # Ours alone from now on.
        return sock

    def move(self, host: str, port: int) -> None:
        """The share is on another node of the cluster, from now on."""
        self._options.update(host=host, port=port)
