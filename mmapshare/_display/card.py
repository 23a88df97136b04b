"""The card: what a share shows of itself in a notebook, and in one line of text.

It costs what it shows: a large value is not loaded for it, its kind is read off the first bytes of
its pickle. The HTML has no script and no colours of its own but two that stand on light and dark.
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from .._late import importing

LOADED_BYTES: Final = 16 << 10
"""Values up to this size are loaded to be shown."""
GLIMPSE_BYTES: Final = 256
ITEMS: Final = 6

_short = reprlib.Repr()
_short.maxdict = _short.maxlist = _short.maxtuple = _short.maxset = ITEMS
_short.maxstring = _short.maxother = 60
_short.maxlevel = 3

_OPENERS: Final = {"EMPTY_DICT": "dict", "EMPTY_LIST": "list", "EMPTY_SET": "set"}
_ARRAY_MAKERS: Final = {"_frombuffer", "_reconstruct"}
_BLUE: Final = "#3b82f6"
_KIBI: Final = 1 << 10
_CELL: Final = "border:none;padding:0 1em 0 0;text-align:left;background:none;color:inherit"
_NAME: Final = f"{_CELL};opacity:.7;white-space:nowrap;vertical-align:top"


def shortened(value: object) -> str:
    """A value's repr, of bounded length."""
    try:
        return _short.repr(value)
    except Exception as err:  # Its own __repr__ fails.
        return f"<{type(value).__name__}, whose repr fails: {type(err).__name__}>"


def listed(items: Iterable[tuple[object, str]], count: int) -> str:
    """The first items of a mapping of ``count``, whose values are given as they are shown."""
    shown = [f"{shortened(key)}: {value}" for key, value in items]
    more = [f"... {count - len(shown):,} more"] if count > len(shown) else []
    return "{" + ", ".join(shown + more) + "}"


def kind_of(stream: bytes) -> str:
    """What a pickle makes, as far as its first bytes tell: "dict", "numpy.ndarray", "object"."""
    with importing:
        import pickletools

    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in _OPENERS:
                return _OPENERS[opcode.name]
            if opcode.name == "STACK_GLOBAL":
                module, name = strings[-2:]
                if module.startswith("numpy.") and name in _ARRAY_MAKERS:
                    return "numpy.ndarray"
                return name if module == "builtins" else f"{module}.{name}"
            if isinstance(argument, str):
                strings.append(argument)
    except Exception:  # Cut in the middle of an argument.
        pass
    return "object"


def size(size_bytes: int) -> str:
    """A size as people read it: "12 bytes", "3.4 MiB"."""
    if size_bytes < _KIBI:
        return f"{size_bytes} bytes"
    power = min(int(math.log(size_bytes, _KIBI)), 6)
    return f"{size_bytes / _KIBI**power:.1f} {'KMGTPE'[power - 1]}iB"


def escape(text: str) -> str:
    """Text for HTML."""
    with importing:
        import html  # Most programs show nothing; so with `pickletools`.

    return html.escape(text)


def facts(info: Any) -> dict[str, str]:
    """What a `ShareInfo` says, by name, for people."""
    holder = "nobody"
    if info.holder_pid is not None:
        holder = f"pid {info.holder_pid}, for {info.held_s:.1f} s"
    found = {
        "version": f"{info.version:,}" if info.version else "0, empty",
        "used": f"{size(info.used_bytes)} of {size(info.max_size)}",
        "resident": size(info.resident_bytes),
        "held by": holder,
        "commits": f"{info.commits:,}",
        "contended waits": f"{info.contended_waits:,}",
        "core": info.core,
    }
    if info.held_bytes:
        found["held without a copy"] = size(info.held_bytes)
    if info.holders_found_dead:
        found["holders found dead"] = f"{info.holders_found_dead:,}"
    return found


def bundle(title: str, summary: str | None, info: Any, opens: str | None = None) -> dict[str, str]:
    """The card as text and as HTML; ``info`` None where there is nothing more to say.

    ``opens``: by what others open it, where it has an address.
    """
    said = {} if info is None else facts(info)
    first = {"value": summary, "opened by": opens}
    said = {name: fact for name, fact in first.items() if fact is not None} | said
    text = "; ".join([title, *(f"{name} {fact}" for name, fact in said.items())])
    return {"text/plain": text, "text/html": _page(title, said, info)}


def table(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Rows, some of which may have names that others lack, as text and as HTML."""
    if not rows:
        return {"text/plain": "no open shares", "text/html": "<em>no open shares</em>"}
    names = list(dict.fromkeys(name for row in rows for name in row))
    rows = [{name: row.get(name, "") for name in names} for row in rows]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    lines = [dict(zip(names, names, strict=True)), *rows]
    text = "\n".join("  ".join(line[n].ljust(widths[n]) for n in names).rstrip() for line in lines)
    head = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in names)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(row[n])}</td>' for n in names) + "</tr>"
        for row in rows
    )
    return {"text/plain": text, "text/html": f"<table><tr>{head}</tr>{body}</table>"}


class Screen:
    """One place that is drawn anew: a display in a notebook, a line in a terminal."""

    def __init__(self) -> None:
        self._display: Any = None
        self._text = ""

    def draw(self, card: dict[str, str]) -> None:
        """Show a card there."""
        if self._display is not None:
            self._display.update(card, raw=True)
        elif _in_notebook():
            show: Any = import_module("IPython.display").display
            self._display = show(card, raw=True, display_id=True)
        elif card["text/plain"] != self._text:
            self._text = card["text/plain"]
            if sys.stdout.isatty():
                with importing:
                    import shutil

                columns = shutil.get_terminal_size().columns
                print(f"\r\x1b[K{self._text[: columns - 1]}", end="", flush=True)
            else:
                print(self._text, flush=True)

    def leave(self) -> None:
        """Whatever is printed next begins below."""
        if self._display is None and self._text and sys.stdout.isatty():
            print()


def _in_notebook() -> bool:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")


def _page(title: str, said: Mapping[str, str], info: Any) -> str:
    rows = "".join(
        f'<tr style="background:none"><td style="{_NAME}">{escape(name)}</td>'
        f'<td style="{_CELL}"><code style="background:none;color:inherit">{escape(fact)}</code>'
        "</td></tr>"
        for name, fact in said.items()
    )
    picture = "" if info is None else _picture(info)
    return (
        f'<div style="border-left:3px solid {_BLUE};padding-left:.8em">'
        f"<strong>{escape(title)}</strong>{picture}"
        f'<table style="border:none;margin:0;background:none;color:inherit">{rows}</table></div>'
    )


def _picture(info: Any) -> str:
    """The region's memory as a bar on a logarithmic scale, and in words what its shades are."""
    width, height = 320, 10

    def wide(size_bytes: int) -> float:
        return width * min(1.0, math.log2(max(size_bytes, 1)) / math.log2(max(info.max_size, 2)))

    used, kept, ceiling = info.used_bytes, info.resident_bytes, info.max_size
    shades = [
        # The widest first; each next one lies on it.
        ("free", f"up to {size(ceiling)}", "the ceiling, max_size", width, "currentColor", ".12"),
        (
            "kept",
            size(kept),
            "memory that the region has from the machine",
            wide(kept),
            _BLUE,
            ".45",
        ),
        ("used", size(used), "what the newest version takes", wide(used), _BLUE, "1"),
    ]
    bars = "".join(
        f'<rect width="{wide:.1f}" height="{height}" fill="{colour}" fill-opacity="{opacity}">'
        f"<title>{name} {escape(much)}: {what}</title></rect>"
        for name, much, what, wide, colour, opacity in shades
    )
    words = " ".join(
        f'<span title="{what}" style="white-space:nowrap;margin-right:.8em">'
        f'<span style="color:{colour};opacity:{_faint(opacity)}">&#9632;</span> '
        f"{name} {escape(much)}</span>"
        for name, much, what, _, colour, opacity in reversed(shades)
    )
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'style="display:block;margin:.3em 0">{bars}</svg>'
        f'<div style="font-size:.85em" title="the bar is logarithmic">{words}</div>'
    )


def _faint(opacity: str) -> str:
    """A small square needs a little more than a bar, to be seen."""
    return ".3" if opacity == ".12" else opacity
