"""The contract runs on every medium that promises what a test needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import inside, redis_server
from support.media import WITH_WHOLE, Medium, Redis, fitting

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
    whole = metafunc.config.getoption("whole") or metafunc.config.getoption("soak")
    media = [cls for cls in fitting(needs, slow) if whole or cls not in WITH_WHOLE]
    params = [
        pytest.param(cls, id=cls.name, marks=NO_SERVER if cls is Redis else []) for cls in media
    ]
    metafunc.parametrize("medium", params, indirect=True)


@pytest.fixture
def medium(request: pytest.FixtureRequest) -> Iterator[Medium]:
    """Where shares are made: ``medium.share(value)``, ``medium.dict(items)``."""
    made: Medium = request.param()
    yield made
    made.close()
    inside.handed_out.clear()
