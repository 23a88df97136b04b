"""Blocks that nobody left: the lock is let go, and no interrupt is lost on the way."""

import gc
import itertools
import sys

from support import inside, interrupt_releases, is_free, trap


def test_an_interrupt_at_any_step_of_a_block_reaches_who_wrote_the_block(make, monkeypatch):
    """Each block ended with a finaliser: a Ctrl-C that came in it was printed, and lost."""
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: lost.append(args.exc_type))
    share = make(0)

    def block():
        with share.locked() as view:
            view.value += 1

    def spring():
        nonlocal struck
        struck = True
        raise KeyboardInterrupt

    struck = True
    for step in itertools.count(1):
        block()  # So that each block goes the same way.
        reached = struck = False
        try:
            with trap(step, spring):
                block()
        except KeyboardInterrupt:
            reached = True
        assert reached == struck, step
        assert not lost, step
        assert inside.token_of(share) is None, step
        if not struck:
            break
    assert step > 50


def test_a_block_that_nobody_left_is_given_up_with_the_garbage(make):
    share = make([1])
    transaction = share.locked()
    view = transaction.__enter__()
    view.append(2)
    around = [transaction, view]
    around.append(around)
    del transaction, view, around
    gc.collect()
    assert is_free(share)
    assert share.get() == [1]


def test_a_view_that_is_interrupted_as_it_lets_go_does_so_all_the_same(make, monkeypatch):
    share = make([1])
    said = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: said.append(args.exc_type))
    transaction = share.locked()
    transaction.__enter__().append(2)
    interrupt_releases(share, 2)
    del transaction
    assert said == [KeyboardInterrupt]
    assert is_free(share)
    assert share.get() == [1]
