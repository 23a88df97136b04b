"""What a share shows of itself: `Showing` is what `Share` and `SharedDict` have of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final

from .._arguments import timeout_s
from ..errors import MmapShareError
from .card import Screen, bundle, facts

_REDRAWN_S: Final = 0.1
_LOOKED_S: Final = 0.5
"""`watch` looks who holds the lock even where nothing is committed."""


class Showing:
    """Its card in a notebook, and `watch`; for what has a region, `info` and `wait`."""

    __slots__ = ()

    _store: Any
    closed: Any
    version: Any
    info: Callable[[], Any]
    _is_reached: Callable[[], bool]
    wait: Callable[..., bool]

    def _how_it_stands(self) -> str:
        """For ``repr``: which region, and its version."""
        name = type(self).__name__
        if self.closed:
            return f"<{name}, closed>"
        if not self._is_reached():
            return f"<{name}, unreachable>"
        store = self._store
        what = f"version {store.version}" if store.version else "empty"
        return f"<{name} {self._called()}: {what}>"

    def _called(self) -> str:
        address, region_id = self._store.address, self._store.region_id
        return repr(address) if address else str(region_id.hex()[:8])

    def _summary(self) -> str:
        """The value, as far as there is place and it costs no more than what is shown."""
        raise NotImplementedError

    def _card(self, whose: str = "") -> dict[str, str]:
        """Itself for a notebook; ``whose`` it is comes first."""
        title = f"{whose}{type(self).__name__} "
        if self.closed:
            return bundle(f"{title}(closed)", None, None)
        if not self._is_reached():
            return bundle(f"{title}(unreachable)", self._said(), None)
        address = self._store.address
        opens = None if address is None else f"{type(self).__name__}.open({address!r})"
        return bundle(title + self._called(), self._said(), self.info(), opens)

    def _said(self) -> str:
        try:
            return self._summary()
        except MmapShareError as err:
            return f"{type(err).__name__}: {err}"

    def _row(self, name: str) -> dict[str, str]:
        """One line of a table of shares."""
        return {"name": name, "share": self._how_it_stands(), "value": self._said()} | facts(
            self.info()
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return self._card()

    def watch(
        self, predicate: Callable[[Any], object] | None = None, *, timeout: float | None = None
    ) -> bool:
        """Show the share, and draw it anew in the same place while others change it.

        In a notebook that is one display, in a terminal one line; at most ten times a second.
        Until ``predicate`` holds, as in `wait` (True), ``timeout`` seconds are over (False), or
        Ctrl-C. Takes no lock.

        >>> from mmapshare import Share
        >>> Share(3).watch(lambda n: n > 2)  # doctest: +ELLIPSIS
        Share ...; value 3; version 1; used 5 bytes of 1.0 GiB; ...
        True
        """
        deadline = None if timeout is None else time.monotonic() + (timeout_s(timeout) or 0.0)
        screen, met = Screen(), False
        try:
            while True:
                version = self.version
                screen.draw(self._card())
                met = predicate is not None and self.wait(predicate, timeout=0)
                left = math.inf if deadline is None else deadline - time.monotonic()
                if met or left <= 0:
                    screen.draw(self._card())
                    return met
                time.sleep(min(left, _REDRAWN_S))
                self.wait(since=version, timeout=min(max(left, 0), _LOOKED_S))
        finally:
            screen.leave()
