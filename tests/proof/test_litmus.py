"""Nothing that a commit's order rests on is missing on ARM: see `litmus`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from litmus import (
    FULL,
    LOADS,
    can,
    fence,
    hand_over,
    in_order,
    load,
    parts_of,
    store,
    syscall,
    taken_over,
    without,
)
from support import cores

# --- The judge itself, by what is known of the model -------------------------------------------

_W, _R = store, load
_KNOWN = {
    "MP": (False, [[_W("x", 1), _W("y", 1)], [_R("a", "y"), _R("b", "x")]]),
    "MP+rel+acq": (True, [[_W("x", 1), _W("y", 1, release=True)],
                          [_R("a", "y", acquire=True), _R("b", "x")]]),
    "MP+rel+po": (False, [[_W("x", 1), _W("y", 1, release=True)], [_R("a", "y"), _R("b", "x")]]),
    "MP+po+acq": (False, [[_W("x", 1), _W("y", 1)], [_R("a", "y", acquire=True), _R("b", "x")]]),
    "MP+dmb+addr": (True, [[_W("x", 1), fence(FULL), _W("y", 1)],
                           [_R("a", "y"), _R("b", "x", by="a")]]),
    "MP+dmb+dmb.ld": (True, [[_W("x", 1), fence(FULL), _W("y", 1)],
                             [_R("a", "y"), fence(LOADS), _R("b", "x")]]),
    "MP+dmb.ld+dmb.ld": (False, [[_W("x", 1), fence(LOADS), _W("y", 1)],
                                 [_R("a", "y"), fence(LOADS), _R("b", "x")]]),
    "CoRR": (True, [[_W("x", 1)], [_R("a", "x"), _R("b", "x")]]),
    "WRC": (False, [[_W("x", 1)], [_R("c", "x"), _W("y", 1)], [_R("a", "y"), _R("b", "x")]]),
    "WRC+dmb+addr": (True, [[_W("x", 1)], [_R("c", "x"), fence(FULL), _W("y", 1)],
                            [_R("a", "y"), _R("b", "x", by="a")]]),
    "ISA2+rels+acqs": (True, [[_W("x", 1), _W("y", 1, release=True)],
                              [_R("c", "y", acquire=True), _W("z", 1, release=True)],
                              [_R("a", "z", acquire=True), _R("b", "x")]]),
}  # fmt: skip
"""Whether it is forbidden that ``a`` (and ``c``) is new and ``b`` is old."""
_OTHERS = {
    "SB": (False, [[_W("x", 1), _R("a", "y")], [_W("y", 1), _R("b", "x")]], (0, 0)),
    "SB+dmbs": (True, [[_W("x", 1), fence(FULL), _R("a", "y")],
                       [_W("y", 1), fence(FULL), _R("b", "x")]], (0, 0)),
    "SB+dmb+po": (False, [[_W("x", 1), fence(FULL), _R("a", "y")],
                          [_W("y", 1), _R("b", "x")]], (0, 0)),
    "SB+dmb.lds": (False, [[_W("x", 1), fence(LOADS), _R("a", "y")],
                           [_W("y", 1), fence(LOADS), _R("b", "x")]], (0, 0)),
    "SB+rel-acqs": (True, [[_W("x", 1, release=True), _R("a", "y", acquire=True)],
                           [_W("y", 1, release=True), _R("b", "x", acquire=True)]], (0, 0)),
    "SB+rels": (False, [[_W("x", 1, release=True), _R("a", "y")],
                        [_W("y", 1, release=True), _R("b", "x")]], (0, 0)),
    "LB": (False, [[_R("a", "x"), _W("y", 1)], [_R("b", "y"), _W("x", 1)]], (1, 1)),
    "LB+acqs": (True, [[_R("a", "x", acquire=True), _W("y", 1)],
                       [_R("b", "y", acquire=True), _W("x", 1)]], (1, 1)),
    "IRIW": (False, [[_W("x", 1)], [_W("y", 1)], [_R("a", "x"), _R("c", "y")],
                     [_R("b", "y"), _R("d", "x")]], (1, 1, 0, 0)),
    "IRIW+addrs": (True, [[_W("x", 1)], [_W("y", 1)], [_R("a", "x"), _R("c", "y", by="a")],
                          [_R("b", "y"), _R("d", "x", by="b")]], (1, 1, 0, 0)),
}  # fmt: skip
"""The same for what ``a``, ``b``, ``c`` and ``d`` find."""


@pytest.mark.parametrize("name", _KNOWN)
def test_messages_are_passed_as_the_model_says(name):
    forbidden, threads = _KNOWN[name]
    assert can({}, threads, lambda f: f["a"] == f.get("c", 1) == 1 and f["b"] == 0) is not forbidden


@pytest.mark.parametrize("name", _OTHERS)
def test_other_shapes_are_judged_as_the_model_says(name):
    forbidden, threads, found = _OTHERS[name]
    bad = dict(zip("abcd", found))
    assert can({}, threads, lambda f: f == bad) is not forbidden


# --- What the core and Python do ---------------------------------------------------------------
# Two words stand for a slot, and two for a record. What is named can be left out.


def _commit_by_c(version, *record):
    slot = f"slot {version & 1}"
    return [
        fence(FULL, "before_reuse"),
        *(store(place, version) for place in record),
        store(f"{slot} a", version),
        store(f"{slot} b", version),
        store("VERSION", version, release=True, part="commit_version"),
    ]


def _commit_by_python(version, *record):
    slot = f"slot {version & 1}"
    return [
        *(store(place, version) for place in record),
        *in_order("in_order before the slot", at=f"first lock {version}"),
        store(f"{slot} a", version),
        store(f"{slot} b", version),
        *in_order("in_order before the version", at=f"second lock {version}"),
        store("VERSION", version),
    ]


def _load_slot(version):
    slot = f"slot {version & 1}"
    return [
        load("version", "VERSION", acquire=True, part="version_of"),
        load("a", f"{slot} a"),
        load("b", f"{slot} b"),
        fence(LOADS, "after_copy of the slot"),
        load("again", "VERSION"),
    ]


def _load_slot_by_python(version):
    slot = f"slot {version & 1}"
    return [
        load("version", "VERSION"),
        load("a", f"{slot} a", by="version"),
        load("b", f"{slot} b", by="version"),
        *in_order("in_order behind the slot", at="reader's lock"),
        load("again", "VERSION"),
    ]  # It looks in between too, which alone would not do.


_COPY = [
    load("c", "record c"),
    load("d", "record d"),
    fence(LOADS, "after_copy of the record"),
    load("oldest", "OLDEST_READABLE"),
]
_RECORD = ("record c", "record d")
_FIRST = {"VERSION": 1, "slot 1 a": 1, "slot 1 b": 1, "record c": 1, "record d": 1}
"""Version 1 has been committed."""


def _mixed(version):
    """A slot that is trusted has another version's words."""
    return lambda f: f["version"] == f["again"] == version and {f["a"], f["b"]} != {version}


def _stale(f):
    """So has a record; or its slot."""
    return f["version"] == f["again"] == 2 and {f["a"], f["b"], f["c"], f["d"]} != {2}


def _overwritten(f):
    """A record of version 1 is trusted, and another's words stand there."""
    return f["oldest"] <= 1 and {f["c"], f["d"]} != {1} and f.get("handed", 1)


def _turn(part=""):
    return [store("OLDEST_READABLE", 2), *in_order(part, at="turn's lock")]


_GIL = [*in_order(at="the GIL"), *syscall("flock"), *in_order(at="the GIL again")]
"""fcntl.flock lets go of the GIL and takes it again."""


def _wakes(*commit_and_release):
    return [
        [store("LEASE", 1), fence(FULL), load("slept at", "VERSION")],  # The kernel's, in futex.
        [*commit_and_release, load("lease", "LEASE")],
    ]


def _sleeps_on(f):
    return f["slept at"] == 1 and f["lease"] == 0


_PROGRAMS = {
    "a commit of C": (
        [_commit_by_c(2, *_RECORD), [*_load_slot(2), *_COPY]],
        _stale, {"commit_version", "version_of"},
    ),
    "a commit of Python's": (
        [_commit_by_python(2, *_RECORD), [*_load_slot(2), *_COPY]],
        _stale, {"in_order before the version", "version_of"},
    ),
    "a slot is used again by C": (
        [[store("VERSION", 2, release=True), *_commit_by_c(3)], _load_slot(1)],
        _mixed(1), {"before_reuse", "after_copy of the slot"},
    ),
    "a slot is used again by Python": (
        [[store("VERSION", 2), *_commit_by_python(3)], _load_slot(1)],
        _mixed(1), {"in_order before the slot", "after_copy of the slot"},
    ),
    "a slot is used again by the next holder": (
        [[store("VERSION", 2), hand_over()], [taken_over(), store("slot 1 a", 3)], _load_slot(1)],
        lambda f: f["handed"] and _mixed(1)(f), {"after_copy of the slot"},
    ),
    "an area is used again": (
        [[*_turn("in_order of a turn"), store("record c", 3), store("record d", 3)], _COPY],
        _overwritten, {"in_order of a turn", "after_copy of the record"},
    ),
    "an area is used again by C": (
        [[store("OLDEST_READABLE", 2), *_commit_by_c(3, *_RECORD)], _COPY],
        _overwritten, {"before_reuse", "after_copy of the record"},
    ),
    "an area is used again by the next holder": (
        [[store("OLDEST_READABLE", 2), hand_over()], [taken_over(), store("record d", 3)], _COPY],
        _overwritten, {"after_copy of the record"},
    ),
    "a record of one holder, and the next one's": (
        [
            [store("record c", 2), *_commit_by_python(2)[-3:], hand_over()],
            [taken_over(), *_commit_by_c(3, "record d")],
            [*_load_slot(3)[:3], *_COPY[:2]],
        ],
        lambda f: f["handed"] and f["version"] == 3 and (f["c"], f["d"], f["a"]) != (2, 3, 3),
        {"commit_version", "version_of"},
    ),
    "Python looks at a slot of C's": (
        [[store("VERSION", 2, release=True), *_commit_by_c(3)], _load_slot_by_python(1)],
        _mixed(1), {"before_reuse", "in_order behind the slot"},
    ),
    "Python looks at a new slot": (
        [_commit_by_c(2), _load_slot_by_python(2)],
        _mixed(2), {"commit_version"},
    ),
    "C has committed, lets go of the lock, and looks for who sleeps": (
        _wakes(store("VERSION", 2, release=True, part="commit_version"), *syscall("flock")),
        _sleeps_on, {"commit_version"},
    ),
    "Python has committed, C does the rest": (
        _wakes(store("VERSION", 2), *syscall("flock"), fence(FULL, "after_release")),
        _sleeps_on, {"after_release"},
    ),
    "Python lets go of the lock, and looks for who sleeps": (
        _wakes(store("VERSION", 2), *_GIL), _sleeps_on, set(),
    ),
    "each of two sets one share and gets the other": (
        [
            [store("x", 1, release=True, part="commit_version"),
             load("y", "y", acquire=True, part="version_of")],
            [store("y", 1, release=True, part="commit_version"),
             load("x", "x", acquire=True, part="version_of")],
        ],
        lambda f: f["x"] == f["y"] == 0, {"commit_version", "version_of"},
    ),
}  # fmt: skip
"""The threads, what must not be found, and which parts that rests on."""


@pytest.mark.parametrize("name", _PROGRAMS)
def test_nothing_torn_or_stale_is_trusted(name):
    threads, is_bad, needed = _PROGRAMS[name]
    assert not can(_FIRST, threads, is_bad)
    found = {part for part in parts_of(threads) if can(_FIRST, without(threads, part), is_bad)}
    assert found == needed


def test_each_part_is_needed_somewhere():
    parts = {part for threads, _, _ in _PROGRAMS.values() for part in parts_of(threads)}
    assert parts == {part for _, _, needed in _PROGRAMS.values() for part in needed}


# --- What the compiler makes of it -------------------------------------------------------------

_COMPILED = {
    "version_of": ["ldar"],
    "commit_version": ["stlr"],
    "after_copy": ["dmb ishld"],
    "before_reuse": ["dmb ish"],
    "after_release": ["dmb ish"],
    "load_slot": ["after_copy", "word"],
    "catch_up": ["version_of", "load_slot", "after_copy", "word"],
    "follow_records": ["version_of", "load_slot", "after_copy", "word"],
    "dict_get": ["version_of", "after_copy", "word"],
    "publish": ["commit_version"],
    "commit_value": ["version_of", "before_reuse", "publish"],
    "append_one": ["version_of", "before_reuse", "publish"],
    "release": ["flock_now", "after_release", "word"],
}
"""What comes in each function, in this order."""


_HEADERS = f"-I{sysconfig.get_path('include')}"


def _arm_compiler():
    """One that finds Python's headers: Debian's are each for one machine."""
    if cores.why_not():
        return None
    found = [shutil.which("aarch64-linux-gnu-gcc") or ""]
    if os.uname().machine == "aarch64":
        found = cores.compiler()
    try:
        subprocess.run([*found, _HEADERS, "-fsyntax-only", "-x", "c", "-"],
                       input=b"#include <Python.h>", check=True, capture_output=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return found


@pytest.mark.skipif(_arm_compiler() is None, reason="no compiler for ARM")
def test_the_compiled_core_has_these_in_this_order(tmp_path):
    made = tmp_path / "core.s"
    source = Path(cores.__file__).parents[2] / cores.CORE_FILE
    subprocess.run([*_arm_compiler(), _HEADERS, "-O2", "-fno-inline", "-S", str(source),
                    "-o", str(made)], check=True)  # fmt: skip
    inside, name = {}, ""
    for line in made.read_text().replace("\t", " ").splitlines():
        if label := re.match(r"(\w+)(?:\.\w+)*:", line):
            name = label[1]
        elif op := re.match(r" (?:bl? (\w+)|(ldar|stlr|dmb ishld|dmb ish)\b)", line):
            inside.setdefault(name, []).append(op[1] or op[2])
    for name, wanted in _COMPILED.items():
        found = iter(inside[name])
        assert all(one in found for one in wanted), (name, inside[name])
