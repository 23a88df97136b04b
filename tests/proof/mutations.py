"""Ways to change some bytes of a region, and the places where they are changed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import attrs
from regions import Damaged
from support import inside
from support.inside import ALLOCATED, HEADER_BYTES, IDENTITY_BYTES, SLOTS, VERSION

Write = tuple[int, bytes]


@attrs.frozen
class Mutant:
    """Bytes to be written into a region.

    ``where`` names the place that they are in, "mixed" where that is payload and something else.
    """

    where: str
    how: str
    writes: list[Write]

    def strike(self, damaged: Damaged) -> None:
        for at, raw in self.writes:
            damaged.map[at : at + len(raw)] = raw


HEADER = {
    "identity": (0, IDENTITY_BYTES),
    "commit": (VERSION * 8, (VERSION + 2) * 8),
    "lock": (inside.LOCK_WORDS.start * 8, inside.LOCK_WORDS.stop * 8),
    "allocated": (ALLOCATED[0] * 8, (ALLOCATED[1] + 1) * 8),
    "slot 0": (SLOTS[0].start, SLOTS[0].stop),
    "slot 1": (SLOTS[1].start, SLOTS[1].stop),
}
WEIGHTS = {"identity": 1, "commit": 3, "lock": 3, "allocated": 3, "slot 0": 3, "slot 1": 3,
           "head": 8, "payload": 5, "anywhere": 2}  # fmt: skip


def draw(rng: random.Random, damaged: Damaged) -> Mutant:
    """A mutant of the region as it stands."""
    places = {name: [zone] for name, zone in HEADER.items()}
    places |= {"head": damaged.heads, "payload": damaged.payload}
    places["anywhere"] = [zone for name, zones in places.items() if name != "payload"
                          for zone in zones]  # fmt: skip
    known = [name for name, zones in places.items() if zones]
    (where,) = rng.choices(known, [WEIGHTS[name] for name in known])
    zone = rng.choice(places[where])
    how = rng.choice(ANYWHERE if where == "anywhere" else INSIDE + SPECIAL.get(where, []))
    writes = how(rng, damaged, zone)
    if any(_meets(write, damaged.payload) for write in writes):
        where = "payload" if all(_within(write, damaged.payload) for write in writes) else "mixed"
    return Mutant(where, how.__name__.strip("_"), writes)


def _meets(write: Write, zones: list[tuple[int, int]]) -> bool:
    at, raw = write
    return any(at < end and begin < at + len(raw) for begin, end in zones)


def _within(write: Write, zones: list[tuple[int, int]]) -> bool:
    at, raw = write
    return any(begin <= at and at + len(raw) <= end for begin, end in zones)


def _one_byte(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    return [(rng.randrange(*zone), bytes([rng.randrange(256)]))]


def _one_bit(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    at = rng.randrange(*zone)
    return [(at, bytes([damaged.map[at] ^ 1 << rng.randrange(8)]))]


def _several_bytes(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    return [write for _ in range(rng.randrange(2, 8)) for write in _one_byte(rng, damaged, zone)]


def _run_of_bytes(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    at, end = _range(rng, zone)
    return [(at, rng.randbytes(end - at))]


def _zeros(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    at, end = _range(rng, zone)
    return [(at, bytes(end - at))]


def _cut_off(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    """From some byte on there is nothing, as after a write that was not finished."""
    at = rng.randrange(*zone)
    return [(at, bytes(zone[1] - at))]


def _one_word(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    at = _word_at(rng, zone)
    return [(at, _hostile(rng, damaged, at).to_bytes(8, "little"))]


def _two_words(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    return _one_word(rng, damaged, zone) + _one_word(rng, damaged, zone)


def _swapped_words(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    one, other = _word_at(rng, zone), _word_at(rng, zone)
    return [(one, damaged.map[other : other + 8]), (other, damaged.map[one : one + 8])]


def _swapped_across(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    """A word of this place and one of any other change places."""
    one, other = _word_at(rng, zone), _any_word_at(rng, damaged)
    return [(one, damaged.map[other : other + 8]), (other, damaged.map[one : one + 8])]


def _swapped_slots(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    return [(SLOTS[0].start, damaged.map[SLOTS[1]]), (SLOTS[1].start, damaged.map[SLOTS[0]])]


def _copied_slot(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    one = rng.randrange(2)
    return [(SLOTS[one].start, damaged.map[SLOTS[1 - one]])]


def _copied(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    """Bytes of this region in another place of it."""
    at, end = _range(rng, zone)
    other = _any_word_at(rng, damaged) + rng.choice((0, 0, rng.randrange(8)))
    return [(at, damaged.map[other : other + end - at])]


def _of_an_older_version(
    rng: random.Random, damaged: Damaged, zone: tuple[int, int]
) -> list[Write]:
    """What stood in this place before: a store that was undone."""
    header = rng.choice(damaged.stages).pieces[0][1]
    at, end = _range(rng, zone)
    return [(at, header[at:end])]


def _other_identity(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    """Another region's, or one of another format or size, its check included."""
    mine = damaged.store.region.identity
    other = inside.Identity(rng.randbytes(16), mine.max_size, mine.area_bytes, mine.kind)
    what = rng.randrange(4)
    if what == 0:
        other = mine._replace(area_bytes=rng.choice((0, 1, HEADER_BYTES, 1 << 63, (1 << 64) - 1)))
    raw = other.pack()
    if what == 1:
        body = bytearray(raw[:-8])
        at = 8 * rng.randrange(2)
        body[at : at + 8] = rng.randrange(100, 1 << 60).to_bytes(8, "little")
        raw = bytes(body) + inside.pack_word(inside.crc32(bytes(body)))
    return [(0, raw)]


def _out_of_its_area(rng: random.Random, damaged: Damaged, zone: tuple[int, int]) -> list[Write]:
    """A slot whose check is right, and whose record cannot be where it says."""
    version, start, end, run, parts, _ = inside.unpack_slot_words(
        damaged.map[slice(zone[0], zone[0] + inside.SLOT_BYTES)]
    )
    area = inside.area_bytes_of(damaged.store)
    middle, most = HEADER_BYTES + area, HEADER_BYTES + 2 * area
    start, end = rng.choice(
        [
            (0, end),
            (HEADER_BYTES - 64, end),
            (start, most + rng.choice((1, 64, 1 << 40))),
            (middle - 64, middle + rng.choice((1, 64, 4096))),
            (most, most + 64),
            (1 << 63, (1 << 63) + 64),
            (end + 64, start),
        ]
    )
    return [(zone[0], inside.pack_slot(version, start, end, run, parts))]


INSIDE = [_one_byte, _one_byte, _one_bit, _several_bytes, _run_of_bytes, _zeros, _cut_off,
          _one_word, _one_word, _two_words, _swapped_words, _swapped_across, _copied]  # fmt: skip
SLOT = [_swapped_slots, _copied_slot, _of_an_older_version, _out_of_its_area]
SPECIAL = {
    "identity": [_other_identity],
    "commit": [_of_an_older_version, _one_word, _one_word],
    "lock": [_one_word, _two_words],
    "allocated": [_one_word, _two_words],
    "slot 0": SLOT,
    "slot 1": SLOT,
}
ANYWHERE = [_swapped_across, _swapped_slots, _copied, _one_word]

How = Callable[[random.Random, Damaged, tuple[int, int]], list[Write]]


def _range(rng: random.Random, zone: tuple[int, int]) -> tuple[int, int]:
    one, other = rng.randrange(*zone), rng.randrange(*zone)
    return min(one, other), max(one, other) + 1


def _word_at(rng: random.Random, zone: tuple[int, int]) -> int:
    """The place of a word that begins in the zone. (A payload need not fill one.)"""
    return (rng.randrange(zone[0], max(zone[1] - 7, zone[0] + 1)) + 7) & -8


def _any_word_at(rng: random.Random, damaged: Damaged) -> int:
    return _word_at(rng, rng.choice([*HEADER.values(), *damaged.heads, *damaged.payload]))


def _hostile(rng: random.Random, damaged: Damaged, at: int) -> int:
    """A value for a word: an edge of its range, or near to what it was, or of another word."""
    area = inside.area_bytes_of(damaged.store)
    begin, middle, end = (HEADER_BYTES + n * area for n in range(3))
    near = int.from_bytes(damaged.map[at : at + 8], "little")
    other = _any_word_at(rng, damaged)
    value = rng.choice(
        [
            0,
            1,
            rng.choice((1 << 31, (1 << 32) - 1, 1 << 32, 1 << 62, (1 << 63) - 1)),
            1 << 63,
            (1 << 64) - 1,
            near + rng.choice((-64, -8, -2, -1, 1, 2, 8, 64)),
            near ^ 1 << rng.randrange(64),
            rng.choice((begin, middle, end)) + rng.choice((-4096, -64, -1, 0, 1, 64, 4096)),
            rng.choice((os.getpid(), os.getppid(), 1, 4_000_000, (1 << 32) + os.getpid())),
            int.from_bytes(damaged.map[other : other + 8], "little"),
            rng.getrandbits(64),
        ]
    )
    return value & ((1 << 64) - 1)
