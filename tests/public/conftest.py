"""The contract runs on every medium that promises what a test needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import inside, redis_server
from support.loops import Loop, loop_of
from support.media import WITH_PLANTED, Medium, Redis, fitting

NO_SERVER = pytest.mark.skipif(bool(redis_server.why_not()), reason=redis_server.why_not())


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(promise, ...): only on media that promise this")
    config.addinivalue_line("markers", "slow: on the first such medium only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "medium" not in metafunc.fixturenames:
        return
    marks = list(metafunc.definition.iter_markers("needs"))
    needs = {promise for mark in marks for promise in mark.args}
    slow = metafunc.definition.get_closest_marker("slow") is not None
    every = any(map(metafunc.config.getoption, ("planted", "whole", "soak")))
    media = [cls for cls in fitting(needs, slow) if every or cls not in WITH_PLANTED]
    marks_of = {Redis: NO_SERVER, **dict.fromkeys(WITH_PLANTED, pytest.mark.planted)}
    params = [pytest.param(cls, id=cls.name, marks=marks_of.get(cls, ())) for cls in media]
    metafunc.parametrize("medium", params, indirect=True)


@pytest.fixture
def medium(request: pytest.FixtureRequest) -> Iterator[Medium]:
    """Where shares are made: ``medium.share(value)``, ``medium.dict(items)``."""
    made: Medium = request.param()
    yield made
    made.close()
    inside.handed_out.clear()


@pytest.fixture(params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> Loop:
    """How to run, to gather, to pause, and to make an event."""
    return loop_of(request.param)
