"""Shares and dicts on a server, for tests that hold of both."""

from __future__ import annotations

from typing import Any

from mmapshare import Share, SharedDict


def opened(kind: str, url: str, **options: Any) -> Any:
    """A share of ``{"n": 0}``, or a dict."""
    if kind == "share":
        return Share.open(url, {"n": 0}, **options)
    return SharedDict.open(url, {"n": 0}, **options)


def read(shared: Any) -> Any:
    return shared.get()["n"] if isinstance(shared, Share) else shared["n"]


def add(shared: Any) -> None:
    with shared.locked() as view:
        view["n"] += 1


def put(shared: Any, n: Any) -> int:
    """Set it, without a block."""
    if isinstance(shared, Share):
        return shared.set({"n": n})
    shared["n"] = n
    return shared.version
