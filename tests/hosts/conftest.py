"""What is planted in several examples."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mmapshare import Share


class Draft:
    """As much of a view as the examples use."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __getitem__(self, key: Any) -> Any:
        return self.value[key]


@pytest.fixture
def without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transactions that read, work and write unlocked; two at once have both read the same.

    1. A reads, and waits until B has read too.
    2. B reads; both go on.
    3. A and B write, one over the other.
    """
    both_have_read = multiprocessing.get_context("fork").Barrier(2)

    @contextmanager
    def unlocked(share: Share[Any]) -> Iterator[Draft]:
        draft = Draft(share.get())
        both_have_read.wait(20)
        yield draft
        share.set(draft.value)

    monkeypatch.setattr(Share, "locked", unlocked)
