"""Many threads of two processes do everything at once, and forks among it: the sums are exact."""

from collections import Counter

import lean
import pytest

MINUTE = 60


@pytest.mark.part(4)
def test_sixteen_threads_of_two_processes_add_up_exactly(events, soak):
    seconds = MINUTE if soak else 0
    timeout_s = None if soak else 100
    run = lean.run(events, "many_threads", "check", 12, 60, seconds, timeout_s=timeout_s)
    print(sum(run, Counter()))
    assert not events.whole or events.count > 10_000
