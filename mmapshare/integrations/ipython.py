"""Magics for IPython and Jupyter: ``%load_ext mmapshare``.

- ``%%fork N [--timeout S]`` runs the cell in N forked children, each with its ``rank``.
- ``%shares`` lists the shares that this process has open.

A kernel has threads of its own, for its messages. A forked child has the one thread that runs the
cell, and a copy of everything else. Safe in it: Python, numpy, files, and all of mmapshare. Not
safe: what waits for a thread of the kernel (``input``, widgets, the kernel's event loop), and
libraries that had threads before (a BLAS in the middle of its work, a database's connections); for
these start processes by spawn, with functions of a module.
"""

from __future__ import annotations

import sys
from typing import Any

from IPython.core.displayhook import CapturingDisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring
from IPython.display import display, publish_display_data

from .._display import table
from .._shared import open_shares
from .forking import Forked, Speaker, fork_all, listen


@magics_class
class ShareMagics(Magics):
    """What ``%load_ext mmapshare`` adds."""

    @magic_arguments()
    @argument("count", type=int, help="how many children")
    @argument("--timeout", type=float, default=None, help="seconds after which they are killed")
    @cell_magic
    def fork(self, line: str, cell: str) -> None:
        """Run the cell in so many forked children; in each, ``rank`` is its number from 0 on.

        What they print and display is shown in their order, each under its own head; an
        exception as its traceback. Their variables are copies: hand results on through shares.
        Returns when all have ended; an interrupt, or the timeout, kills them.
        """
        options = parse_argstring(self.fork, line)
        if options.count < 1:
            raise UsageError(f"%%fork wants one child at least, not {options.count}")
        children = fork_all(
            options.count, lambda rank, speaker: _run_cell(self.shell, cell, rank, speaker)
        )
        turns = _Turns(children)
        for _ in listen(children, options.timeout):
            turns.show()

    @line_magic
    def shares(self, line: str) -> None:
        """List the shares that this process has open, with the names they have here."""
        variables: dict[str, Any] = dict(self.shell.user_ns)  # type: ignore[union-attr]
        rows = []
        for share in open_shares():
            names = [
                name
                for name, value in variables.items()
                if name[0] != "_" and (value is share or _share_of(value) is share)
            ]
            rows.append(share._row(", ".join(names) or "-"))
        display(table(rows), raw=True)


def _share_of(value: object) -> object:
    """The share of a decorated function."""
    try:
        return vars(value).get("_share")
    except Exception:  # It has no variables, or refuses: a view whose block has ended does.
        return None


class _Turns:
    """Shows what children say, one child after the other; the first that still runs live."""

    def __init__(self, children: list[Forked]) -> None:
        self._waiting = children[::-1]
        self._headed = False

    def show(self) -> None:
        while self._waiting:
            child = self._waiting[-1]
            if not self._headed:
                print(f"── rank {child.rank}, pid {child.pid}")
                self._headed = True
            for kind, what in child.take():
                _show(kind, what)
            if child.code is None:
                return
            if ended := child.how_it_ended():
                print(f"   {ended}")
            self._waiting.pop()
            self._headed = False


def _show(kind: str, what: Any) -> None:
    if kind == "display":
        data, metadata = what
        publish_display_data(data, metadata)
    else:
        print(what, end="\n" if kind == "traceback" else "", file=_stream(kind))


def _stream(kind: str) -> Any:
    return sys.stderr if kind == "stderr" else sys.stdout


# --- In the child ------------------------------------------------------------------------------


class _Publisher(DisplayPublisher):  # type: ignore[misc]
    """Says rich output to the parent, in place of the kernel's socket."""

    speaker: Any = None

    def publish(self, data: Any, metadata: Any = None, *_: Any, **__: Any) -> None:
        self.speaker.say("display", (data, metadata or {}))


class _Results:
    """A list of outputs, as the hook for a cell's last expression fills it."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker

    def append(self, output: Any) -> None:
        self._speaker.say("display", (output["data"], output["metadata"]))


def _run_cell(shell: Any, cell: str, rank: int, speaker: Speaker) -> None:
    shell.display_pub = publisher = _Publisher(parent=shell)
    publisher.speaker = speaker
    sys.displayhook = CapturingDisplayHook(shell=shell, outputs=_Results(speaker))
    shell._showtraceback = lambda kind, err, lines: speaker.say("traceback", "\n".join(lines))
    shell.user_ns["rank"] = rank
    shell.run_cell(cell, store_history=False)


def load(shell: Any) -> None:
    """Give an IPython shell the magics."""
    shell.register_magics(ShareMagics)
