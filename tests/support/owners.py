"""Owners of two threads that do nothing: this one's and another's."""

from __future__ import annotations

import weakref

from .inside import ThreadOwner

THREADS = ThreadOwner(), ThreadOwner()
HERE, ELSEWHERE = map(weakref.ref, THREADS)
for _thread in THREADS:
    _thread.main = None  # Whatever has imported greenlet here: they are not this one.
