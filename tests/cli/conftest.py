"""A real server for the commands that look at one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import redis_server
from support.redis_server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    """The one that all tests use; emptied afterwards."""
    found = redis_server.of_tests()
    yield found
    found.command("FLUSHALL")
