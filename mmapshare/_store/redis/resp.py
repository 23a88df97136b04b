"""The server's protocol, RESP2: commands out, replies in.

redis-py makes the connections. What goes over them is written and read here, since its client's
own dispatch takes longer than a round trip on one machine.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

Argument = bytes | bytearray | memoryview
_NIL: Final = -1


class Refused(Exception):  # noqa: N818
    """The server's error reply; ``code`` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class Cut(ConnectionError):  # noqa: N818
    """A connection has ended in the middle of a reply, or says what is none."""


class Source(Protocol):
    """What replies are read from: a socket's file."""

    def readline(self) -> bytes: ...
    def read(self, size: int) -> bytes: ...


def packed(arguments: tuple[Argument, ...]) -> bytes:
    """One command as it is sent."""
    parts: list[Argument] = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        parts += (b"$%d\r\n" % len(argument), argument, b"\r\n")
    return b"".join(parts)


def reply_from(source: Source) -> Any:
    """The next reply: bytes, an int, a list of such, or None; a `Refused` is returned, not raised.

    Cut where the other side has ended.
    """
    line = source.readline()
    if line[-2:] != b"\r\n":
        raise Cut("the server has ended the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"$":
        return _bulk(source, int(rest))
    if kind == b":":
        return int(rest)
    if kind == b"*":
        count = int(rest)
        return None if count == _NIL else [reply_from(source) for _ in range(count)]
    if kind == b"+":
        return rest
    if kind == b"-":
        return Refused(rest.decode("utf-8", "replace"))
    raise Cut(f"what answers is no Redis: {line[:40]!r}")


def _bulk(source: Source, size: int) -> bytes | None:
    if size == _NIL:
        return None
    found = source.read(size)
    if len(found) != size or source.read(2) != b"\r\n":
        raise Cut("the server has ended the connection")
    return found
