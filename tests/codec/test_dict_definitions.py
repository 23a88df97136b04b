"""Classes of ``__main__`` in a `SharedDict`: their definitions are stored once for all values."""

import os
import subprocess
import sys

from support import TESTS

PROGRAM = """
import multiprocessing, os, pickle, subprocess, sys
import mmapshare
from mmapshare import SharedDict
from support import inside

class Point:
    def __init__(self, x):
        self.x = x
    def twice(self):
        return 2 * self.x

def work(d, key):
    with d.locked() as view:
        view[key].x += 1
        view["from " + str(key)] = Point(key)

if __name__ == "__main__":
    inside.put("SPARE_BYTES", 1000)
    d = SharedDict({n: Point(n) for n in range(200)})
    assert d.info().used_bytes < 30_000, d.info()      # Not a definition with each of them.
    assert type(d[7]) is Point
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            pool.starmap(work, [(d, n) for n in range(3)])
            pool.close()
            pool.join()
    assert [d[n].x for n in range(3)] == [3, 4, 5]
    assert type(d["from 1"]) is Point and d["from 1"].twice() == 2
    for n in range(500):
        d["late"] = Point(n)                            # Through many snapshots.
    code = '''
import pickle, sys
d = pickle.load(sys.stdin.buffer)
assert d["late"].twice() == 998 and d[7].twice() == 14
d["late"] = d[7]
d["more"] = [d[7], {d[7].x}]
'''
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(d))
    assert done.returncode == 0
    assert d["late"].x == 7 and type(d["late"]) is Point and d["more"][1] == {7}
    version = d.version
    with d.locked() as view:
        for key in view:
            view[key]
    assert d.version == version, d.version - version    # Nothing was changed.
    d.clear()
    d["again"] = Point(1)
    assert d["again"].x == 1
    del d["again"]
    print("all well")
"""


def test_definitions_are_stored_once_and_reach_every_process(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    environ = os.environ | {"PYTHONPATH": TESTS}
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, env=environ)
    assert done.stdout == "all well\n", done.stderr
