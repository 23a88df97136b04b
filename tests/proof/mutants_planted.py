"""Planted bugs that `mutants` and `mutants_outside` must catch."""

from __future__ import annotations

import os
import signal

from support import inside
from support.inside import IDENTITY_BYTES, OLDEST_READABLE, VERSION


class _Whatever(int):
    """A checksum that is always right."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def _head_unchecked() -> None:
    """A slot whose check is not looked at."""
    inside.put("check_of_layout", lambda *words: _Whatever())


def _head_out_of_bounds() -> None:
    """A record may be anywhere."""

    def unpack_slot(raw, version, area_bytes):
        *fields, check = inside.unpack_slot_words(raw)
        head = inside.Slot._make(fields)
        return head if check == inside.check_of_layout(*head) and head.version == version else None

    inside.put("unpack_slot", unpack_slot)


def _table_unchecked() -> None:
    """A table of frames whose checksum is not looked at."""
    real = inside.frame_extents

    def frame_extents(head, table):
        return real(head._replace(parts=head.frames | inside.crc32(table) << 32), table)

    inside.put("frame_extents", frame_extents)


def _record_unchecked() -> None:
    """Heads of records and directories whose checksum is not looked at."""
    inside.put("crc32_in_log", lambda raw: _Whatever())


def _allocated_believed() -> None:
    """What the header says of an area's memory is taken for true: it may be the other's."""
    inside.put(
        "region_allocated", lambda areas, area: inside.words_of(areas)[inside.ALLOCATED[area]]
    )


def _errors_let_out() -> None:
    """Whatever unpickling raises comes out as it is."""

    def recover(frames, err, definitions=None):
        raise err

    inside.put("recover", recover)
    inside.put("recover_in_dict", recover)
    inside.put("recover_in_share", recover)


def _floor_believed() -> None:
    """A reader waits for a version that OLDEST_READABLE says has come, and which never does."""

    def try_read(store, real=inside.region_try_read):
        if inside.words_of(store)[OLDEST_READABLE] > inside.words_of(store)[VERSION]:
            return None
        return real(store)

    def undisturbed(attempt):
        while (found := attempt()) is None:
            pass
        return found

    inside.put("region_try_read", try_read)
    inside.put("undisturbed_in_memory", undisturbed)
    inside.put("undisturbed_in_value", undisturbed)


def _floor_followed() -> None:
    """A reader that falls into nothing where the OLDEST_READABLE word is ahead."""

    def try_read(store, real=inside.region_try_read):
        if inside.words_of(store)[OLDEST_READABLE] > inside.words_of(store)[VERSION]:
            os.kill(os.getpid(), signal.SIGSEGV)
        return real(store)

    inside.put("region_try_read", try_read)


def _size_unchecked() -> None:
    """A file may be shorter than its header says."""

    class Region(inside.Region):
        __slots__ = ()

        def __init__(self, segment):
            segment.size_bytes = inside.Identity.unpack(segment.map[:IDENTITY_BYTES]).region_bytes
            super().__init__(segment)

    inside.put("Region_in_memory", Region)


def _anything_opened() -> None:
    """What a header leads to is opened, whatever it is."""

    def header(path):
        try:
            with open(path, "rb", buffering=0) as file:
                return file.read(inside.deadlock_words.size)
        except OSError:
            return b""

    inside.put("deadlock_header", header)


PLANTED = {
    "head unchecked": _head_unchecked,
    "head out of bounds": _head_out_of_bounds,
    "table unchecked": _table_unchecked,
    "record unchecked": _record_unchecked,
    "allocated believed": _allocated_believed,
    "errors let out": _errors_let_out,
    "floor believed": _floor_believed,
    "floor followed": _floor_followed,
    "size unchecked": _size_unchecked,
    "anything opened": _anything_opened,
}
