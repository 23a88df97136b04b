"""`shared_state`: functions, methods and classes whose state every process shares.

A `SharedFunction` opens one transaction for each call and passes its view on as the state. Where
the state goes among the arguments depends on how the function was reached: after ``self`` where
it is bound to an instance or a class, first otherwise.
"""

from __future__ import annotations

import inspect
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, cast, overload

import cloudpickle

from .._codec.frames import decode, encode
from .._share import Share
from .._shared import registry
from .._shared.base import Shared
from .classes import KnownAsAsync, facade_of
from .described import Described, signature_of

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
C = TypeVar("C")


class _NotGiven:
    def __repr__(self) -> str:
        return "<not given>"


_NOT_GIVEN: Final[Any] = _NotGiven()

FIRST, AFTER_SELF, UNKNOWN = 0, 1, 2
"""Where the state stands among the positional arguments of a direct call. UNKNOWN: the function
stands in a class body, as a ``staticmethod`` or ``classmethod`` that is wrapped around it."""


class SharedFunction(Described, Generic[P, R]):
    """A function whose state processes share, as `shared_state` makes it.

    A call is one transaction on `share`: it waits for the lock, calls the function with the
    view and the caller's arguments, and commits; an exception commits nothing and is raised
    unchanged. Called within a transaction of the same owner on the same share, by recursion or
    from another function, it joins that. Any thread, task and process may call it at any time.

    Pickled, it is a handle: wherever it is loaded it works on the same region.
    """

    def __init__(self, func: Callable[..., R], at: int) -> None:
        self._func: Callable[..., R] = func
        self._at = at
        self._of_class = False
        """Whether it takes the place of a ``classmethod``."""
        self._settled = False
        """Whether somebody may rely on the region that it has."""
        self.__name__ = self.__qualname__ = type(func).__name__  # A partial has none of its own.
        super().__init__(func)
        _without_state(func, at == AFTER_SELF)  # Says what is wrong with the parameters.

    def _bind(self, share: Any, initial: Any, timeout: float | None, **size: Any) -> None:
        """Give it its region, made from ``initial`` or given as ``share``."""
        self._initial: Sequence[bytes] | None = None
        if share is _NOT_GIVEN:
            self._initial = tuple(map(bytes, encode(initial)))
            share = Share(initial, **size)
        else:
            self._settled = True
        self._share: Shared[Any] = share
        self._waiting: dict[str, float | None] = {}
        if timeout is not _NOT_GIVEN:
            self._waiting["timeout"] = timeout
            self._share.locked(**self._waiting)  # Says what is wrong with a timeout.

    @property
    def __signature__(self) -> inspect.Signature:
        return _without_state(self._func, self._at == AFTER_SELF)

    # --- Calls -----------------------------------------------------------------------------

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(self._at, args, kwargs)

    def _run(self, at: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        with self._share.locked(**self._waiting) as state:
            if at == FIRST:
                return self._func(state, *args, **kwargs)
            at = self._where(args)
            return self._func(*args[:at], state, *args[at:], **kwargs)

    def _where(self, args: tuple[Any, ...]) -> int:
        if self._at != UNKNOWN:
            return AFTER_SELF
        owner = args[0] if args else None
        if not isinstance(owner, type):
            # Another decorator stands above, which passes the instance on.
            home, _, name = self.__qualname__.rpartition(".")
            return int(
                any(
                    (base.__module__, base.__qualname__) == (self.__module__, home)
                    and not isinstance(vars(base).get(name), staticmethod)
                    for base in type(owner).__mro__
                )
            )
        # Since Python 3.13 a classmethod calls what it wraps, where it used to bind it.
        for base in owner.__mro__:
            for member in vars(base).values():
                if isinstance(member, classmethod) and member.__func__ is self:
                    return AFTER_SELF
        return FIRST

    @overload
    def __get__(self, instance: None, owner: Any = None) -> SharedFunction[P, R]: ...

    @overload
    def __get__(
        self: SharedFunction[Concatenate[Any, Q], R], instance: object, owner: Any = None
    ) -> BoundSharedFunction[Q, R]: ...

    def __get__(self, instance: object, owner: Any = None) -> Any:
        if self._of_class:
            return BoundSharedFunction(self, owner)
        return self if instance is None else BoundSharedFunction(self, instance)

    def __set_name__(self, owner: type, name: str) -> None:
        # Not where a function made elsewhere is also called an attribute of a class.
        if self.__qualname__ == f"{owner.__qualname__}.{name}" and self._at == UNKNOWN:
            _without_state(self._func, True)
            self._at = AFTER_SELF

    # --- Its region ------------------------------------------------------------------------

    @property
    def share(self) -> Any:
        """The region, a `Share` or what was given: to look at, and for other functions' state."""
        self._settled = True
        return self._share

    def reset(self) -> None:
        """Back to the initial state, in one transaction; as it was given at decoration.

        TypeError for a function on a share that was made elsewhere (``share=``).

        >>> from mmapshare import shared_state
        >>> @shared_state(initial=[])
        ... def note(state, what):
        ...     state.append(what)
        >>> note("a")
        >>> note.reset()
        >>> note.share.get()
        []
        """
        if self._initial is None:
            raise TypeError(
                f"{self.__qualname__}.reset(): its share was made elsewhere, with no initial "
                f"state known here; change {self.__name__}.share itself"
            )
        with self._share.locked(**self._waiting) as state:
            state.value = decode(self._initial)

    def __repr__(self) -> str:
        signature = str(self.__signature__)
        return f"<shared_state function {self.__qualname__}{signature} on {self._share!r}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return self._share._card(f"{self.__qualname__}{self.__signature__} on ")

    # --- Pickling --------------------------------------------------------------------------

    def __copy__(self) -> SharedFunction[P, R]:
        """Itself, as with any function."""
        return self

    def __deepcopy__(self, memo: object) -> SharedFunction[P, R]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """By name and handle, as plain pickle takes functions."""
        module, name = _address(self._func)
        found = _find(module, name)
        if not isinstance(found, SharedFunction) or found._func is not self._func:
            raise pickle.PicklingError(
                f"cannot pickle {self.__qualname__}: it is not found as {module}.{name}; define "
                "it at the top of a module, or use cloudpickle (as mmapshare and joblib do)"
            )
        self._settled = True
        return _load_by_name, (module, name, self._share)

    def _on(self, share: Shared[Any]) -> SharedFunction[P, R]:
        """This function on the region ``share``, which was handed on to this process.

        In a worker that imported the function anew, and where nobody has used its own region
        yet, the function itself moves over: so its other callers, itself among them, agree.
        """
        if share is self._share:
            return self
        twin = self
        if self._settled or self._share.version > 1 or not registry.in_worker():
            twin = type(self).__new__(type(self))
            vars(twin).update(vars(self))
        twin._share, twin._settled = share, True
        return twin


class AsyncSharedFunction(KnownAsAsync, SharedFunction[P, R]):
    """A `SharedFunction` around an ``async def``: the event loop runs on while it waits."""

    async def __call__(  # type: ignore[override]
        self, /, *args: P.args, **kwargs: P.kwargs
    ) -> Any:
        return await cast(Any, self._run(self._at, args, kwargs))

    async def _run(self, at: int, args: Any, kwargs: Any) -> Any:  # type: ignore[override]
        async with self._share.locked(**self._waiting) as state:
            if at != FIRST:
                at = self._where(args)
            return await cast(Any, self._func(*args[:at], state, *args[at:], **kwargs))


class BoundSharedFunction(Generic[P, R]):
    """A `SharedFunction` as a method of an instance, or of a class; compares as methods do."""

    def __init__(self, func: SharedFunction[..., R], instance: object) -> None:
        self.__func__ = func
        self.__self__ = instance

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.__func__._run(AFTER_SELF, (self.__self__, *args), kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__func__, name)

    @property
    def __signature__(self) -> inspect.Signature:
        return _without_first(self.__func__.__signature__)

    @property
    def share(self) -> Any:
        """The function's region, which all instances have in common."""
        return self.__func__.share

    def reset(self) -> None:
        """As `SharedFunction.reset`."""
        self.__func__.reset()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundSharedFunction):
            return NotImplemented
        return self.__self__ is other.__self__ and self.__func__ is other.__func__

    def __hash__(self) -> int:
        return hash((id(self.__self__), id(self.__func__)))

    def __reduce__(self) -> tuple[Any, ...]:
        return BoundSharedFunction, (self.__func__, self.__self__)

    def __repr__(self) -> str:
        return f"<bound {self.__func__!r} of {self.__self__!r}>"


# --- The decorator ---------------------------------------------------------------------------


class _Decorator:
    """What ``shared_state(...)`` with keywords returns; only its types differ from a function."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @overload
    def __call__(self, target: type[C], /) -> type[C]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, target: Callable[Concatenate[Any, P], R], /) -> SharedFunction[P, R]: ...

    def __call__(self, target: Any, /) -> Any:
        return _decorate(target, self._options)


@overload
def shared_state(target: type[C], /) -> type[C]: ...  # type: ignore[overload-overlap]


@overload
def shared_state(target: Callable[Concatenate[Any, P], R], /) -> SharedFunction[P, R]: ...


@overload
def shared_state(
    *,
    initial: object = ...,
    share: Shared[Any] = ...,
    max_size: int | str = ...,
    timeout: float | None = ...,
) -> _Decorator: ...


def shared_state(target: Any = _NOT_GIVEN, /, **options: Any) -> Any:
    """Bind a function's state to a region that all processes share.

    The function's first parameter is the state: the view of one transaction for each call, which
    callers do not pass. Written bare the state begins as ``{}``.

    Args:
        initial: the state to begin with; stored at once, so that changing the object later
            changes nothing. A callable is stored as it is, never called.
        share: an existing `Share` or `SharedDict` instead, so that several functions work on one
            state.
        max_size: ceiling of the state, as for `Share`; default 1 GiB.
        timeout: seconds that a call waits for the lock before it raises LockTimeout; by default
            the share's own, which is None: for as long as it takes.

    The region is made at decoration, so that forked children inherit it. The function, handed to
    a child under spawn or forkserver, takes its region along. *A child that imports the module
    anew and was not handed the function has a region of its own*: hand the function on, or bind
    it with ``share=`` to a share that the child was given. Let `shared_state` stand above other
    decorators of a function: what they make is handed on without its region.

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

    Generators are a TypeError: suspended, they would keep the lock.

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
    if "share" in options:
        for name in ("initial", "max_size"):
            if name in options:
                raise TypeError(f"share= brings its own value and ceiling: leave {name}= out")
        if not isinstance(options["share"], Shared):
            raise TypeError(
                f"share= is a Share or a SharedDict, not {type(options['share']).__name__}"
            )
    if target is _NOT_GIVEN:
        return _Decorator(options)
    if not callable(target) and not isinstance(target, staticmethod | classmethod):
        raise TypeError(
            f"shared_state decorates a function or class, not {type(target).__name__}; give the "
            "state to begin with by name: @shared_state(initial=...)"
        )
    return _decorate(target, options)


def _decorate(target: Any, options: dict[str, Any]) -> Any:
    if isinstance(target, type):
        return facade_of(target, options)
    if isinstance(target, SharedFunction | BoundSharedFunction):
        raise TypeError(f"{_name(target)} has shared state already: decorate it once")
    if isinstance(target, staticmethod):
        return staticmethod(_function(target.__func__, FIRST, options))
    if isinstance(target, classmethod):
        function = _function(target.__func__, AFTER_SELF, options)
        function._of_class = True
        return function
    return _function(target, UNKNOWN if _in_class_body(target) else FIRST, options)


def _function(
    func: Callable[..., Any],
    at: int,
    options: dict[str, Any],
) -> SharedFunction[..., Any]:
    if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
        raise TypeError(
            f"{_name(func)} is a generator: suspended between two items it would keep the lock. "
            "Return a list, or give the state out by a plain function called from a generator"
        )
    cls = AsyncSharedFunction if inspect.iscoroutinefunction(func) else SharedFunction
    function: SharedFunction[..., Any] = cls(func, at)
    initial = options.get("initial", {})
    size = {"max_size": options["max_size"]} if "max_size" in options else {}
    timeout = options.get("timeout", _NOT_GIVEN)
    function._bind(options.get("share", _NOT_GIVEN), initial, timeout, **size)
    return function


def _in_class_body(func: Any) -> bool:
    outer = str(getattr(func, "__qualname__", "")).rpartition(".")[0]
    return bool(outer) and not outer.endswith("<locals>")


def _name(func: Any) -> str:
    return str(getattr(func, "__qualname__", func))


_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def _without_state(func: Callable[..., Any], after_self: bool) -> inspect.Signature:
    """The signature as callers see it; TypeError where there is no room for the state."""
    own = signature_of(func, follow_wrapped=False)
    shown = signature_of(func)
    at = int(after_self)
    parameters = list(own.parameters.values())
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters[: at + 1]):
        # It passes on whatever it gets; what it wraps, if anything, says where the state goes.
        parameters = list(shown.parameters.values())
        if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters[: at + 1]):
            return shown
    elif own != shown:
        return shown  # A wrapper that takes the state itself: callers see what it wraps.
    if len(parameters) <= at or parameters[at].kind not in _POSITIONAL:
        first = "self, state" if after_self else "state"
        name = getattr(func, "__name__", _name(func))
        raise TypeError(
            f"{_name(func)} has no parameter for the state: write  def {name}({first}, ...)"
        )
    del parameters[at]
    return shown.replace(parameters=parameters)


def _without_first(signature: inspect.Signature) -> inspect.Signature:
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].kind in _POSITIONAL:
        del parameters[0]
    return signature.replace(parameters=parameters)


# --- Loading it elsewhere --------------------------------------------------------------------


def _address(func: Any) -> tuple[str, str]:
    module = str(getattr(func, "__module__", None))
    # A spawned child knows the program's own module by another name than everybody else.
    return "__main__" if module == "__mp_main__" else module, _name(func)


def _find(module: str, name: str) -> Any:
    """What stands under a name, bound or not; None where there is nothing."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return getattr(found, "__func__", found)


def _load_by_name(module: str, name: str, share: Shared[Any]) -> SharedFunction[..., Any]:
    if module not in sys.modules:
        __import__(module)
    found = _find(module, name)
    if not isinstance(found, SharedFunction):
        raise pickle.UnpicklingError(
            f"{module}.{name} is not a shared_state function here; the module has to define it "
            "in this process too, or cloudpickle has to send it"
        )
    return found._on(share)


def _reduce_for_cloudpickle(function: SharedFunction[..., Any]) -> tuple[Any, ...]:
    """By name where the other side can import it, else by value with its region's handle."""
    module, name = _address(function._func)
    elsewhere = module != "__main__" and module not in cloudpickle.list_registry_pickle_by_value()
    if elsewhere:
        found = _find(module, name)
        if isinstance(found, SharedFunction) and found._func is function._func:
            return function.__reduce__()
    function._settled = True
    return object.__new__, (type(function),), vars(function)


for _cls in (SharedFunction, AsyncSharedFunction):
    cloudpickle.Pickler.dispatch_table[_cls] = _reduce_for_cloudpickle
