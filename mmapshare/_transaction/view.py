"""The view: the private draft of one transaction, and what may touch it.

Everything that is not the view's own (`value`, `version`, `rollback`) goes to the draft. The
view itself does no arithmetic: ``view += 1`` would rebind the caller's name and lose the change.

There are two classes, told apart by speed only. ``__getattr__`` makes CPython look up every
attribute of a class the slow way, its own slots too; so views of dicts, lists and sets do
without, and `ObjectView` is for all other values.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

from .._bytes import Frame
from .._codec import EMPTY_SET, FROZENSET, GLOBAL, decode, encode, named, take_named, unchanged
from .._lock import ENDED, LockToken, current_owner, from_first_instruction, here
from ..errors import (
    EmptyShareError,
    HandleError,
    MmapShareError,
    UnloadableError,
    ViewClosedError,
)
from .hints import refuse_arithmetic
from .nested import Joined

T = TypeVar("T")

CONTAINERS: Final = frozenset({dict, list, set})
"""Types of values whose views are plain `View`s."""


class Missing:
    """The value of an empty share: nothing can be done with it."""

    __slots__ = ()

    def _error(self) -> MmapShareError:
        return EmptyShareError("the share is empty; assign view.value first")

    def __repr__(self) -> str:
        return "<empty>"

    def __getitem__(self, key: object) -> NoReturn:
        raise self._error()

    def __setitem__(self, key: object, item: object) -> NoReturn:
        raise self._error()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(name) if name[0] == "_" else self._error()

    def __setattr__(self, name: str, item: object) -> NoReturn:
        raise self._error()


MISSING: Final[Any] = Missing()


class Unloadable(Missing):
    """Stands for a value that does not load here: it can be replaced, and says why."""

    __slots__ = ("_err",)

    def __init__(self, err: MmapShareError) -> None:
        object.__setattr__(self, "_err", err)

    def _error(self) -> MmapShareError:
        err: MmapShareError = self._err
        return err.with_traceback(None)

    def __repr__(self) -> str:
        name = getattr(self._err, "name", None)
        return f"<unloadable: {name}>" if name else "<unloadable>"


_CLOSED_BASE: Final = (0, ())
PLAIN_BASE: Final = 6
"""A base of more items than that is of a value that is held, which a closed view must drop."""
DROPPED: Final = (None,) * PLAIN_BASE
"""What makes a base as long as that."""


class View(LockToken, Generic[T]):
    """A transaction's draft, as ``with share.locked() as view`` hands it out.

    Reading and changing items, attributes, iteration, ``len``, ``in`` and ``==`` go to the
    value; `value` is the value itself, to read, change or assign. What the block leaves there is
    committed as a whole when it ends. The value's own attributes that are called ``value``,
    ``version`` or ``rollback``, or begin with an underscore, are reached through `value`.

    A view belongs to the thread, task or greenlet that opened the block, until the block ends;
    anywhere else, and in a forked child, it raises ViewClosedError. Objects taken from it stay
    usable: they are private copies. ``isinstance`` and ``match`` see a view, not its value: write
    ``match view.value:``.

    >>> from mmapshare import Share
    >>> share = Share({"hits": 0})
    >>> with share.locked() as view:
    ...     view["hits"] += 1
    ...     "hits" in view, len(view), view.version
    (True, 1, 1)
    >>> share.get()
    {'hits': 1}
    """

    # The transaction and `_open` fill these in. The transaction itself is not among them: a
    # user's variable must not keep an abandoned one alive.
    __slots__ = ("_base", "_failed", "_guard", "_lock", "_named", "_share", "_value")

    _value: Any
    """The private value; a `Missing` while an empty share has none, or it does not load here."""
    _base: Any
    """What it was read from: version, frames, and what the store needs."""
    _named: Any
    """The shares that the draft names, once it is encoded."""
    _lock: Any
    """The lock of its block; the share may be closed before all is over."""
    _guard: Any
    """Watches that the transaction is not gone before it was left."""
    _share: Any
    """Whose draft it is; asked for its store, and for what it trusts."""
    _failed: Any
    """What an inner block failed with, so that the outer one cannot commit; the `Missing` that
    must be replaced before anything is committed; `Joined` where a block has joined; None where
    there is nothing special."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The value's own attributes; how they are found differs by the value's type."""

    @property
    def version(self) -> int:
        """The version that the draft was read from; 0 for an empty share."""
        self._check()
        version: int = self._base[0]
        return version

    @property
    def value(self) -> T:
        """The draft itself; assigning replaces it.

        EmptyShareError while there is none; UnloadableError where it does not load here.
        """
        self._check()
        value: T = self._value
        if isinstance(value, Missing):
            raise value._error()
        return value

    @value.setter
    def value(self, value: T) -> None:
        self._check()
        self._put(value)

    def rollback(self) -> None:
        """Drop every change made in the block so far; the view shows the committed value again.

        Changes made afterwards count. In a nested block this drops the outer block's changes
        too: the two work on one draft.

        >>> from mmapshare import Share
        >>> share = Share([1])
        >>> with share.locked() as view:
        ...     view.append(2)
        ...     view.rollback()
        ...     view.append(3)
        >>> share.get()
        [1, 3]
        """
        self._check()
        self._put(self._committed())
        failed = self._value if isinstance(self._value, Missing) else None
        if isinstance(self._failed, Joined):
            self._failed.failed = failed
        else:
            self._failed = failed

    def _put(self, value: Any) -> None:
        self._value = value
        if type(value) not in CONTAINERS:
            self.__class__ = ObjectView

    # --- The draft: what a transaction asks for ----------------------------------------------

    def _open(self, share: Any, base: Any) -> None:
        """Fill the view in from what the share's store has read, which is ``base``."""
        self._share = share
        self._base = base
        self._named = self._failed = None
        try:
            value = decode(base[1]) if base[0] else MISSING
        except (UnloadableError, HandleError) as err:
            value = Unloadable(err)
        self._value = value
        if type(value) not in CONTAINERS:
            if type(self) is View:
                # The next one is made so: without the GIL an assignment stops all threads.
                self.__class__ = share._view_class = ObjectView  # type: ignore[assignment]
            if isinstance(value, Missing):
                self._failed = value  # Until it is replaced there is nothing to commit.
        elif type(self) is not View:
            share._view_class = View

    def _committed(self) -> Any:
        """A fresh copy of what is stored; a `Missing` if there is none."""
        self._base = base = self._share._store.current()
        try:
            return decode(base[1]) if base[0] else MISSING
        except (UnloadableError, HandleError) as err:
            return Unloadable(err)

    def _changes(self) -> Any:
        """The draft, encoded; None where that is what is stored."""
        frames = encode(self._value)
        if named:
            self._named = take_named()
        stored = self._base[1]
        if frames == stored:
            return None
        if not stored:
            return frames
        before, stream = stored[0], frames[0]
        if (
            # Without classes and sets, other bytes mean another value.
            (GLOBAL in before or EMPTY_SET in before or FROZENSET in before)
            and not self._share._trust.believes(before, stream)
            and (len(frames) == 1 or stream != before)  # Else the buffers tell.
            and self._is_unchanged(frames, stored)
        ):
            return None
        if len(frames) > 1:
            store = self._share._store
            # Without the lock another commit may be looked at there.
            if store.holds(frames) and store.version == self._base[0]:
                return None
        return frames

    def _is_unchanged(self, frames: Sequence[Frame], stored: Sequence[Frame]) -> bool:
        """Whether a draft whose frames are others is what is stored; see `_codec.sameness`."""
        same = unchanged(self._value, frames, stored, self._fresh, self._share._trust)
        take_named()  # The second look's own.
        return same

    def _fresh(self) -> Sequence[Frame]:
        """The frames that the draft was made from, anew; none where they are gone."""
        version, frames, *_ = self._share._store.read()
        return frames if version == self._base[0] else ()

    def _let_go(self) -> None:
        """Void the view and let go of the lock, if it has it; harmless when done already."""
        self._lock.abandon(self)
        self._owner = self._guard = None
        self._drop()

    def _drop(self) -> None:
        """Keep nothing of the value, whose memory may be held."""
        self._value = None
        self._base = _CLOSED_BASE

    @from_first_instruction
    def _abandoned(self, guard: object) -> None:
        """The transaction is gone: an interrupt may have kept it from being left."""
        try:
            self._let_go_here()
        except BaseException:
            self._let_go_here()
            raise

    def _let_go_here(self) -> None:
        # A process that was forked from C code without Python's hooks must leave the parent's.
        if self._owner is not None and self._lock.pid == os.getpid():
            self._let_go()

    def _open_without_lock(self, share: Any) -> None:
        """The same for the caller, who has no lock, at a version that `_expects` tells."""
        self._owner, self._inner, self._busy = current_owner(), None, False
        self._open(share, self._read(share._store))

    def _read(self, store: Any) -> Any:
        return store.read()

    def _expects(self) -> Any:
        """What must stand still when changes are put that were made without the lock."""
        return self._base[0]

    def _check(self) -> None:
        """Let nobody but the owner pass."""
        owner = self._owner
        if owner is here.owner or (owner is not None and owner == current_owner()):
            return
        if owner is None or owner is ENDED:
            raise ViewClosedError(
                "this view's block has ended, or belongs to the parent of this forked process; "
                "read from the share itself, or open a new block with share.locked()"
            )
        raise ViewClosedError(
            "this view belongs to another thread or task, or greenlet; "
            "open a block here with share.locked()"
        )

    # --- What goes to the value. Items check in line: they are the hot way. ----------------

    def __getitem__(self, key: Any) -> Any:
        if self._owner is not here.owner:
            self._check()
        return self._value[key]

    def __setitem__(self, key: Any, item: Any) -> None:
        if self._owner is not here.owner:
            self._check()
        self._value[key] = item

    def __delitem__(self, key: Any) -> None:
        del self.value[key]  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)  # type: ignore[call-overload, no-any-return]

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self.value)  # type: ignore[call-overload, no-any-return]

    def __len__(self) -> int:
        return len(self.value)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return bool(self.value)

    def __contains__(self, item: object) -> bool:
        return item in self.value  # type: ignore[operator]

    def __eq__(self, other: object) -> bool:
        return bool(self.value == (other.value if isinstance(other, View) else other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self._owner is None:
            return "<View, closed>"
        if self._value is MISSING:
            return "<View of an empty share>"
        return f"<View of version {self._base[0]}: {self._value!r}>"

    def __str__(self) -> str:
        return repr(self) if self._owner is None else str(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a view cannot be pickled or copied; take view.value")


class ObjectView(View[T]):
    """A view whose attributes are its value's."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        value = self._value
        if self._owner is not here.owner:
            value = self.value
        return getattr(value, name)

    def __setattr__(self, name: str, item: Any) -> None:
        if name in _OWN:
            if name in _READ_ONLY:
                raise AttributeError(f"{name} is the view's own; write view.value.{name} = ...")
            object.__setattr__(self, name, item)
            return
        value = self._value
        if self._owner is not here.owner:
            value = self.value
        setattr(value, name, item)

    def __delattr__(self, name: str) -> None:
        delattr(self.value, name)


ObjectView.__name__, ObjectView.__qualname__ = "View", "View"
_READ_ONLY: Final = frozenset({"version", "rollback"})
_OWN: Final = _READ_ONLY | {"value", "__class__", *LockToken.__slots__, *View.__slots__}


def _delegated(name: str) -> property:
    return property(lambda self: getattr(self.value, name), doc=f"The value's own ``{name}``.")


for _name in {name for kind in CONTAINERS for name in dir(kind) if name[0] != "_"}:
    setattr(View, _name, _delegated(_name))


refuse_arithmetic(
    View,
    "the view itself does no arithmetic, the change would be lost: write view.value {sign} ...",
)
