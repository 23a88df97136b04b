"""What the failing system calls strike: the scenes of `scenes`, and how shares come and go."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs
import tracing
from scenes import NEW, OLD, SCENES, Scene
from support import inside

from mmapshare import MmapShareError, Share, SharedDict


def _nothing() -> None:
    pass


@attrs.define
class Operation:
    """Something that is done while a system call fails.

    Attributes:
        name: what it is called.
        scene: the act, and the shares that it works on, which others have too.
        prepare: what is done right before, in the child.
        made: what ``act`` or ``prepare`` opens; ``values`` are those that it may have.
        begins_itself: it says itself when it is time for calls to fail.
        leaves_folder: errnos by which it cannot learn that nobody uses the temporary folder.
    """

    name: str
    scene: Scene
    prepare: Callable[[], object] = _nothing
    made: list[Any] = attrs.field(factory=list)
    values: tuple[Any, ...] = (OLD,)
    begins_itself: bool = False
    leaves_folder: frozenset[int] = frozenset()

    def check(self) -> None:
        """Values are old or new, and others can go on at once."""
        self.scene.check(killed=False)
        if self.scene.anew is None:  # New shares have folders of their own.
            self.usable()

    def usable(self) -> None:
        """The next operation works."""
        if self.scene.shares:
            self.scene.usable()


@contextlib.contextmanager
def operation(name: str, kind: str) -> Iterator[Operation]:
    """An operation on shares of that kind, with the constants that its scene changes."""
    before = [(module, dict(vars(module))) for module in inside.modules_with_constants()]
    inside.put("kind_of_memory", lambda wanted: kind)
    making = MAKING.get(name)
    tried = Operation(name, SCENES[name]()) if making is None else making()
    try:
        if not tried.begins_itself:  # What is imported late is imported now.
            tried.prepare()
            tried.scene.act()
            _close(tried.made)
            tried.usable()
        yield tried
    finally:
        _close(tried.scene.shares)
        for module, names in before:
            vars(module).update(names)


def _close(shares: list[Any]) -> None:
    for share in shares:
        share.close()
    shares.clear()


# --- How shares come and go --------------------------------------------------------------------


def _making(name: str, make: Callable[[], Any]) -> Operation:
    made: list[Any] = []
    return Operation(name, Scene([], lambda: made.append(make()), [], []), made=made)


def _closing() -> Operation:
    made: list[Any] = []
    scene = Scene([], lambda: made.pop().close(), [], [])
    return Operation(
        "close",
        scene,
        lambda: made.append(Share(OLD)),
        made,
        leaves_folder=frozenset({errno.ENOMEM, errno.EIO}),
    )


def _opening() -> Operation:
    """A handle is opened by a process that has not got the share."""
    share = Share(OLD)
    made: list[Any] = []

    def forget() -> None:
        inside.open_here.clear()

    def act() -> None:
        made.append(pickle.loads(raw))
        made[0].set(NEW)

    raw = pickle.dumps(share)
    return Operation("open", Scene([share], act, [OLD], [NEW]), forget, made, (OLD, NEW))


def _pickling() -> Operation:
    share = Share(OLD)
    return Operation("pickle", Scene([share], lambda: pickle.dumps(share), [OLD], [OLD]))


def _waiting() -> Operation:
    share = Share(OLD)
    return Operation("wait", Scene([share], lambda: share.wait(timeout=0), [OLD], [OLD]))


def _forking() -> Operation:
    """A forked child opens a lock of its own, at last when it needs it."""
    share = Share(OLD)

    def act() -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with contextlib.suppress(MmapShareError, OSError, MemoryError):
                    share.set(NEW)
                tracing.end()
                share.set(OLD)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert status == 0, "a forked child could not go on"

    return Operation("fork", Scene([share], act, [OLD], [NEW]))


def _starting(method: str) -> Operation:
    """A child that is started by multiprocessing opens the share, and changes it."""
    share = Share(OLD)

    def act() -> None:
        context: Any = multiprocessing.get_context(method)
        process = context.Process(target=_started, args=(_Begin(), share))
        process.start()
        process.join()
        multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]
        multiprocessing.resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
        exitcode = process.exitcode
        process.close()
        if exitcode:
            raise MmapShareError("the child has ended with an error")

    return Operation(method, Scene([share], act, [OLD], [NEW]), begins_itself=True)


class _Begin:
    """As the first argument of a process it says when the second one is loaded."""

    def __reduce__(self) -> Any:
        return _began, ()


def _began() -> None:
    tracing.begin()


def _started(began: object, share: Any) -> None:
    if began is not None:  # It came by fork.
        tracing.begin()
    with contextlib.suppress(MmapShareError, OSError, MemoryError):
        share.set(NEW)
    tracing.end()
    share.set(OLD)


MAKING: Final[dict[str, Callable[[], Operation]]] = {
    "make a share": lambda: _making("make a share", lambda: Share(OLD)),
    "make a dict": lambda: _making("make a dict", lambda: SharedDict(OLD)),
    "close": _closing,
    "pickle": _pickling,
    "open": _opening,
    "fork": _forking,
    "wait": _waiting,
}
METHODS: Final = ("fork", "spawn", "forkserver")
MAKING.update({f"by {method}": lambda method=method: _starting(method) for method in METHODS})

EVERY_RUN: Final = [
    "make a share", "make a dict", "close", "pickle", "open", "fork", "wait",
    "block", "nested block", "set", "lock, set, unlock", "optimistic update", "first store",
    "growth", "shrink", "large for large", "arrays", "other area", "one key", "several keys",
    "compaction by one key", "first items", "several shares", "handle", "share in share",
]  # fmt: skip
