"""What makes two classes the same; what their sources say, wherever they were read."""

from __future__ import annotations

import contextlib
import os
import sys
from types import CodeType, FunctionType
from typing import Any

from .content import PLAIN, cells_of, code_facts, content_of, digest, functions_of

Source = tuple[str, int, int, tuple[tuple[str, int], ...]]
"""A file, the time and the size that it had, and the lines where a class has its methods."""


def shape_of(cls: type) -> bytes:
    """A digest of what a class can do, the same in every process that has read it.

    Of its data attributes it knows the names of the public ones, no values: they may change. An
    enum's members and their values are what it is.
    """
    facts: list[Any] = [type(cls).__qualname__, [base.__qualname__ for base in cls.__bases__]]
    for name, value in sorted(vars(cls).items()):
        functions = functions_of(value)
        if functions:
            facts.append((name, [_function_facts(part, set()) for part in functions]))
        elif not name.startswith("_"):
            facts.append(name)
        elif name == "_member_map_":
            facts += [(member, content_of(value[member].value, shallow=True)) for member in value]
    return digest(repr(facts).encode())


def _function_facts(function: FunctionType, seen: set[FunctionType]) -> tuple[Any, ...]:
    """Its code, its defaults, and what it closes over: plain values, and functions in turn."""
    if function in seen:
        return ()
    seen.add(function)
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    values = [_plain(value, seen) for value in (*defaults, *cells_of(function))]
    return (_code_facts(function.__code__), values)


def _plain(value: Any, seen: set[FunctionType]) -> Any:
    if isinstance(value, FunctionType):
        return _function_facts(value, seen)
    if type(value) is tuple:
        return [_plain(each, seen) for each in value]
    return repr(value) if type(value) in PLAIN else type(value).__qualname__


def _code_facts(code: CodeType) -> tuple[Any, ...]:
    return (*code_facts(code), [_constant_facts(constant) for constant in code.co_consts])


def _constant_facts(constant: Any) -> Any:
    if isinstance(constant, CodeType):
        return _code_facts(constant)
    return content_of(constant)


_files: dict[str, tuple[int, int]] = {}
"""By path: a source file's time and size as soon as it was asked for; it may be edited since."""


def _file(path: str) -> tuple[int, int]:
    found = _files.get(path)
    if found is None:
        stat = os.stat(path)
        found = _files.setdefault(path, (stat.st_mtime_ns, stat.st_size))
    return found


with contextlib.suppress(Exception):
    _file(sys.modules["__main__"].__file__)  # type: ignore[arg-type]


def source_of(cls: type) -> Source | None:
    """Where this class stands in its module's file; None where that is not sure.

    Two processes that have read the same class from there have the same one, whatever they have
    done to its data since.
    """
    module = sys.modules.get(cls.__module__)
    path = getattr(module, "__file__", None)
    lines = [
        (name, part.__code__.co_firstlineno)
        for name, value in sorted(vars(cls).items())
        for part in functions_of(value)
        if part.__qualname__ == f"{cls.__qualname__}.{name}" and part.__code__.co_filename == path
    ]
    if not lines or path is None:
        return None
    try:
        return (path, *_file(path), tuple(lines))
    except OSError:  # It is no longer there.
        return None
