"""The N-th system call fails: the operation is done, or not and says why.

One of a child's system calls, or as many as there are from there on, is not carried out and
answers an errno instead (see `tracing`). So it goes through CPython's own wrappers, with their
retries. Each errno goes with calls that Linux really answers so:

- ENOSPC: what asks for room in a file or a folder.
- ENOMEM: whatever makes something, the interpreter's own memory included.
- EMFILE: whatever makes a descriptor.
- EINTR: what may wait. CPython repeats such calls, so "for ever" is 50 times.
- EIO: what touches a temporary folder, which may be on a disk. close tells it too, after the
  descriptor is gone, as Linux does. A memfd has no such thing.
- EPERM: what a security module may forbid.

Letting go of a flock fails on no local file system; it is only interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import glob
import os
import pickle
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import attrs
import tracing
from exceptions import PLANTED as EXCEPTIONS_PLANTED
from lean import Events
from operations import Operation, operation
from scenes import NEW, _value
from support import in_child, inside, open_fds, region_mappings

from mmapshare import MmapShareError

FOR_EVER: Final = 50
_CHILD_S: Final = 90
"""Seconds after which a child that hangs is over."""
_STOPS: Final = 100_000

# Linux's numbers of system calls on x86-64.
_CALLS: Final = {
    2: "open", 3: "close", 9: "mmap", 28: "madvise", 72: "fcntl", 73: "flock", 77: "ftruncate",
    83: "mkdir", 91: "fchmod", 257: "open", 285: "fallocate", 319: "memfd_create",
}  # fmt: skip
_OPENAT: Final = 257
_F_ADD_SEALS: Final = 1033
_FAIL: Final = {
    errno.ENOSPC: {"create", "fallocate", "ftruncate", "mkdir"},
    errno.ENOMEM: {"create", "duplicate", "fallocate", "flock", "ftruncate", "madvise",
                   "memfd_create", "mkdir", "mmap", "open"},
    errno.EMFILE: {"create", "duplicate", "memfd_create", "open"},
    errno.EINTR: {"create", "fallocate", "flock", "ftruncate", "open", "unlock"},
    errno.EIO: {"close", "create", "fallocate", "fchmod", "flock", "ftruncate", "mkdir", "open"},
    errno.EPERM: {"create", "fchmod", "open", "seal"},
}  # fmt: skip
_HOWS: Final = [(code, times) for code in _FAIL for times in (1, FOR_EVER)]
_MOST: Final = 10_000
"""Events that an operation has at most."""


def sweep(events: Events, kind: str, names: list[str], planted: str | None = None) -> Counter[str]:
    """Fail each call of each operation on that kind of memory; how often it ended in what way."""
    tracing.stay_on_one_core(events.shard)
    # Where nobody traces, what the child says is said to nobody.
    for marker in (tracing.BEGIN, tracing.END):
        signal.signal(marker, signal.SIG_IGN)
    ended = Counter[str]()
    with _folder_of_our_own():
        for first, name in enumerate(names):
            with operation(name, kind) as tried:
                gc.collect()
                gc.freeze()  # The collector runs in each child.
                if planted is not None:
                    PLANTED[planted]()
                numbers = range(first * _MOST, (first + 1) * _MOST)
                ended += _sweep_one(events, numbers, tried, kind)
    return ended


@contextlib.contextmanager
def _folder_of_our_own() -> Iterator[None]:
    """Where nobody else's regions come and go."""
    before = tempfile.tempdir
    try:
        with tempfile.TemporaryDirectory() as tempfile.tempdir:
            yield
    finally:
        tempfile.tempdir = before


def _sweep_one(events: Events, numbers: range, tried: Operation, kind: str) -> Counter[str]:
    ended = Counter[str]()
    rehearsal = Failing(0, 0, 0)
    assert _try(tried, rehearsal) == "done", f"{tried.name} fails by itself"
    left = {
        how
        for how, (code, _) in enumerate(_HOWS)
        if _FAIL[code] & rehearsal.kinds
        and (code != errno.EIO or kind == "file")
        and (events.only is not None or how % events.shards == events.shard)
    }
    for number in events(numbers):
        after, how = divmod(number - numbers.start, len(_HOWS))
        if how in left:
            failing = Failing(*_HOWS[how], after)
            try:
                outcome = _try(tried, failing)
            except Exception as err:
                raise AssertionError(f"{tried.name}, {failing}: Error: {err}") from err
            if failing.failed:
                ended[outcome] += 1
                continue
            assert outcome == "done", f"{tried.name}: {outcome} though nothing failed"
            left.remove(how)
        events.count -= 1
        if not left:
            break
    return ended


# --- The tracer's side -------------------------------------------------------------------------


@attrs.define
class Failing:
    """Which calls fail, of those that can by ``code``: so many ``times`` from ``after`` on."""

    code: int
    times: int
    after: int
    seen: int = 0
    failed: int = 0
    first: str = "nothing"
    kinds: set[str] = attrs.Factory(set)

    def wants(self, info: tracing.SyscallInfo) -> bool:
        """Whether this call, which is about to be made, is to fail."""
        kind = _kind(info)
        if kind is not None:
            self.kinds.add(kind)
        if kind is None or self.times == 0 or kind not in _FAIL[self.code]:
            return False
        self.seen += 1
        if self.seen <= self.after or self.failed >= self.times:
            return False
        self.failed += 1
        if self.failed == 1:
            self.first = kind
        return True

    def __str__(self) -> str:
        return f"{errno.errorcode[self.code]} at {self.first}, {self.failed} times"


def _kind(info: tracing.SyscallInfo) -> str | None:
    kind, args = _CALLS.get(info.number), info.args
    if kind == "open":
        return "create" if args[1 + (info.number == _OPENAT)] & os.O_CREAT else kind
    if kind == "flock":
        return "unlock" if args[1] & fcntl.LOCK_UN else kind
    if kind == "fcntl":
        return {fcntl.F_DUPFD_CLOEXEC: "duplicate", _F_ADD_SEALS: "seal"}.get(args[1])
    return kind


def _try(tried: Operation, failing: Failing) -> str:
    """One operation in a child: "done", or the error's name."""
    out, into = os.pipe()
    try:
        pid = tracing.start(lambda: _report(tried, failing.code, into))
        try:
            _trace(pid, tried, failing)
        except BaseException:
            tracing.kill(pid)
            raise
        os.set_blocking(out, False)
        said = os.read(out, 1 << 16)
    except BlockingIOError:
        raise AssertionError("the child is gone without a report") from None
    finally:
        os.close(out)
        os.close(into)
    what, outcome = pickle.loads(said)
    assert what == "ended", outcome
    tried.usable()
    return str(outcome)


def _trace(pid: int, tried: Operation, failing: Failing) -> None:
    """Attend to the child, and whatever that starts, until all have ended."""
    alive, armed, struck = {pid}, set[int](), set[int]()
    tracing.go_on(pid)
    for _ in range(_STOPS):
        who, stop = tracing.next_stop()
        if stop is None:
            alive.discard(who)
            armed.discard(who)
            if not alive:
                return
            continue
        if who not in alive:
            alive.add(who)
            if armed:
                armed.add(who)
        deliver = 0
        if stop == tracing.SYSCALL_STOP:
            _at_call(who, who in armed, struck, failing)
        elif stop == tracing.BEGIN:
            armed.add(who)
        elif stop == tracing.END:
            armed.clear()
            tried.check()  # The child stands still, and must hold nothing.
        elif stop not in {signal.SIGTRAP, signal.SIGSTOP}:
            deliver = stop
        (tracing.until_syscall if who in armed else tracing.go_on)(who, deliver=deliver)
    raise AssertionError("the child does not end")


def _at_call(who: int, armed: bool, struck: set[int], failing: Failing) -> None:
    info = tracing.syscall(who)
    if info.op != tracing.ENTRY:
        if who in struck:
            struck.remove(who)
            tracing.poke(who, tracing.RAX, -failing.code)
    elif armed and failing.wants(info):
        struck.add(who)
        if _kind(info) != "close":  # Which does it all the same.
            tracing.poke(who, tracing.ORIG_RAX, -1)


# --- The child's side --------------------------------------------------------------------------


def _report(tried: Operation, code: int, into: int) -> None:
    signal.alarm(_CHILD_S)
    try:
        report = "ended", _in_child(tried, code)
    except BaseException:
        report = "failed", traceback.format_exc()
    os.write(into, pickle.dumps(report))


def _in_child(tried: Operation, code: int) -> str:
    gc.collect()
    before = _resources()
    tried.prepare()
    outcome = "done"
    if not tried.begins_itself:
        tracing.begin()
    try:
        tried.scene.act()
    except (MmapShareError, OSError, MemoryError) as err:
        tracing.end()
        assert tried.begins_itself or _tells(err, code), f"{err!r} does not tell why"
        outcome = type(err).__name__
    except BaseException:
        tracing.end()
        raise
    else:
        tracing.end()
    for share in (*tried.scene.shares, *tried.made):
        if not share.closed:
            _is_backed(share)
    for share in tried.made:
        assert _value(share) in tried.values, "another value was made"
        in_child(_use, pickle.dumps(share))
        share.close()
    tried.made.clear()
    gc.collect()
    left = _resources() ^ before
    if code in tried.leaves_folder:
        left = {one for one in left if not one.startswith("/")}
    assert not left, f"something is left open: {sorted(left)}"
    tried.usable()
    return outcome


def _resources() -> set[str]:
    """This process's descriptors, its mappings of regions, and what is in the folder."""
    folders = glob.glob(os.path.join(tempfile.gettempdir(), "mmapshare-*"))
    return {*folders, *region_mappings(), *(f"{fd} -> {to}" for fd, to in open_fds().items())}


def _tells(err: BaseException, code: int) -> bool:
    """Whether it is the system's own error, or one of ours that was raised from it."""
    if isinstance(err, MemoryError):
        return code == errno.ENOMEM
    return any(isinstance(one, OSError) and one.errno == code for one in _chain(err))


def _chain(err: BaseException | None) -> Iterator[BaseException]:
    while err is not None:
        yield err
        err = err.__cause__ or (None if err.__suppress_context__ else err.__context__)


def _use(raw: bytes) -> None:
    """What another process does, which has only the handle."""
    inside.open_here.clear()
    share = pickle.loads(raw)
    with share.locked(timeout=0.05) as view:
        view.value = dict(NEW)
    assert _value(share) == NEW
    share.close()


def _is_backed(share: Any) -> None:
    """What is said to have memory has it: else a store would be a SIGBUS where there is none."""
    store = inside.store_of(share)
    said = inside.HEADER_BYTES + sum(
        inside.words_of(store)[word] - inside.area_start(store, area)
        for area, word in enumerate(inside.ALLOCATED)
    )
    assert inside.segment_of(share).resident_bytes() >= said, "memory is promised that is not there"


# --- Planted bugs ------------------------------------------------------------------------------


def _left_open() -> None:
    """Making a segment fails, and its descriptor stays."""

    def broken(cls: Any, kind: str, size_bytes: int) -> Any:
        fd = os.memfd_create("mmapshare", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size_bytes)
        segment = cls._map(kind, fd, size_bytes, None)
        os.close(fd)
        return segment

    inside.put("segment_create", classmethod(broken))


def _early_allocated() -> None:
    """ALLOCATED is stored before there is memory."""
    real = inside.segment_allocate

    def broken(segment: Any, start: int, end: int, *stored: int) -> int:
        for region in inside.live_regions:
            if region.segment is segment:
                area = region.areas.of(start)
                inside.region_words_of(region)[inside.ALLOCATED[area]] = end
        return real(segment, start, end, *stored)

    inside.put("segment_allocate", broken)


def _mute_handle() -> None:
    """Whatever keeps a handle from being opened, it is said to be gone."""
    real = os.open

    def broken(path: Any, *args: Any, **kwargs: Any) -> int:
        try:
            return real(path, *args, **kwargs)
        except OSError:
            raise FileNotFoundError(errno.ENOENT, "planted") from None

    inside.put("os_in_handle", type("os", (), {**vars(os), "open": staticmethod(broken)}))


PLANTED: Final = {
    "left open": _left_open,
    "early ALLOCATED": _early_allocated,
    "mute handle": _mute_handle,
    "no abandon": EXCEPTIONS_PLANTED["no abandon"],
}
