"""Functions whose state every process shares, as `shared_state` makes them.

A `SharedFunction` opens one transaction for each call and passes its view on as the state. Where
the state goes among the arguments depends on how the function was reached: after ``self`` where
it is bound to an instance or a class, first otherwise.
"""

from __future__ import annotations

import inspect
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from .._codec import decode, encode
from .._proc import in_worker
from .._share import Share
from .described import Described, KnownAsAsync, found_at, is_found, without_first, without_state

if TYPE_CHECKING:
    from .._shared import Shared

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")

FIRST, AFTER_SELF, UNKNOWN = 0, 1, 2
"""Where the state stands among the positional arguments of a direct call. UNKNOWN: the function
stands in a class body, as a ``staticmethod`` or ``classmethod`` that is wrapped around it."""


class SharedFunction(Described[R], Generic[P, R]):
    """A function whose state processes share, as `shared_state` makes it.

    A call is one transaction on `share`: it waits for the lock, calls the function with the
    view and the caller's arguments, and commits; an exception commits nothing and is raised
    unchanged. Called within a transaction of the same owner on the same share, by recursion or
    from another function, it joins that. Any thread, task and process may call it at any time.

    Pickled, it is a handle: wherever it is loaded it works on the same region.
    """

    def __init__(
        self, func: Callable[..., R], at: int, *, share: Any = None, **options: Any
    ) -> None:
        without_state(func, at == AFTER_SELF)  # Says what is wrong with the parameters.
        self.__name__ = self.__qualname__ = type(func).__name__  # A partial has none of its own.
        super().__init__(func)
        self._at = at
        self._of_class = False
        """Whether it takes the place of a ``classmethod``."""
        self._settled = share is not None
        """Whether somebody may rely on the region that it has."""
        self._waiting = {name: options.pop(name) for name in ("timeout",) if name in options}
        self._initial: Sequence[bytes] | None = None
        if share is None or isinstance(share, str | os.PathLike):
            options.setdefault("initial", {})
            self._initial = tuple(map(bytes, encode(options["initial"])))
            share = Share(**options) if share is None else Share.open(share, **options)
        self._share: Shared[Any] = share

    @property
    def __signature__(self) -> inspect.Signature:
        return without_state(self._func, self._at == AFTER_SELF)

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
            without_state(self._func, True)
            self._at = AFTER_SELF

    # --- Its region ------------------------------------------------------------------------

    @property
    def share(self) -> Any:
        """The region, a `Share` or what was given: to look at, and for other functions' state."""
        self._settled = True
        return self._share

    def reset(self) -> None:
        """Go back to the initial state, in one transaction.

        The state is that which was given at decoration; of a name too, whatever it began with.

        Raises:
            TypeError: the share was made elsewhere (``share=`` with a `Share` or a `SharedDict`).

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

    def __copy__(self, memo: object = None) -> SharedFunction[P, R]:
        """Itself, as with any function."""
        return self

    __deepcopy__ = __copy__

    def __getstate__(self) -> dict[str, Any]:
        """For who takes it by value: with its region's handle, which counts from now on."""
        self._settled = True
        return vars(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """By name and handle, as plain pickle takes functions."""
        # A spawned child knows the program's own module by another name than everybody else.
        module = "__main__" if self.__module__ == "__mp_main__" else self.__module__
        if not is_found(self):
            raise pickle.PicklingError(
                f"cannot pickle {self.__qualname__}: it is not found as {module}."
                f"{self.__qualname__}; define it at the top of a module, or use cloudpickle (as "
                "mmapshare and joblib do)"
            )
        self._settled = True
        return _load_by_name, (module, self.__qualname__, self._share)

    def _on(self, share: Shared[Any]) -> SharedFunction[P, R]:
        """This function on the region ``share``, which was handed on to this process.

        In a worker that imported the function anew, and where nobody has used its own region
        yet, the function itself moves over: so its other callers, itself among them, agree.
        """
        if share is self._share:
            return self
        twin = self
        if self._settled or self._share.version > 1 or not in_worker():
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
        # Its class gets some when it is asked for any, and they would stand before `__getattr__`.
        if sys.version_info < (3, 14):  # only without Python 3.14
            self.__annotations__ = getattr(func, "__annotations__", {})

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.__func__._run(AFTER_SELF, (self.__self__, *args), kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__func__, name)

    @property
    def __signature__(self) -> inspect.Signature:
        return without_first(self.__func__.__signature__)

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


# --- Loading it elsewhere --------------------------------------------------------------------


def _load_by_name(module: str, name: str, share: Shared[Any]) -> SharedFunction[..., Any]:
    if module not in sys.modules:
        __import__(module)
    found = found_at(module, name)
    if not isinstance(found, SharedFunction):
        raise pickle.UnpicklingError(
            f"{module}.{name} is not a shared_state function here; the module has to define it "
            "in this process too, or cloudpickle has to send it"
        )
    return found._on(share)
