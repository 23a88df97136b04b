"""Objects to frames and back: pickle's speed, cloudpickle's reach.

Plain pickle goes first. Where it refuses, or would name the program's own ``__main__``, which
other processes may not have, cloudpickle takes over and writes by value.

The first frame is the pickle stream. What the stream names by key, its definitions (see
`_definitions`), stands behind its end, where unpickling does not look: only who meets an unknown
key does. Further frames are the buffers of large arrays, which protocol 5 leaves out of band:
they are copied once, straight into the region.

`encode` and `decode` may be called by any thread at any time, also from within each other.
"""

from __future__ import annotations

import pickle
import sys
from collections import ChainMap
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import cloudpickle

from . import _definitions, _tensors
from ._blame import blame
from ._definitions import UnknownDefinitionError
from ._unloadable import is_sound, said, why
from .errors import MmapShareError, UnpicklableError

Frame = bytes | bytearray | memoryview

_OUT_OF_BAND_LEAST: Final = 4096
"""Smaller buffers stay in the stream: a frame of their own costs more than a copy."""
EMPTY_SET: Final = pickle.EMPTY_SET[0]
FROZENSET: Final = pickle.FROZENSET[0]
"""Opcodes one of which stands in every stream that has a set."""
GLOBAL: Final = pickle.STACK_GLOBAL[0]
"""The opcode that stands in every stream which names a class or a function."""
STOP: Final = pickle.STOP[0]
"""The last byte of a stream that has no definitions behind it. A bundle ends with its size, whose
last byte is far below that."""
_TYPES_MOST: Final = 1000
_MAIN: Final = b"_main__"
"""Stands in every stream that names ``__main__`` or ``__mp_main__``."""

_REFUSALS: Final = (pickle.PicklingError, TypeError, AttributeError)
"""How objects say that they cannot be pickled."""

_modules = sys.modules
_dumps: Callable[..., bytes] = pickle.dumps
_loads = pickle.loads
_taken_by_value: set[str] = getattr(cloudpickle.cloudpickle, "_PICKLE_BY_VALUE_MODULES", {"?"})
"""Modules that the user told cloudpickle to take by value. The set itself: its public accessor
copies it, and this is asked at each commit. Were it gone, all would go cloudpickle's way."""


def encode(value: object) -> tuple[Frame, ...]:
    """The frames of a value. They may alias its arrays: store them before the caller goes on.

    UnpicklableError, naming the part at fault, where the value cannot be pickled.
    """
    if _by_value and type(value) in _by_value:
        return _encode_by_value(value)
    try:
        stream = _dumps(value, 5, buffer_callback=_has_buffers)
    except _HasBuffersError:
        return _encode_with_buffers(value)
    except _REFUSALS:
        pass  # cloudpickle can do more, or it knows better why not.
    except (MemoryError, MmapShareError):
        raise
    except Exception as err:  # Perhaps a signal handler's, which must not be lost.
        raise _unpicklable(value, err) from err
    else:
        if GLOBAL not in stream or not (
            stream.rpartition(_MAIN)[1] or _taken_by_value or "torch" in _modules
        ):
            return (stream,)
        if _is_enough(stream):
            return (stream,)
    return _encode_by_value(value)


def _is_enough(stream: bytes) -> bool:
    """Whether plain pickle's stream, which names classes or functions, can stay as it is."""
    return not (
        stream.rpartition(_MAIN)[1]
        or _taken_by_value
        or ("torch" in _modules and stream.rfind(b"torch") >= 0 and _tensors.learn())
    )


def _install_tensors() -> None:  # only with torch
    global _dumps  # noqa: PLW0603
    _dumps = _tensors.dumps
    _definitions.Pickler.dispatch_table = ChainMap(
        _tensors.reducers, *cloudpickle.Pickler.dispatch_table.maps
    )
    _idle.clear()  # They go by the table that was there when they were made.


_tensors.install = _install_tensors


_by_value: set[type] = set()
"""Types of ``__main__`` whose instances were stored: for them plain pickle would be in vain."""


class _HasBuffersError(Exception):
    """The value has buffers, which the quickest way does not collect."""


def _has_buffers(buffer: pickle.PickleBuffer) -> NoReturn:
    raise _HasBuffersError


def _encode_with_buffers(value: object) -> tuple[Frame, ...]:
    buffers = list[memoryview]()
    try:
        stream = _dumps(value, 5, buffer_callback=out_of_band(buffers))
    except _REFUSALS:
        pass
    else:
        if _is_enough(stream):
            return (stream, *buffers)
    return _encode_by_value(value)


def out_of_band(kept: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    """A buffer_callback that takes large buffers out of the stream."""

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if len(raw) < _OUT_OF_BAND_LEAST:
            return True
        kept.append(raw)
        return False

    return keep


class _Encoder:
    """A pickler with where it writes to, used again and again: making one takes as long."""

    __slots__ = ("buffers", "chunks", "pickler")

    def __init__(self) -> None:
        self.chunks = Chunks()
        self.buffers: list[memoryview] = []
        self.pickler = _definitions.Pickler(self.chunks, out_of_band(self.buffers))


class Chunks(list[bytes]):
    """A file for picklers to write to."""

    write = list.append


_idle: list[_Encoder] = []


def _encode_by_value(value: object) -> tuple[Frame, ...]:
    if "torch" in _modules:
        _tensors.learn()
    # Taken out while in use: pickling runs user code, which may store other values.
    try:
        encoder = _idle.pop()
    except IndexError:
        encoder = _Encoder()
    pickler, chunks = encoder.pickler, encoder.chunks
    try:
        pickler.dump(value)
    except (MemoryError, MmapShareError):
        raise
    except Exception as err:
        raise _unpicklable(value, err) from err
    if pickler.needs:
        if type(value).__module__ == "__main__" and len(_by_value) < _TYPES_MOST:
            _by_value.add(type(value))
        chunks.append(_definitions.bundle(pickler.needs.values()))
    frames: tuple[Frame, ...] = (b"".join(chunks), *encoder.buffers)
    chunks.clear()
    encoder.buffers.clear()
    pickler.forget()
    _idle.append(encoder)
    return frames


def _unpicklable(value: object, err: Exception) -> UnpicklableError:
    if isinstance(err, RecursionError) or isinstance(err.__cause__, RecursionError):
        # No part is to blame: any that is deep enough fails by itself.
        return UnpicklableError(
            f"value is nested too deeply to be pickled ({said(err)}). Store it flat: a list of "
            "its parts that refer to one another by number, or what it can be rebuilt from",
            path="value",
        )
    path, culprit = blame(value, _can_encode)
    return UnpicklableError(
        f"cannot be pickled: {path}: {culprit} ({said(err)}). "
        "Leave it out, or store what it can be rebuilt from",
        path=path,
    )


def _can_encode(value: object) -> bool:
    try:
        _definitions.Pickler(_Nowhere(), _leave_out).dump(value)
    except Exception:
        return False
    return True


class _Nowhere:
    """A file for what nobody reads."""

    def write(self, data: object) -> None:
        pass


def _leave_out(buffer: pickle.PickleBuffer) -> bool:
    """A buffer_callback that keeps nothing."""
    return False


def apart(frames: tuple[Frame, ...]) -> tuple[tuple[Frame, ...], bytes]:
    """The frames without their definitions, and these; for who stores them once for many values.

    Of frames that have some: their stream does not end with STOP. `offer` them wherever the value
    may be decoded.
    """
    stream = frames[0]
    bundle = _definitions.bundle_of(stream)
    return (stream[: len(stream) - len(bundle)], *frames[1:]), bundle


offer = _definitions.offer


def decode(frames: Sequence[Frame]) -> Any:
    """A fresh value from frames; large buffers become its memory, so they must be its own.

    UnloadableError where something that they name refuses, CorruptRegionError where they are
    damaged; the cause says why.
    """
    try:
        if len(frames) == 1:
            return _loads(frames[0])
        return _loads(frames[0], buffers=frames[1:])
    except Exception as err:
        return recover(frames, err)


def recover(frames: Sequence[Frame], err: Exception) -> Any:
    """The value of frames at whose unpickling ``err`` came up; else what `decode` raises."""
    if isinstance(err, UnknownDefinitionError):
        return _decode_after_learning(frames)
    return _refuse(frames, err)


def _decode_after_learning(frames: Sequence[Frame]) -> Any:
    """Unpickle a value again, whose definitions this process had not met."""
    try:
        _definitions.learn(frames[0])
        return _loads(frames[0], buffers=frames[1:])
    except Exception as err:
        return _refuse(frames, err)


def _refuse(frames: Sequence[Frame], err: Exception) -> NoReturn:
    """Raise what loading has raised: as it is, or as the cause of what says whose fault it is."""
    if isinstance(err, MmapShareError):
        raise err
    if isinstance(err, MemoryError) and is_sound(frames[0]):
        raise err
    raise why(frames, err) from err
