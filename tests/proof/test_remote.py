"""Shares on a real server: exact, whatever is cut, lost, killed, stopped or forged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import lean
import pytest
import remote
from lean import Events
from subjects import SERVER
from support import redis_server
from support.redis_server import Server

KINDS = ("share", "dict")
LENGTH = 400

pytestmark = pytest.mark.skipif(
    bool(redis_server.why_not()), reason=redis_server.why_not()
)  # fmt: skip


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """One for each test, whose processes find it by their environment."""
    with Server() as made:
        monkeypatch.setenv(SERVER, made.url)
        yield made


def _run(events: Events, check: str, *args: object) -> Counter[str]:
    return sum(lean.run(events, "remote", check, *args, timeout_s=300), Counter())


@pytest.mark.part(4)
@pytest.mark.parametrize("kind", KINDS)
def test_histories_of_killed_clients_are_linearizable(events: Events, kind: str) -> None:
    arguments = "histories", "check", f"{kind} on a server", 12, LENGTH
    met = sum(lean.run(events, *arguments, timeout_s=300), Counter())
    if events.whole:
        assert met["operations"] > 0.9 * 12 * LENGTH
        assert met["overlapping"] > 0.1 * met["operations"]
        assert met["killed"] > 5


@pytest.mark.part(32)
@pytest.mark.parametrize("kind", KINDS)
def test_histories_beside_a_server_that_is_killed_are_linearizable(
    events: Events, kind: str
) -> None:
    """It answers late, too; and clients are killed."""
    arguments = "histories", "check_disturbed", f"{kind} on a server", 16, LENGTH // 2
    met = sum(lean.run(events, *arguments, timeout_s=300), Counter())
    if events.whole:
        assert met["operations"] > 0.9 * 8 * LENGTH
        assert met["overlapping"] > 0.1 * met["operations"]
        assert met["killed"] > 5
        assert met["unknown"] > 5


@pytest.mark.planted
@pytest.mark.parametrize("kind", KINDS)
def test_a_commit_that_is_made_twice_is_caught(events: Events, kind: str) -> None:
    arguments = "histories", "check_disturbed", f"{kind} on a server", 50, LENGTH, "made twice"
    with pytest.raises(lean.FailedCheckError, match="not linearizable|a process failed"):
        lean.run(events, *arguments, timeout_s=300)


@pytest.mark.part(40)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_at_any_byte_changes_nothing(events: Events, kind: str) -> None:
    met = _run(events, "cuts", kind)
    if events.whole:
        assert met.keys() == set(remote.ACTS)
        assert met.total() > 2000


@pytest.mark.part(8)
@pytest.mark.parametrize("kind", KINDS)
def test_commands_and_answers_that_are_lost_are_made_up_for(events: Events, kind: str) -> None:
    met = _run(events, "lost", kind, 40)
    if events.whole:
        assert met.total() == 40 * 30


@pytest.mark.part(3)
@pytest.mark.parametrize("kind", KINDS)
def test_holders_that_sleep_past_their_lease_write_nothing(events: Events, kind: str) -> None:
    met = _run(events, "crowd", kind, 6, 0.05)
    if events.whole:
        assert met["added"] > 100


@pytest.mark.part(3)
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_killed_makes_nothing_twice(events: Events, kind: str) -> None:
    met = _run(events, "restarts", kind, 3)
    if events.whole:
        assert met["done"] > 50
        assert met["unknown"] > 0


@pytest.mark.part(10)
@pytest.mark.parametrize("kind", KINDS)
def test_of_what_is_forged_nothing_is_loaded(events: Events, kind: str) -> None:
    """Where nothing is signed nothing is promised: a pickle can do anything."""
    met = _run(events, "forged", kind, 50_000)
    if events.whole:
        assert met["refused"] > 45_000
