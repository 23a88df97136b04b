"""``trace``: what was recorded to a folder."""

from __future__ import annotations

import attrs

from .._trace import opened
from . import output


def trace(folder: str, chrome: str | None, svg: str | None, as_json: bool) -> int:
    """Show a recording, and write it to files."""
    found = opened(folder)
    if chrome is not None:
        found.save(chrome)
    if svg is not None:
        with open(svg, "w", encoding="utf-8") as file:
            file.write(found.svg())
    if as_json:
        output.as_json_line(attrs.asdict(found.recording))
    else:
        print("\n".join(map(output.clean, found.summary().split("\n"))))
    return 0
