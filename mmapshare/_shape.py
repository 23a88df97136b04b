"""What makes two classes the same: what their sources say, wherever they were read."""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any, Final

from ._late import importing

DIGEST_BYTES: Final = 16


def shape_of(cls: type) -> bytes:
    """A digest of what the source says of a class, the same in every process that reads it."""
    facts: list[Any] = [type(cls).__qualname__, [base.__qualname__ for base in cls.__bases__]]
    for name, value in sorted(vars(cls).items()):
        functions = _functions(value)
        if functions:
            facts.append((name, [_function_facts(part, set()) for part in functions]))
        elif not name.startswith("_"):
            facts.append(name)
        elif name == "_member_map_":  # An enum is its members and their values.
            facts.append([(member, repr(value[member].value)) for member in value])
    return digest(repr(facts).encode())


def _functions(value: Any) -> list[FunctionType]:
    """The functions that a class attribute is, or wraps."""
    parts = [value]
    if isinstance(value, property):
        parts = [value.fget, value.fset, value.fdel]
    elif type(value).__module__ == "functools":  # cached_property, partial, lru_cache and such.
        parts = [getattr(value, name, None) for name in ("func", "__wrapped__")]
    elif isinstance(value, staticmethod | classmethod):
        parts = [value.__func__]
    return [part for part in parts if isinstance(part, FunctionType)]


def _function_facts(function: FunctionType, seen: set[FunctionType]) -> tuple[Any, ...]:
    """Its code, its defaults, and what it closes over: plain values, and functions in turn."""
    if function in seen:
        return ()
    seen.add(function)
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # Still empty.
            cells.append(None)
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    values = [_plain(value, seen) for value in (*defaults, *cells)]
    return (_code_facts(function.__code__), values)


def _plain(value: Any, seen: set[FunctionType]) -> Any:
    if isinstance(value, FunctionType):
        return _function_facts(value, seen)
    return repr(value) if type(value) in _PLAIN else type(value).__qualname__


_PLAIN: Final = frozenset({int, float, complex, str, bytes, bool, type(None)})


def _code_facts(code: CodeType) -> tuple[Any, ...]:
    return (
        code.co_name,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
        code.co_code,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        [_constant_facts(constant) for constant in code.co_consts],
    )


def _constant_facts(constant: Any) -> Any:
    if isinstance(constant, CodeType):
        return _code_facts(constant)
    if isinstance(constant, frozenset):
        return sorted(map(repr, constant))
    return repr(constant)


def digest(raw: bytes) -> bytes:
    with importing:
        from hashlib import blake2b

    return blake2b(raw, digest_size=DIGEST_BYTES).digest()
