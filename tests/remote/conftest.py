"""A real server for each test: that of all, emptied afterwards, or one of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import redis_server
from support.proxy import Proxy
from support.redis_server import Server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    why = redis_server.why_not()
    for item in items:
        if why and "tests/remote" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture
def server() -> Iterator[Server]:
    """The server that all tests use."""
    found = redis_server.of_tests()
    yield found
    found.command("FLUSHALL")


@pytest.fixture
def url(server: Server) -> str:
    """Of a share on it, which is there for this test alone."""
    return f"{server.socket_url}/jobs"


@pytest.fixture
def tcp(server: Server) -> str:
    """The same over TCP."""
    return f"{server.url}/jobs"


@pytest.fixture(params=["share", "dict"])
def kind(request: pytest.FixtureRequest) -> str:
    """What is stored: a value, or values by key."""
    return request.param


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """A server of one's own: to be killed, paused, or to be otherwise set up."""
    made: list[Server] = []

    def begin(*options: str, **more: Any) -> Server:
        made.append(Server(*options, **more))
        return made[-1]

    yield begin
    for one in made:
        one.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """Between us and the server."""
    with Proxy(server.port) as made:
        yield made
