"""Planted bugs that `holding` must catch."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from typing import Any

from support import inside
from support.inside import OLDEST_READABLE


class _OldestUnseen:
    """The header's words, as one sees them who does not ask what is still readable."""

    def __init__(self, words: Any) -> None:
        self._words = words

    def __getitem__(self, word: Any) -> Any:
        return 0 if word == OLDEST_READABLE else self._words[word]

    def __setitem__(self, word: Any, value: Any) -> None:
        self._words[word] = value


def _no_second_look(share: Any) -> None:
    """Whoever holds something does not ask whether it still stands."""
    store = inside.store_of(share)
    inside.words_of.set(store, _OldestUnseen(inside.words_of(store)))


def _holds_not_asked_for(share: Any) -> None:
    """Writers take any place."""
    inside.put("held", lambda fd, start, end: None)


def _asked_too_early(share: Any) -> None:
    """A writer asks for holds before it has raised OLDEST_READABLE."""
    real, words = inside.held, inside.region_words_of(inside.store_of(share).region)
    place, before = inside.free_place, list[int]()

    def free_place(*args: Any) -> Any:
        before.append(words[OLDEST_READABLE])
        try:
            return place(*args)
        finally:
            before.clear()

    def late(fd: int, start: int, end: int) -> Any:
        if not before:
            return real(fd, start, end)
        raised, words[OLDEST_READABLE] = words[OLDEST_READABLE], before[0]
        found = real(fd, start, end)
        _step_of_its_own()
        words[OLDEST_READABLE] = raised
        return found

    inside.put("free_place", free_place)
    inside.put("held", late)


def _step_of_its_own() -> None:
    """Something may come between, at a bytecode of the package."""
    inside.align(1)


def _newest_not_spared(share: Any) -> None:
    """A place is free though the newest version lies there."""
    real = inside.free_place

    def free_place(areas: Any, size: int, newest: int, begin: int, end: int, *more: int) -> Any:
        other = inside.start_of_area(areas, 1 - inside.number_of_area(areas, begin))
        return real(areas, size, newest, other, other, *more)

    inside.put("free_place", free_place)


def _lag_unchecked(share: Any) -> None:
    """What was noted once is believed, whatever was written since."""
    real = inside.lagging

    def lagging(store: Any, slot: Any) -> Any:
        words = inside.words_of(store)
        if words[inside.LAG_START]:
            words[inside.LAG] = slot.version
        return real(store, slot)

    inside.put("lagging", lagging)
    inside.put("check_of_lag", lambda *about: _Whatever())


class _Whatever(int):
    """A checksum that is always right."""

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def _lag_kept_while_written(share: Any) -> None:
    """The note is not void while records are written."""
    real = inside.words_of(inside.store_of(share))

    class Words(_OldestUnseen):
        def __getitem__(self, word: Any) -> Any:
            return real[word]

        def __setitem__(self, word: Any, value: Any) -> None:
            if word != inside.LAG or value:
                real[word] = value

    inside.words_of.set(inside.store_of(share), Words(real))


def _older_run_wins(share: Any) -> None:
    """Of two runs of the same bytes the first one stays."""
    real = inside.laid_over
    inside.put("laid_over", lambda runs, newer: real(newer, runs))


def _base_not_held(share: Any) -> None:
    """What a value is laid over is mapped, and nobody is told."""
    real = fcntl.fcntl

    def call(fd: Any, command: int, *args: Any) -> Any:
        return None if command == fcntl.F_OFD_SETLK else real(fd, command, *args)

    fcntl.fcntl = call


PLANTED: dict[str, Callable[[Any], None]] = {
    "no second look": _no_second_look,
    "holds not asked for": _holds_not_asked_for,
    "asked too early": _asked_too_early,
    "newest not spared": _newest_not_spared,
    "lag unchecked": _lag_unchecked,
    "lag kept while written": _lag_kept_while_written,
    "older run wins": _older_run_wins,
    "base not held": _base_not_held,
}
