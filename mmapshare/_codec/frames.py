"""Objects to frames and back: pickle's speed, cloudpickle's reach.

Plain pickle goes first. Where it refuses, or would name the program's own ``__main__``, which
other processes may not have, cloudpickle takes over and writes by value.

The first frame is the pickle stream. What the stream names by key, its definitions (see
`_codec.definitions`), stands behind its end, where unpickling does not look: only who meets an
unknown key does. Where many values share their definitions, only the keys stand there. Further
frames are the buffers of large arrays, which protocol 5 leaves out of band: they are copied once,
straight into the region.

`encode` and `decode` may be called by any thread at any time, also from within each other.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import cloudpickle

from .._bytes import Frame
from ..errors import CorruptRegionError, MmapShareError, UnloadableError, UnpicklableError
from . import definitions as _definitions
from . import known as _known
from . import tensors as _tensors
from .diagnose import blame
from .known import Definitions, Stored, UnknownDefinitionError
from .pickler import Chunks, Pickler, changed_meanwhile, is_too_deep, look_at_reducers
from .unloadable import is_sound, said, why

Gathered = dict[bytes, Stored]
"""Definitions that are stored apart from values, by key."""

_OUT_OF_BAND_LEAST: Final = 4096
"""Smaller buffers stay in the stream: a frame of their own costs more than a copy."""
EMPTY_SET: Final = pickle.EMPTY_SET[0]
FROZENSET: Final = pickle.FROZENSET[0]
"""Opcodes one of which stands in every stream that has a set."""
GLOBAL: Final = pickle.STACK_GLOBAL[0]
"""The opcode that stands in every stream which names a class or a function."""
_PLAIN_KEYS: Final = frozenset({str, int, bytes})
"""Types of keys that plain pickle takes, and gives back equal."""
_TRIES_MOST: Final = 100
"""How often a value is pickled that other threads change meanwhile."""
_MAIN: Final = b"_main__"
"""Stands in every stream that names ``__main__`` or ``__mp_main__``."""

_REFUSALS: Final = (pickle.PicklingError, TypeError, AttributeError)
"""How objects say that they cannot be pickled."""

_modules = sys.modules
_by_address = _known.by_address
_dumps: Callable[..., bytes] = pickle.dumps
_dump = pickle.Pickler.dump
"""Without cloudpickle's around it, which words one error anew."""
_loads = pickle.loads
_taken_by_value: set[str] = getattr(cloudpickle.cloudpickle, "_PICKLE_BY_VALUE_MODULES", {"?"})
"""Modules that the user told cloudpickle to take by value. The set itself: its public accessor
copies it, and this is asked at each commit. Were it gone, all would go cloudpickle's way."""


def encode(value: object, apart: Gathered | None = None) -> tuple[Frame, ...]:
    """The frames of a value. They may alias its arrays: store them before the caller goes on.

    With ``apart`` its definitions are put there, for who stores them once for many values, and
    only their keys stand behind its stream. UnpicklableError, naming the part at fault, where the
    value cannot be pickled.
    """
    if _by_address and id(type(value)) in _by_address:  # Plain pickle would be in vain.
        return _encode_by_value(value, apart)
    if _buffered and id(type(value)) in _buffered:
        return _encode_with_buffers(value, apart)
    try:
        stream = _dumps(value, 5, buffer_callback=_has_buffers)
    except _HasBuffersError:
        _remember(type(value))
        return _encode_with_buffers(value, apart)
    except Exception as err:
        _give_up_or_go_on(value, err)
    else:
        if GLOBAL not in stream or not (
            stream.rpartition(_MAIN)[1] or _taken_by_value or "torch" in _modules
        ):
            return (stream,)
        if _is_enough(stream):
            return (stream,)
    return _encode_by_value(value, apart)


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


_tensors.install = _install_tensors


_buffered: dict[int, weakref.ref[type]] = {}
"""Types, by id, whose values have had buffers: these are collected at once the next time."""
_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})
"""What these have in them differs from one to the next."""


def _remember(kind: type) -> None:
    key = id(kind)
    if kind not in _CONTAINERS:
        _buffered[key] = weakref.ref(kind, lambda gone: _buffered.pop(key, None))


class _HasBuffersError(Exception):
    """The value has buffers, which the quickest way does not collect."""


def _has_buffers(buffer: pickle.PickleBuffer) -> NoReturn:
    raise _HasBuffersError


def _encode_with_buffers(value: object, apart: Gathered | None) -> tuple[Frame, ...]:
    buffers = list[memoryview]()
    try:
        stream = _dumps(value, 5, buffer_callback=out_of_band(buffers))
    except Exception as err:
        _give_up_or_go_on(value, err)
    else:
        if _is_enough(stream):
            return (stream, *buffers)
    return _encode_by_value(value, apart)


def _give_up_or_go_on(value: object, err: Exception) -> None:
    """Raise what plain pickle has raised, unless cloudpickle can do more, or knows better why not.

    It may be a signal handler's, which must not be lost.
    """
    if isinstance(err, MemoryError | MmapShareError):
        try:
            raise err
        finally:
            # What its traceback leads to must not wait for the collector, which crashes on buffers
            # of memoryviews in a cycle (CPython's gh-77894, up to 3.12.6).
            del err
    if not isinstance(err, _REFUSALS) and not changed_meanwhile(err):
        raise _unpicklable(value, err) from err


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
        self.pickler = Pickler(self.chunks, out_of_band(self.buffers))


_idle: list[_Encoder] = []


def _encode_by_value(value: object, apart: Gathered | None) -> tuple[Frame, ...]:
    if "torch" in _modules:
        _tensors.learn()
    # Taken out while in use: pickling runs user code, which may store other values.
    try:
        encoder = _idle.pop()
    except IndexError:
        encoder = _Encoder()
    pickler, chunks = encoder.pickler, encoder.chunks
    look_at_reducers()
    tries = _TRIES_MOST
    while True:
        try:
            _dump(pickler, value)
            break
        except (MemoryError, MmapShareError):
            raise
        except Exception as err:
            tries -= 1
            if not tries or not changed_meanwhile(err):
                raise _unpicklable(value, err) from err
            encoder = _Encoder()
            pickler, chunks = encoder.pickler, encoder.chunks
    if pickler.needs:
        needed = _definitions.needed(pickler.needs)
        if apart is None:
            chunks.append(needed.bundle())
        else:
            chunks.append(needed.keys)
            apart.update(needed.stored)
    frames: tuple[Frame, ...] = (b"".join(chunks), *encoder.buffers)
    chunks.clear()
    encoder.buffers.clear()
    pickler.forget()
    _idle.append(encoder)
    return frames


def _unpicklable(value: object, err: Exception) -> UnpicklableError:
    if is_too_deep(err):
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
        Pickler(_Nowhere(), _leave_out).dump(value)
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


closure, needs_of = _definitions.closure, _definitions.needs_of


def decode(frames: Sequence[Frame], definitions: Definitions | None = None) -> Any:
    """A fresh value from frames; large buffers become its memory, so they must be its own.

    ``definitions``: where they are, of a value that was encoded with them apart. UnloadableError
    where something that the frames name refuses, CorruptRegionError where they are damaged; the
    cause says why.
    """
    try:
        if len(frames) == 1:
            return _loads(frames[0])
        return _loads(frames[0], buffers=frames[1:])
    except Exception as err:
        return recover(frames, err, definitions)


def recover(frames: Sequence[Frame], err: Exception, definitions: Definitions | None = None) -> Any:
    """The value of frames at whose unpickling ``err`` came up; else what `decode` raises."""
    if isinstance(err, UnknownDefinitionError):
        return _decode_after_learning(frames, definitions)
    return _refuse(frames, err, definitions is not None)


def _decode_after_learning(frames: Sequence[Frame], definitions: Definitions | None) -> Any:
    """Unpickle a value again, whose definitions this process had not met."""
    try:
        kept = _definitions.learn(frames[0], definitions)
        value = _loads(frames[0], buffers=frames[1:])
        del kept  # Until here nothing of it could be forgotten.
        return value
    except Exception as err:
        return _refuse(frames, err, definitions is not None)


def _refuse(frames: Sequence[Frame], err: Exception, apart: bool) -> NoReturn:
    """Raise what loading has raised: as it is, or as the cause of what says whose fault it is."""
    if isinstance(err, MmapShareError):
        raise err
    if isinstance(err, MemoryError) and is_sound(frames[0], apart):
        raise err
    raise why(frames, err, apart) from err


def is_plain(stream: Any) -> bool:
    """Whether a stream has neither classes nor sets: then other bytes mean another value."""
    return not (GLOBAL in stream or EMPTY_SET in stream or FROZENSET in stream)


# --- Keys, and what is said of them ----------------------------------------------------------


def encode_key(key: Any) -> bytes:
    """One frame; UnpicklableError where it, or what it is part of, cannot be pickled."""
    if type(key) in _PLAIN_KEYS:
        return _dumps(key, 5)
    stream, *buffers = encode(key)
    if buffers:
        raise UnpicklableError("a key cannot be an array", path="key")
    return bytes(stream)


def decode_key(raw: bytes) -> Any:
    """What `encode_key` made one frame of."""
    return decode((raw,))


def check_keys(keys: Sequence[Any]) -> None:
    """Refuse keys that nobody could find again; else one could lock other processes out."""
    for key in keys:
        if type(key) in _PLAIN_KEYS:
            continue
        try:
            again = decode_key(encode_key(key))
            alike = hash(again) == hash(key)
        except (CorruptRegionError, UnloadableError, TypeError) as err:
            raise UnpicklableError(
                f"the key {key!r} cannot be loaded again ({err}); use one that is hashable after "
                "pickling",
                path="key",
            ) from err
        with contextlib.suppress(Exception):  # It will not be compared: its hash has to do.
            alike = alike and bool(again == key)
        if not alike:
            raise UnpicklableError(
                f"the key {key!r} is another one after pickling, with another hash or unequal: "
                "nobody could find it; use a str, a number, a tuple or the like",
                path="key",
            )
