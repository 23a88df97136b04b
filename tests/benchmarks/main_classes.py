"""Instances of classes that `__main__` defines, as every notebook's are.

Run as a script, the classes below are `__main__`'s, and it prints its figures as JSON.
"""

from __future__ import annotations

import enum
import json
import subprocess
import sys
from timeit import Timer

import attrs

from mmapshare import Share
from tests.benchmarks.forking import Line, forked
from tests.benchmarks.small_values import VALUE
from tests.benchmarks.table import Row, ratio_row
from tests.benchmarks.timing import take_turns

MOST = 3.0


@attrs.define
class State:
    """The small dict's content, as attributes."""

    hits: int
    name: str
    xs: list[int]


class Mood(enum.Enum):
    CALM = 1
    BUSY = "busy"


def main_classes(rounds: int) -> list[Row]:
    """Run this file as a script of its own, and hand on what it found."""
    command = [sys.executable, __file__, str(rounds)]
    found = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return [Row(**row) for row in json.loads(found.stdout)]


def block(rounds: int) -> Row:
    """A block that adds 1 to an attribute, beside one that does so to a dict's item."""
    assert State.__module__ == "__main__"
    names = {"as_dict": Share(VALUE), "as_state": Share(State(**VALUE))}
    timers = {
        "dict": Timer("with as_dict.locked() as view: view['hits'] += 1", globals=names),
        "attrs": Timer("with as_state.locked() as view: view.hits += 1", globals=names),
    }
    times = take_turns(timers, rounds)
    title = "`locked()` block, attrs instance of a class of `__main__`"
    return ratio_row(title, times, "attrs", "dict", MOST, "the block on a dict")


def identity() -> Row:
    """Whether classes and enum members are the same objects on both sides of a fork."""
    share = Share([State(**VALUE), Mood.CALM])

    def child(line: Line) -> None:
        line.send(_are_ours(share.get(), Mood.CALM))
        share.set([State(**VALUE), Mood.BUSY])
        line.send("stored")

    with forked(child) as line:
        kept = [line.receive()]
        line.receive()
    kept.append(_are_ours(share.get(), Mood.BUSY))
    return Row(
        "enum members and `isinstance` over fork: parent to child, child to parent",
        ", ".join("kept" if each else "lost" for each in kept),
        "kept",
        all(kept),
    )


def _are_ours(value: list[object], mood: Mood) -> bool:
    return isinstance(value[0], State) and value[0] == State(**VALUE) and value[1] is mood


if __name__ == "__main__":
    print(json.dumps([attrs.asdict(row) for row in (block(int(sys.argv[1])), identity())]))
