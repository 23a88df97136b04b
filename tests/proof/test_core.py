"""The compiled core under sanitizers: no access outside of what is its, nothing undefined.

Its commits are stepped through in test_steps.py, its reader meets damaged regions in
test_mutants.py, an allocation fails everywhere in crossing/test_cores_memory.py; what all tests
do, they do by it where it is built.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import TESTS, cores
from support.inside import CORE_MODULE

pytestmark = [
    pytest.mark.planted,
    pytest.mark.core("c"),
    pytest.mark.skipif(bool(why := cores.why_not()), reason=str(why)),
]

_SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """The environment in which a process works by a build that sanitizers watch."""
    library = subprocess.run(
        [*cores.compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True
    ).stdout.strip()
    if not Path(library).is_absolute():
        pytest.skip("there is no libasan")
    return {
        **os.environ,
        cores.BUILT: cores.build(tmp_path_factory.mktemp("core"), *_SANITIZED),
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "PYTHONMALLOC": "malloc",
    }


def _runs(environment, *words):
    # It is no child of the outer run's workers.
    alone = {key: value for key, value in environment.items() if "XDIST" not in key}
    return subprocess.run(
        [sys.executable, *words], cwd=TESTS, env=alone, capture_output=True, text=True
    )


@pytest.mark.timeout(400)
def test_sanitizers_find_nothing(sanitized):
    tests = (
        "crossing/test_cores.py", "crossing/test_cores_memory.py", "proof/test_mutants.py",
        "public/test_share.py",
    )  # fmt: skip
    left_out = "not leaked"  # Each freed block is kept for a while.
    done = _runs(sanitized, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", left_out, *tests)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "Sanitizer" not in done.stdout + done.stderr


def test_a_planted_overrun_is_found(sanitized, tmp_path):
    """What is copied ends one byte behind its end: past an object, where the reader has that."""
    broken = {**sanitized, cores.BUILT: cores.build(tmp_path, *_SANITIZED, "-DPLANTED=6")}
    program = "import support, mmapshare; mmapshare.Share(b'x' * 200).set(b'y' * 200)"
    sound = _runs(sanitized, "-c", program)
    assert sound.returncode == 0, sound.stderr
    done = _runs(broken, "-c", program)
    assert "heap-buffer-overflow" in done.stderr and done.returncode != 0


def test_the_build_that_is_named_is_the_one_that_works(sanitized):
    program = f"import sys, support, mmapshare; print(sys.modules[{CORE_MODULE!r}].__file__)"
    done = _runs(sanitized, "-c", program)
    assert done.stdout.strip() == sanitized[cores.BUILT], done.stderr
