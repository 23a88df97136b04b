"""The files that a process writes its records to, and their format.

A process has a file of names, ``PID-N.names``, one JSON object a line: what the process is called,
the shares and the places in programs that its records mean by their numbers. Its records go to
files of pages, ``PID-N.PAGE``, which are mapped: a record is there as soon as it is written, and
stays there when the process is killed. Each is eight words of 8 bytes, little-endian:

=======  ====================================================================================
word     meaning; all times are the monotonic clock's nanoseconds, which all processes share
=======  ====================================================================================
0        thread
1        when the wait or the sleep began; of a hold 0 where the lock was got at once
2        when the lock was got, or 0
3        the place in the program
4        version when the lock was got, or slept on; of a found death the pid
5        kind, plus 256 x the share. Written after those before it: a record without is none.
6        version when the lock was let go, or the sleep ended; 0 where it was closed
7        when that was; 0 while it is not over
=======  ====================================================================================
"""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from .._closed import has_gil

HOLD, GAVE_UP, SLEEP, CONFLICT, FOUND_DEAD = range(1, 6)
"""Kinds of records."""
RECORD_BYTES: Final = 64
pack_begin: Final = struct.Struct("<6Q").pack_into
"""Writes what a record begins with, up to its kind."""
END_AT: Final = 48
"""Where in it that begins which is written when it ends."""
pack_end: Final = struct.Struct("<2Q").pack_into
NAMES: Final = ".names"
PAGE_BYTES: Final = 4 << 20
_PAGES_MOST: Final = 256
"""A gigabyte, after which nothing more is recorded."""


class Page:
    """A file of records, mapped."""

    __slots__ = ("map", "take")

    def __init__(self, path: str, size_bytes: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, size_bytes)
            self.map = mmap.mmap(fd, size_bytes)
        finally:
            os.close(fd)
        self.take: Callable[[], int] = _counter()
        """The place of the next record, perhaps behind the page's end."""


def _counter() -> Callable[[], int]:
    counted = itertools.count(0, RECORD_BYTES)
    if has_gil():  # only with the GIL
        return counted.__next__
    mutex = threading.RLock()  # only without the GIL

    def take() -> int:  # only without the GIL
        with mutex:
            return next(counted)

    return take  # only without the GIL


class Recorder:
    """What a process writes to a folder. Any thread may use it; a forked child has its own."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.page: Page | None = None
        self.page_bytes = PAGE_BYTES
        self._names = -1
        self.begin_anew()

    def begin_anew(self) -> None:
        """Have files of this process's own; a forked child leaves its parent's to it."""
        self.close()
        self._mutex = threading.RLock()  # A signal handler may take locks, and record that.
        self._pages = itertools.count()
        self._next = itertools.count(1)
        self._numbers: dict[Any, int] = {}
        self._names = self._open_names()
        self._say({"pid": os.getpid(), "began": time.monotonic_ns(), "wall": time.time()})

    def _open_names(self) -> int:
        """A file of names that nobody has; -1 where nothing can be recorded."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        number = 0
        while True:
            self._stem = os.path.join(self.folder, f"{os.getpid()}-{number}")
            try:
                return os.open(self._stem + NAMES, flags, 0o600)
            except FileExistsError:  # Of one that had the same pid.
                number += 1
            except OSError:  # The folder is gone, or full.
                return -1

    def take(self) -> tuple[Page, int] | None:
        """A page and a place in it for a new record; None where nothing more is recorded."""
        page = self.page
        while page is not None:
            place = page.take()
            if place < self.page_bytes:
                return page, place
            page = self._turn(page)
        return None

    def _turn(self, full: Page | None) -> Page | None:
        """The next page; the same for all threads that come here at once."""
        with self._mutex:
            if self.page is full:
                # A signal handler may come here meanwhile: then there is one page more.
                self.page = self._new_page(next(self._pages))
            return self.page

    def _new_page(self, number: int) -> Page | None:
        try:
            if number < _PAGES_MOST:
                return Page(f"{self._stem}.{number}", self.page_bytes)
        except OSError:  # The folder is gone, or full.
            pass
        return None

    def number_of(self, what: Any, said: dict[str, Any]) -> int:
        """The number by which records mean that; it is written down when it is new."""
        with self._mutex:
            number = self._numbers.get(what)
            if number is not None:
                return number
            first = not self._numbers
            number = self._numbers[what] = next(self._next)
        if first:
            self._say({"process": _own_name()})
            self._turn(None)
        self._say({"number": number, **said})
        return number

    def _say(self, said: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # The disk is full.
            os.write(self._names, json.dumps(said).encode() + b"\n")

    def close(self) -> None:
        """Write nothing more."""
        self.page = None
        fd, self._names = self._names, -1
        if fd >= 0:
            os.close(fd)


def _own_name() -> str:
    """What people call this process."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        return str(process.current_process().name)
    return os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"
