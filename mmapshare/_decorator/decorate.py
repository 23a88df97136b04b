"""`shared_state`: the decorator, its options, and what it makes of functions and classes."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

import attrs

from .._arguments import size_bytes, timeout_s
from .._shared import Shared
from .classes import facade_of
from .described import name_of, refuse_generator
from .functions import (
    AFTER_SELF,
    FIRST,
    UNKNOWN,
    AsyncSharedFunction,
    BoundSharedFunction,
    SharedFunction,
)

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


class _Decorator(Protocol):
    """What ``shared_state(...)`` with keywords returns."""

    @overload
    def __call__(self, target: type[C], /) -> type[C]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, target: Callable[Concatenate[Any, P], R], /) -> SharedFunction[P, R]: ...


@overload
def shared_state(target: type[C], /) -> type[C]: ...  # type: ignore[overload-overlap]


@overload
def shared_state(target: Callable[Concatenate[Any, P], R], /) -> SharedFunction[P, R]: ...


@overload
def shared_state(
    *,
    initial: object = ...,
    share: Shared[Any] | str | os.PathLike[str] = ...,
    max_size: int | str = ...,
    timeout: float | None = ...,
) -> _Decorator: ...


def shared_state(target: Any = attrs.NOTHING, /, **options: Any) -> Any:
    """Bind a function's state to a region that all processes share.

    The function's first parameter is the state: the view of one transaction for each call, which
    callers do not pass. Written bare the state begins as ``{}``.

    Args:
        initial: the state to begin with; stored at once, so that changing the object later
            changes nothing. A callable is stored as it is, never called.
        share: an existing `Share` or `SharedDict` instead, so that several functions work on one
            state. Or a name or a path, as `Share.open` takes it: functions of programs that know
            nothing of one another work on one state, which begins with the first one's
            ``initial`` and lasts as long as the name does.
        max_size: ceiling of the state, as for `Share`; default 1 GiB.
        timeout: seconds that a call waits for the lock before it raises LockTimeout; by default
            the share's own, which is None: for as long as it takes.

    The region is made at decoration, so that forked children inherit it. The function, handed to
    a child under spawn or forkserver, takes its region along. *A child that imports the module
    anew and was not handed the function has a region of its own*: hand the function on, or bind
    it with ``share=`` to a name, or to a share that the child was given. Let `shared_state` stand
    above other decorators of a function: what they make is handed on without its region.

    - ``async def`` functions wait for the lock without holding up the event loop; the owner is
      the task. A task that they start and await in turn is another owner and would wait for
      ever; let them call one another directly.
    - Methods have one region in common for all instances; the state comes after ``self``.
      `staticmethod` and `classmethod` may stand on either side; to hand a class method on to
      spawned children let `shared_state` stand above (from Python 3.13 on the other order gives
      a plain method of the class, which travels without its region).
    - A class: each instance has a region of its own for its attributes, which must be picklable;
      each public method, and each special one, is one transaction on them, but for properties
      and the special methods that only look (``repr``, ``==``, ``len`` and the like), which see a
      copy of what was committed last. So does who reads an attribute from outside; assigning
      one there raises AttributeError. Within a method ``self`` is a draft: outlasting the
      method it turns into the instance itself; ``self.__class__`` is the shared class, which
      ``type(self)`` is not. Attributes of the class itself are the plain class's, in each
      process its own. Let `shared_state` stand above decorators such as ``dataclass``; derive
      from the class before it is decorated. An instance may be pickled and copied: it is a
      handle, and ``instance.share`` its region.

    Returns:
        A function as a `SharedFunction`, which has `share` and `reset`; a class as a shared class.

    Raises:
        TypeError: at decoration, of generators (suspended, they would keep the lock) and of what
            is no function and no class.
        As `Share.locked`, from a call.

    Safety: each call is one transaction over all threads, tasks and processes. An exception that
    leaves the call drops its changes, and so does a kill.

    >>> @shared_state(initial={"calls": 0})
    ... def tally(state, n):
    ...     state["calls"] += n
    ...     return state["calls"]
    >>> tally(3)
    3
    >>> tally.share.get()
    {'calls': 3}
    >>> tally.reset()
    >>> tally(1)
    1

    >>> @shared_state(share="doctest-tally", initial=0)  # The same in each program that says so.
    ... def count(state):
    ...     state.value += 1
    ...     return state.value
    >>> count()
    1
    >>> count.share.unlink()

    >>> @shared_state
    ... class Counter:
    ...     def __init__(self):
    ...         self.n = 0
    ...     def add(self, by):
    ...         self.n += by
    >>> counter = Counter()
    >>> counter.add(2)
    >>> counter.n
    2
    """
    for name in options:
        if name not in {"initial", "share", "max_size", "timeout"}:
            raise TypeError(
                f"shared_state() has no option {name!r}; it takes initial, share, max_size, timeout"
            )
    size_bytes(options.get("max_size", 1))
    timeout_s(options.get("timeout"))
    share = options.get("share", "")
    if isinstance(share, Shared):
        for name in ("initial", "max_size"):
            if name in options:
                raise TypeError(f"share= brings its own value and ceiling: leave {name}= out")
    elif not isinstance(share, str | os.PathLike):
        raise TypeError(
            "share= is a Share or a SharedDict, or the name or path of a Share, not "
            f"{type(share).__name__}"
        )
    if target is attrs.NOTHING:
        return functools.partial(_decorate, options)
    if not callable(target) and not isinstance(target, staticmethod | classmethod):
        raise TypeError(
            f"shared_state decorates a function or class, not {type(target).__name__}; give the "
            "state to begin with by name: @shared_state(initial=...)"
        )
    return _decorate(options, target)


def _decorate(options: dict[str, Any], target: Any, /) -> Any:
    if isinstance(target, type):
        return facade_of(target, options)
    if isinstance(target, SharedFunction | BoundSharedFunction):
        raise TypeError(f"{name_of(target)} has shared state already: decorate it once")
    if isinstance(target, staticmethod):
        return staticmethod(_function(target.__func__, FIRST, options))
    if isinstance(target, classmethod):
        function = _function(target.__func__, AFTER_SELF, options)
        function._of_class = True
        return function
    return _function(target, UNKNOWN if _in_class_body(target) else FIRST, options)


def _function(
    func: Callable[..., Any], at: int, options: dict[str, Any]
) -> SharedFunction[..., Any]:
    refuse_generator(func)
    cls = AsyncSharedFunction if inspect.iscoroutinefunction(func) else SharedFunction
    return cls(func, at, **options)


def _in_class_body(func: Any) -> bool:
    outer = str(getattr(func, "__qualname__", "")).rpartition(".")[0]
    return bool(outer) and not outer.endswith("<locals>")
