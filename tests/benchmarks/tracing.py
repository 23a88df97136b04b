"""What a block costs while it is recorded, beside one that is not, in two processes by turns."""

from __future__ import annotations

import os
import subprocess
import sys
from tempfile import TemporaryDirectory

from tests.benchmarks.table import Row, ratio_row
from tests.benchmarks.timing import Times

_BLOCKS = 200
_PROGRAM = f"""
import sys, time
from mmapshare import Share
share = Share({{"hits": 1, "name": "abc", "xs": [1, 2, 3]}})
def blocks(number):
    begin = time.process_time()
    for _ in range(number):
        with share.locked() as view: view["hits"] += 1
    return (time.process_time() - begin) / number
blocks(2000)
for line in sys.stdin:
    print(blocks({_BLOCKS}), flush=True)
"""


def block(rounds: int) -> list[Row]:
    """A small block, recorded and not; CPU time."""
    times = Times()
    with TemporaryDirectory() as folder, _process({}) as plain:
        with _process({"MMAPSHARE_TRACE": folder}) as recorded:
            for _ in range(rounds):
                for name, process in (("plain", plain), ("recorded", recorded)):
                    times.note(name, _ask(process))
            for process in (plain, recorded):
                process.communicate()
    what = "the same block while it is recorded"
    return [ratio_row(what, times, "recorded", "plain", 1.25, "not recorded")]


def _process(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | environment,
    )  # fmt: skip


def _ask(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())
