"""What a stored value says, without running any of it.

An unpickler that makes plain data, and placeholders of all else. It looks no name up, imports
nothing and calls nothing: where a stream asks for a call, the placeholder says which. So it may be
shown anything, whoever has written it.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Callable, Sequence
from reprlib import recursive_repr
from typing import Any, ClassVar, Final

from . import definitions as _definitions
from .known import Definitions

_RESOLVE: Final = f"{_definitions.__name__}.{_definitions.resolve.__name__}"
_SETTERS: Final = (
    "cloudpickle.cloudpickle._function_setstate",
    "cloudpickle.cloudpickle._class_setstate",
)
_SHARE: Final = "mmapshare._shared.base._open_shared"
_FUNCTION: Final = "cloudpickle.cloudpickle._make_function"
_FROM_BUFFER: Final = ("numpy._core.numeric._frombuffer", "numpy.core.numeric._frombuffer")
_RECONSTRUCT: Final = (
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray._reconstruct",
)


class Placeholder:
    """Stands for an object that was not made: by what name, of what arguments, with what state.

    One without arguments is the thing of that name itself. Equal ones say the same.
    """

    __slots__ = ("args", "items", "kwargs", "name", "state")

    def __init__(
        self, name: str, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None
    ) -> None:
        self.name = name
        self.args = args
        self.kwargs = kwargs or {}
        self.state: Any = None
        self.items: list[Any] = []

    # What a stream puts into containers.

    def append(self, item: Any) -> None:
        self.items.append(item)

    add = append

    def extend(self, items: Sequence[Any]) -> None:
        self.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Placeholder) and self._said() == other._said()

    def __hash__(self) -> int:
        # Keys may be many of one class; what is asked for them stands when they become keys.
        return hash(repr(self))

    def _said(self) -> tuple[Any, ...]:
        return self.name, self.args, self.kwargs, self.state, self.items

    @recursive_repr("<...>")
    def __repr__(self) -> str:
        if self.args is None:
            return f"<{self.name}>"
        for special in (_array, _function, _attribute, _share):
            with contextlib.suppress(TypeError, ValueError, LookupError, AttributeError):
                return f"<{special(self)}>"
        parts = [repr(arg) for arg in self.args]
        parts += [f"{name}={value!r}" for name, value in self.kwargs.items()]
        parts += [_item(item) for item in self.items]
        for state in _states(self.state):
            if isinstance(state, dict):
                parts += [f"{name}={value!r}" for name, value in state.items()]
            elif state is not None:
                parts.append(repr(state))
        return f"<{self.name}({', '.join(parts)})>"


def _states(state: Any) -> Sequence[Any]:
    """That of the attributes, and that of slots."""
    return state if isinstance(state, tuple) and len(state) == 2 else (state,)


def _item(item: Any) -> str:
    if isinstance(item, tuple) and len(item) == 2:
        return f"{item[0]!r}: {item[1]!r}"
    return repr(item)


# Words for some that are stored often; ValueError, or whatever comes up, for what is none of those.


def _array(found: Placeholder) -> str:
    """Of numpy's arrays, which say all that matters before their bytes."""
    if found.name in _FROM_BUFFER:
        _, dtype, shape, _ = found.args or ()
    elif found.name in _RECONSTRUCT:
        _, shape, dtype, _, _ = found.state
    else:
        raise ValueError
    return f"numpy.ndarray {dtype.args[0]} {shape!r}"


def _function(found: Placeholder) -> str:
    if found.name != _FUNCTION:
        raise ValueError
    _, slots = found.state
    return f"function {slots['__qualname__']}"


def _share(found: Placeholder) -> str:
    """A share within a value, by its region."""
    if found.name != _SHARE:
        raise ValueError
    cls, handle, *_ = found.args or ()
    return f"{cls.name.rpartition('.')[2]} {handle.state['region_id'].hex()[:8]}"


def _attribute(found: Placeholder) -> str:
    """An attribute of something by its name, as a member of an enum is stored."""
    if found.name != "getattr":
        raise ValueError
    of, name = found.args or ()
    return f"{of.name}.{name}"


class _Sketcher(pickle._Unpickler):
    """Python's own unpickler, in which all that would import or call makes a placeholder."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    definitions: Definitions

    def find_class(self, module: str, name: str) -> Any:
        return Placeholder(name if module in {"builtins", "__builtin__"} else f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        return Placeholder("persistent", (pid,))

    def get_extension(self, code: int) -> None:
        self.append(Placeholder(f"extension {code}"))

    def _instantiate(self, cls: Any, args: Any) -> None:
        self.append(_called(cls, args))

    def _reduce(self) -> None:
        args, called = self.stack.pop(), self.stack.pop()
        found = _called(called, args)
        if found.name == _RESOLVE:
            found = Placeholder(self._defined(args[0]))
        if found.name in _SETTERS and isinstance(args[0], Placeholder):
            args[0].state = args[1]
        self.append(found)

    def _new(self) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        self.append(_called(cls, args))

    def _new_with_keywords(self) -> None:
        kwargs, args, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.append(_called(cls, args, kwargs))

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Placeholder):
            self.stack[-1].state = state

    def _read_only(self) -> None:
        """A buffer is nothing that could be written to."""

    def _defined(self, key: Any) -> str:
        """The name of a class or of code that is stored by a definition."""
        body = self.definitions[key][0] if key in self.definitions else b""
        found = _load(body, (), {}) if body else None
        if isinstance(found, tuple):  # A class: its header, and how it is made.
            _, _, module, name, *_ = _load(found[0], (), {})
            return f"{module}.{name}"
        return "code"


_Sketcher.dispatch |= {
    pickle.REDUCE[0]: _Sketcher._reduce,
    pickle.NEWOBJ[0]: _Sketcher._new,
    pickle.NEWOBJ_EX[0]: _Sketcher._new_with_keywords,
    pickle.BUILD[0]: _Sketcher._build,
    pickle.READONLY_BUFFER[0]: _Sketcher._read_only,
}


def _called(what: Any, args: Any, kwargs: Any = None) -> Placeholder:
    name = what.name if isinstance(what, Placeholder) and what.args is None else repr(what)
    return Placeholder(name, tuple(args), kwargs)


def _load(stream: bytes, buffers: Sequence[Any], definitions: Definitions) -> Any:
    sketcher = _Sketcher(io.BytesIO(stream), buffers=buffers)
    sketcher.definitions = definitions
    return sketcher.load()


def sketch(frames: Sequence[Any], definitions: Definitions | None = None) -> Any:
    """What frames say, plain data as it is; any exception where they are damaged.

    The further frames, which are the memory of arrays, may be anything. ``definitions``: where they
    are, of a value that was encoded with them apart.
    """
    frame = bytes(frames[0])
    stream = _definitions.stream_of(frame, definitions is not None)
    if definitions is None:
        behind = frame[len(stream) : -_definitions._SIZE_BYTES]
        definitions = _load(behind, (), {}) if behind else {}
    return _load(stream, frames[1:], definitions)


def decode_key(raw: bytes) -> Any:
    """A key, or a manifest; see `_store.base.KeyCodec`."""
    return sketch((raw,))
