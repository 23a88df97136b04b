"""What keeps threads apart where no GIL does, and what CPython itself breaks there."""

import subprocess
import sys
from pathlib import Path

from without_gil import FORKS_BESIDE_THREADS_HANG

ALONE = Path(__file__).parent / "planted_fork_beside_threads.py"


def test_what_is_skipped_for_cpythons_sake_is_cpythons_fault():
    """The script knows nothing of mmapshare; where no child hangs nothing may be skipped."""
    seconds = 60 if FORKS_BESIDE_THREADS_HANG else 1
    command = [sys.executable, "-W", "ignore", ALONE, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == FORKS_BESIDE_THREADS_HANG, done.stdout + done.stderr
    assert "forked children hung" in done.stdout
