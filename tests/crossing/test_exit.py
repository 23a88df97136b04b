"""What is left when a process ends, in whatever state its shares are."""

import gc
import subprocess
import sys
import threading

from mmapshare import ClosedError, Share


def test_a_share_still_works_in_an_exit_handler_that_was_registered_first():
    """The descriptor was closed at exit, before handlers that had been registered earlier ran."""
    program = """
import atexit, os
def last():
    for share in shares:
        share.set(bytes(3_000_000))
        share.update(lambda b: len(b))
        print(share.get())
atexit.register(last)
from mmapshare import Share
shares = [Share(1)]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("3000000\n", "")


def test_a_process_that_ends_inside_of_blocks_is_silent(kind):
    program = f"""
from mmapshare import Share
share = Share([1], kind={kind!r})
def generator():
    with share.locked() as view:
        yield view
kept = generator()
next(kept)
other = Share(2, kind={kind!r})
other.lock()
ring = [Share(3, kind={kind!r})]
ring.append(ring[0].locked())
ring[1].__enter__()
ring.append(ring)
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_garbage_of_a_share_and_its_block_is_silent():
    """The lock's descriptor could go first, and its number was then unlocked for a stranger."""
    for _ in range(20):
        share = Share(1)
        transaction = share.locked()
        view = transaction.__enter__()
        ring = [share, transaction, view]
        ring.append(ring)
        del share, transaction, view, ring
        gc.collect()


def test_closing_beside_readers_is_a_closed_error():
    for _ in range(20):
        share = Share(1)
        seen = []

        def read(share=share, seen=seen):
            try:
                while True:
                    share.get()
            except Exception as err:
                seen.append(type(err))

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        share.close()
        for thread in threads:
            thread.join()
        assert seen == [ClosedError, ClosedError]
