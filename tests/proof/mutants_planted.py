"""Planted bugs that `mutants` and `mutants_outside` must catch."""

from __future__ import annotations

import os
import signal

from mmapshare import Share, _codec, _deadlock, _dict, _layout, _log, _region
from mmapshare._layout import FLOOR, IDENTITY_BYTES, VERSION


class _Whatever(int):
    """A checksum that is always right."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def _head_unchecked() -> None:
    """A slot whose check is not looked at."""
    _layout._check = lambda *words: _Whatever()


def _head_out_of_bounds() -> None:
    """A record may be anywhere."""

    def unpack_head(raw, version, area_bytes):
        *fields, check = _layout.unpack_head_words(raw)
        head = _layout.Head._make(fields)
        return head if check == _layout._check(*head) and head.version == version else None

    _layout.unpack_head = unpack_head


def _table_unchecked() -> None:
    """A table of frames whose checksum is not looked at."""
    real = _layout.frame_extents

    def frame_extents(head, table):
        return real(head._replace(parts=head.frames | _layout.crc32(table) << 32), table)

    _layout.frame_extents = frame_extents


def _record_unchecked() -> None:
    """Heads of records and directories whose checksum is not looked at."""
    _log.crc32 = lambda raw: _Whatever()


def _allocated_believed() -> None:
    """What the header says of an area's memory is taken for true: it may be the other's."""
    _region.Region._allocated = lambda self, area: self._words[_layout.ALLOCATED[area]]


def _errors_let_out() -> None:
    """Whatever unpickling raises comes out as it is."""

    def recover(frames, err, definitions=None):
        raise err

    _codec.recover = _dict.recover = recover


def _floor_believed() -> None:
    """A reader waits for a version that the FLOOR word says has come, and which never does."""

    def try_read(region, real=_region.Region.try_read):
        if region._words[FLOOR] > region._words[VERSION]:
            return None
        return real(region)

    def copy_current(region):
        while (commit := region.try_read()) is None:
            pass
        return commit

    _region.Region.try_read, _region.Region._copy_current = try_read, copy_current


def _floor_followed() -> None:
    """A reader that falls into nothing where the FLOOR word is ahead."""

    def try_read(region, real=_region.Region.try_read):
        if region._words[FLOOR] > region._words[VERSION]:
            os.kill(os.getpid(), signal.SIGSEGV)
        return real(region)

    _region.Region.try_read = try_read


def _size_unchecked() -> None:
    """A file may be shorter than its header says."""

    class Region(_region.Region):
        __slots__ = ()

        def __init__(self, segment):
            segment.size_bytes = _layout.Identity.unpack(segment.map[:IDENTITY_BYTES]).region_bytes
            super().__init__(segment)

    Share._region_class = Region


def _anything_opened() -> None:
    """What a header leads to is opened, whatever it is."""

    def header(path):
        try:
            with open(path, "rb", buffering=0) as file:
                return file.read(_deadlock._words.size)
        except OSError:
            return b""

    _deadlock._header = header


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
