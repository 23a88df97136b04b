"""Objects to frames and back: pickle's speed, cloudpickle's reach.

Plain pickle goes first. Where it refuses, or would name the program's own ``__main__``, which
other processes may not have, cloudpickle takes over and writes by value.

A value of plain data is one frame: its pickle stream. Otherwise the frames are the stream, the
definitions that it names (see `_definitions`; maybe empty), and the buffers of its arrays, which
protocol 5 leaves out of band: they are copied once, straight into the region.

`encode` and `decode` may be called by any thread at any time, also from within each other.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import cloudpickle

from . import _definitions
from ._blame import blame
from .errors import CorruptRegionError, MmapShareError, UnpicklableError

Frame = bytes | bytearray | memoryview

_OUT_OF_BAND_LEAST: Final = 4096
"""Smaller buffers stay in the stream: a frame of their own costs more than a copy."""
EMPTY_SET: Final = 0x8F
FROZENSET: Final = 0x91
"""The opcodes one of which stands in every stream that has a set: see `reordered`."""
_MAIN: Final = b"_main__"
"""Stands in every stream that names ``__main__`` or ``__mp_main__``."""

_REFUSALS: Final = (pickle.PicklingError, TypeError, AttributeError, ValueError, RuntimeError)
"""How objects say that they cannot be pickled."""

_dumps = pickle.dumps
_loads = pickle.loads
_taken_by_value: set[str] = getattr(cloudpickle.cloudpickle, "_PICKLE_BY_VALUE_MODULES", {"?"})
"""Modules that the user told cloudpickle to take by value. The set itself: its public accessor
copies it, and this is asked at each commit. Were it gone, all would go cloudpickle's way."""


def encode(value: object) -> tuple[Frame, ...]:
    """The frames of a value. They may alias its arrays: store them before the caller goes on.

    UnpicklableError, naming the part at fault, where the value cannot be pickled.
    """
    try:
        stream = _dumps(value, 5, buffer_callback=_has_buffers)
    except _REFUSALS:
        pass  # There are buffers, or cloudpickle can do more, or it knows better why not.
    except (MemoryError, MmapShareError):
        raise
    except Exception as err:  # Perhaps a signal handler's, which must not be lost.
        raise _unpicklable(value, err) from err
    else:
        if not stream.partition(_MAIN)[1] and not _taken_by_value:
            return (stream,)
    return _encode_by_value(value)


def _has_buffers(buffer: pickle.PickleBuffer) -> NoReturn:
    raise ValueError("not for the quick way")


def _keeper(kept: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    """A buffer_callback that takes large buffers out of the stream."""

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if len(raw) < _OUT_OF_BAND_LEAST:
            return True
        kept.append(raw)
        return False

    return keep


def _encode_by_value(value: object) -> tuple[Frame, ...]:
    file, buffers = io.BytesIO(), list[memoryview]()
    pickler = _definitions.Pickler(file, _keeper(buffers))
    try:
        pickler.dump(value)
    except (MemoryError, MmapShareError):
        raise
    except Exception as err:
        raise _unpicklable(value, err) from err
    stream = file.getvalue()
    if not pickler.needs and not buffers:
        return (stream,)
    return (stream, _definitions.bundle(pickler.needs.values()), *buffers)


def _unpicklable(value: object, err: Exception) -> UnpicklableError:
    path, culprit = blame(value, _can_encode)
    return UnpicklableError(
        f"cannot be pickled: {path}: {culprit} ({type(err).__name__}: {err}). "
        "Leave it out, or store what it can be rebuilt from",
        path=path,
    )


def _can_encode(value: object) -> bool:
    try:
        _definitions.Pickler(io.BytesIO()).dump(value)
    except Exception:
        return False
    return True


def reordered(frames: Sequence[Frame], before: Sequence[Frame] | None) -> bool:
    """Whether ``frames`` are those of the unchanged value of ``before``, its sets in new order.

    A set that is built again from its own members may list them in another order.
    """
    if not before or len(before) > 2 or len(frames[0]) != len(before[0]):
        return False
    return encode(decode(before)) == frames


def decode(frames: Sequence[Frame]) -> Any:
    """A fresh value from frames; large buffers become its memory, so they must be its own.

    CorruptRegionError where they cannot be loaded here; its cause says why.
    """
    try:
        if len(frames) == 1:
            return _loads(frames[0])
        return _definitions.loads(frames[0], frames[1], frames[2:])
    except (MemoryError, MmapShareError):
        raise
    except Exception as err:
        raise CorruptRegionError(
            f"the stored value cannot be loaded in this process ({type(err).__name__}: {err}): "
            "a module that it needs is missing here, its own code refused, or its bytes were "
            "overwritten"
        ) from err
