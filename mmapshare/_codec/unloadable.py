"""Why a stored value does not load: its bytes are damaged, or something that it names refuses.

A value is loaded again, slowly, by pickle's own Python code, which is watched: what it calls
belongs to the value, what it does by itself goes wrong only where bytes were overwritten. That runs
the value's code a second time, and only once loading has failed.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from .._late import importing
from ..errors import CorruptRegionError, MmapShareError, UnloadableError
from .definitions import stream_of

_SCANNED_BYTES: Final = 1 << 20
_MEMO_PUTS: Final = frozenset({"PUT", "LONG_BINPUT"})
"""Opcodes that make room for as many objects as they say."""


def why(frames: Sequence[Any], err: Exception, apart: bool = False) -> MmapShareError:
    """What to raise for ``err``, which came up when these frames were loaded.

    ``apart``: their definitions are stored apart.
    """
    if isinstance(err, RecursionError):
        return _error(None, f"nested too deeply, or loaded deep within a recursion ({said(err)})")
    small = len(frames[0]) <= _SCANNED_BYTES
    if small and is_sound(frames[0], apart):
        watched = _Watched(io.BytesIO(frames[0]), buffers=frames[1:])
        try:
            watched.load()
        except RecursionError:
            pass
        except Exception:
            if watched.culprit is None:
                return _damaged(err)
        return _error(watched.culprit, said(err))
    if small or isinstance(err, pickle.UnpicklingError | EOFError | IndexError | MemoryError):
        return _damaged(err)
    return _error(None, said(err))


def said(err: BaseException) -> str:
    """An error in one line, whatever its own ``__str__`` does."""
    try:
        return f"{type(err).__name__}: {err}"
    except Exception:
        return type(err).__name__


def _error(name: str | None, reason: str) -> UnloadableError:
    return UnloadableError(
        f"value cannot be loaded in this process: {f'{name} ({reason})' if name else reason}. "
        "It is stored as it was: mend what it is made from here, or store another value",
        path="value",
        name=name,
    )


def _damaged(err: Exception) -> CorruptRegionError:
    return CorruptRegionError(
        f"the stored value cannot be loaded ({said(err)}): its bytes were overwritten"
    )


def is_sound(stream: Any, apart: bool = False) -> bool:
    """Whether a stream can be read from its begin to its end, and names no size beyond that."""
    with importing:
        import pickletools

    raw = bytes(stream_of(stream, apart))
    end = -1
    try:
        for opcode, argument, position in pickletools.genops(raw):
            if opcode.name in _MEMO_PUTS and int(argument or 0) > len(raw):
                return False
            end = position or 0
    except MemoryError:
        return True  # There is just not enough of it, as far as can be told.
    except Exception:  # An argument is cut off, or no opcode is.
        return False
    return end == len(raw) - 1


class _Watched(pickle._Unpickler):
    """An unpickler that knows whose code runs.

    ``culprit`` is the class or function that was called last, None while nothing is.
    """

    culprit: str | None = None
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        self.culprit = f"{module}.{name}"
        found = super().find_class(module, name)
        self.culprit = None
        return found


def _watch(opcode: bytes, whose: Callable[[Any], Any]) -> None:
    step: Callable[[Any], None] = pickle._Unpickler.dispatch[opcode[0]]

    def watched(unpickler: Any) -> None:
        called = whose(unpickler)
        unpickler.culprit = _name_of(called) if callable(called) else None
        step(unpickler)
        unpickler.culprit = None

    _Watched.dispatch[opcode[0]] = watched


def _name_of(called: Any) -> str:
    module = getattr(called, "__module__", "?")
    name = getattr(called, "__qualname__", type(called).__qualname__)
    return f"{module}.{name}"


def _container(unpickler: Any) -> Any:
    return type(unpickler.metastack[-1][-1])


_watch(pickle.REDUCE, lambda unpickler: unpickler.stack[-2])
_watch(pickle.NEWOBJ, lambda unpickler: unpickler.stack[-2])
_watch(pickle.NEWOBJ_EX, lambda unpickler: unpickler.stack[-3])
_watch(pickle.BUILD, lambda unpickler: type(unpickler.stack[-2]))
_watch(pickle.APPENDS, _container)
_watch(pickle.SETITEMS, _container)
_watch(pickle.ADDITEMS, _container)
_watch(pickle.APPEND, lambda unpickler: type(unpickler.stack[-2]))
_watch(pickle.SETITEM, lambda unpickler: type(unpickler.stack[-3]))
_watch(pickle.FROZENSET, lambda _: frozenset)
