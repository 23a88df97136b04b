"""Methods as a shared class has them: one transaction on an instance's attributes, or one look."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partialmethod
from types import FunctionType, MethodType
from typing import Any, Final

import cloudpickle

from .described import Described, KnownAsAsync, refuse_generator
from .drafts import Draft, copy_of, draft_of, end, share_of

LOOKING: Final = frozenset({
    "__repr__", "__str__", "__format__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__",
    "__hash__", "__len__", "__bool__", "__contains__", "__bytes__", "__int__", "__float__",
    "__complex__", "__index__", "__sizeof__", "__dir__", "__fspath__",
})  # fmt: skip
"""Special methods that only look: they work on a copy of what was committed last."""


class Method(Described[Any]):
    """A method that is one transaction on its instance's attributes."""

    def __call__(self, handle: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(handle, Draft):  # Called by the class's name, within a method.
            return self._func(handle, *args, **kwargs)
        with share_of(handle).locked() as view:
            draft = draft_of(handle, view.value)
            try:
                result = self._func(draft, *args, **kwargs)
                view.value = draft.__dict__
            finally:
                end(draft)
            return handle if result is draft else result

    def __get__(self, handle: object, owner: Any = None) -> Any:
        return self if handle is None else MethodType(self, handle)

    def __set_name__(self, owner: type, name: str) -> None:
        self._address = (owner, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, self._address


class Looking(Method):
    """A method that only looks, at what was committed last."""

    def __call__(self, handle: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(handle, Draft):
            return self._func(handle, *args, **kwargs)
        return self._func(copy_of(handle), *args, **kwargs)


class Showing(Looking):
    """``__repr__``, which is also asked where nothing can be read any more."""

    def __call__(self, handle: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(handle, Draft):
            share = share_of(handle)
            if share.closed or not share._is_reached():
                return f"<{type(handle).__qualname__} on {share!r}>"
        return super().__call__(handle, *args, **kwargs)


class AsyncMethod(KnownAsAsync, Method):
    """An ``async def`` method: the event loop runs on while it waits for the lock."""

    async def __call__(self, handle: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(handle, Draft):
            return await self._func(handle, *args, **kwargs)
        async with share_of(handle).locked() as view:
            draft = draft_of(handle, view.value)
            try:
                result = await self._func(draft, *args, **kwargs)
                view.value = draft.__dict__
            finally:
                end(draft)
            return handle if result is draft else result


def method_of(name: str, func: FunctionType) -> Method:
    """What a facade has under that name instead of a plain class's function."""
    refuse_generator(func)
    if inspect.iscoroutinefunction(func):
        return AsyncMethod(func)
    if name == "__repr__":
        return Showing(func)
    return Looking(func) if name in LOOKING else Method(func)


def property_of(member: property) -> property:
    """The same of a property."""

    def change(act: Callable[..., Any] | None) -> Callable[..., Any] | None:
        return Method(act) if isinstance(act, FunctionType) else None

    getter = Looking(member.fget) if isinstance(member.fget, FunctionType) else member.fget
    return property(getter, change(member.fset), change(member.fdel), member.__doc__)


def bound_later(member: Any) -> Method:
    """The same of what binds to an instance in its own way."""
    return Method(
        lambda draft, *args, **kwargs: member.__get__(draft, type(draft))(*args, **kwargs)
    )


def _reduce_partialmethod(method: Any) -> tuple[Any, ...]:
    """As `functools.partial` does it: what Python 3.14 has of its own fails to load."""
    return _make_partialmethod, (method.func, method.args, method.keywords)


def _make_partialmethod(func: Any, args: Any, keywords: Any) -> Any:
    return partialmethod(func, *args, **keywords)


cloudpickle.Pickler.dispatch_table.setdefault(partialmethod, _reduce_partialmethod)
