"""The commands' arguments, their help, and what they end with."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from ..errors import MmapShareError
from .following import top, watch
from .looking import get, ls, show
from .removing import rm
from .tracing import trace

_WHERE: Final = """\
WHERE is a name ("jobs"), a path with a slash ("./state.mmapshare"), the URL of a share on a server
("redis://host/0/jobs"), or the begin of a region's id, as `ls` shows it for a share without a name
and `repr(share)` does for each.
"""
_ALL_IN: Final = "only these; of a folder or a server (redis://host/0) all"
_CODES: Final = """\
exit codes: 0 done; 1 there is no such share, or it cannot be done; 2 the command is wrong.
"""
_ABOUT: Final = f"""\
Look at shares from outside: named ones, those in files or on a Redis server, and the anonymous ones
of live processes, as far as they are this user's own. Looking takes no lock and changes nothing.

{_WHERE}
Nothing is unpickled but by `get --load`: values are shown by a reader that makes plain data, and
placeholders of all else.
"""


def main(version: str) -> int:
    """Do what the program's arguments say; the exit code. ``version``: of this package."""
    given = vars(_parser(version).parse_args())
    run: Callable[..., int] = given.pop("run")
    try:
        return run(**given)
    except BrokenPipeError:
        # Who read has gone: what is still to be written goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 0 if run in {watch, top} else 1
    except (MmapShareError, OSError) as err:
        print(f"mmapshare: {type(err).__name__}: {err}", file=sys.stderr)
        return 1


def _parser(version: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmapshare",
        description=_ABOUT,
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mmapshare {version}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[..., int], help: str, about: str, examples: str) -> Any:
        made = commands.add_parser(
            run.__name__,
            help=help,
            description=about,
            epilog=f"examples:\n{examples}\n{_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
        made.set_defaults(run=run)
        return made

    made = command(ls, "list shares", *_LS)
    made.add_argument("where", nargs="*", metavar="WHERE", help=_ALL_IN)
    made = command(show, "all that is known of one share", *_SHOW)
    made.add_argument("where", metavar="WHERE")
    made = command(get, "print a value", *_GET)
    made.add_argument("where", metavar="WHERE")
    made.add_argument("--key", help="of a SharedDict only that key's value")
    made.add_argument("--load", action="store_true", help="unpickle it, which runs what it says")
    made = command(watch, "follow a share's versions", *_WATCH)
    made.add_argument("where", metavar="WHERE")
    made.add_argument("--seconds", type=_positive, help="end after so long")
    made.add_argument("--times", type=_count, help="end after so many lines")
    made = command(top, "shares, again and again", *_TOP)
    made.add_argument("where", nargs="*", metavar="WHERE", help=_ALL_IN)
    made.add_argument("--every", type=_positive, default=1.0, metavar="SECONDS", help="default: 1")
    made.add_argument("--times", type=_count, help="end after so many looks")
    made = command(rm, "take a share's name away", *_RM)
    made.add_argument("where", metavar="WHERE")
    made.add_argument("-y", "--yes", action="store_true", help="do not ask")
    made = command(trace, "what processes recorded to a folder", *_TRACE)
    made.add_argument("folder", metavar="FOLDER")
    made.add_argument("--chrome", metavar="FILE", help="write a Chrome trace, for ui.perfetto.dev")
    made.add_argument("--svg", metavar="FILE", help="write a picture")
    return parser


def _positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _count(text: str) -> int:
    times = int(text)
    if times < 1:
        raise ValueError
    return times


_LS: Final = (
    """\
List this user's shares: those with a name, and all that live processes have open. A column that
has nothing is left out. What belongs to other users is only counted.

where is what the other commands take; used is the newest value, resident the memory or disk that
the share takes now; held is what processes got without a copy, and still use; waiters are processes
that the system has asleep for the lock; dead says how often a process died holding it; users are
the processes that have the share open. A server knows neither its waiters nor its users.
""",
    """\
  mmapshare ls                     all that can be found
  mmapshare ls ./state /var/app/ redis://host/0    a file, all in a folder, all on a server
  mmapshare ls --json | jq '.shares[] | select(.holder_pid) | .where'
""",
)
_SHOW: Final = (
    f"""\
Tell all that is known of one share: sizes, who holds its lock, who waits, who has it open.

{_WHERE}""",
    """\
  mmapshare show jobs
  mmapshare show ./state.mmapshare
  mmapshare show 4c91342c --json   an anonymous share of a live process
""",
)
_GET: Final = (
    f"""\
Print the value of a share as Python writes it. Plain data is shown as it is; each object of a class
as a placeholder, such as <shop.Order(id=7)>: none is made, and nothing is imported or called.

--load unpickles the value and prints its repr. That runs what the value says, as opening the share
in a program does; what is signed needs MMAPSHARE_SECRET. With --json, what JSON has no word for is
its repr as a string.

{_WHERE}""",
    """\
  mmapshare get jobs
  mmapshare get counts --key apples --json
  mmapshare get model --load       runs the value's own code
""",
)
_WATCH: Final = (
    f"""\
Print a line for the version that is there, and one for each later one that is seen, with its value;
of a SharedDict the keys that changed. Versions that come faster than it looks (50 times a second)
are counted. It ends when the share does, and by Ctrl-C.

{_WHERE}""",
    """\
  mmapshare watch jobs
  mmapshare watch jobs --times 2   until the next change
  mmapshare watch 4c91342c --seconds 60 --json
""",
)
_TOP: Final = (
    """\
Show all shares again and again, those that change most first: who holds the lock and for how long,
who waits, commits and contended waits a second, sizes, what is held without a copy, holders found
dead. In a terminal it is drawn in one place, with colours where the package rich is installed
(pip install 'mmapshare[cli]'). It ends by Ctrl-C.
""",
    """\
  mmapshare top
  mmapshare top redis://host/0 --every 0.2
  mmapshare top --times 2 --json   a first look, and one with rates
""",
)
_RM: Final = (
    f"""\
Take the name of a share away, or remove its file, after a question. Processes that have it open go
on with it; who opens the name from then on makes a new share. What is on a server is gone at once
for all. A share without a name ends with its users, and cannot be removed.

{_WHERE}""",
    """\
  mmapshare rm jobs
  mmapshare rm ./state.mmapshare
  mmapshare rm jobs --yes          without a question
""",
)
_TRACE: Final = (
    """\
Show what processes have recorded to a folder: each that imports mmapshare while the environment
variable MMAPSHARE_TRACE names that folder. A row a share, those that were waited for longest first:
how often it was held and committed, how many of the holds had to wait, the median and the 99th
percentile of these waits and of all holds; and the longest holds, with file and line.
""",
    """\
  MMAPSHARE_TRACE=run python program.py; mmapshare trace run
  mmapshare trace run --chrome run.json    open it with https://ui.perfetto.dev
  mmapshare trace run --svg run.svg
""",
)
