"""A search in joblib's workers that ends as a whole once one of them has found what is wanted.

    python examples/early_stopping.py

Or paste all of it into a notebook's cell. Its functions then stand in ``__main__``, which joblib's
workers do not have: `train` and `report` travel by value, and `report` takes its region along.

Each trial fits a line to the same noisy points by gradient descent, with a learning rate and a
momentum of its own. After each epoch it calls `report`, one transaction over all workers, which
says whether to go on: a trial that lags far behind the best stops by itself, and once one trial
is good enough all of them stop, wherever they are.

`judge` is that logic, for one process and a plain dict. The run ends with the proof: it judges all
reports again, one after the other, and must come to the same answers and to the same end.

Needs joblib (``pip install mmapshare[examples]``).
"""

import itertools
import random

from joblib import Parallel, delayed

from mmapshare import shared_state

WANTED = 0.273
"""Mean squared error that is good enough; the best line has 0.2729."""
EPOCHS = 400
WARM_UP = 30
"""So many epochs a trial is let alone."""

rng = random.Random(1)
POINTS = [(x, 3 * x - 2 + rng.gauss(0, 0.5)) for x in [rng.uniform(-1, 1) for _ in range(400)]]
TRIALS = list(itertools.product([0.001, 0.003, 0.01, 0.03, 0.1], [0.0, 0.5, 0.9, 0.95]))
START = {"reports": 0, "best": (float("inf"), None), "found": False}


def judge(state, trial, epoch, loss):
    """The number of this report, and why the trial is to stop, or None; knows no processes."""
    state["reports"] += 1
    found, state["best"] = state["found"], min(state["best"], (loss, trial))
    state["found"] = found or loss <= WANTED
    if found:
        reason = "another was good enough"
    elif state["found"]:
        reason = "good enough"
    elif epoch > WARM_UP and loss > 4 * state["best"][0]:
        reason = "far behind"
    else:
        reason = None
    return state["reports"], reason


@shared_state(initial=START)
def report(state, trial, epoch, loss):
    """One transaction on what all workers share; they pass no state."""
    return judge(state.value, trial, epoch, loss)


def train(trial):
    """Fit a line until told to stop; returns its reports with the answers they got."""
    rate, momentum = TRIALS[trial]
    slope = offset = down = aside = 0.0
    reports = []
    for epoch in range(1, EPOCHS + 1):
        errors = [(slope * x + offset - y, x) for x, y in POINTS]
        loss = sum(error * error for error, _ in errors) / len(POINTS)
        number, reason = report(trial, epoch, loss)
        reports.append((number, trial, epoch, loss, reason))
        if reason is not None:
            break
        down = momentum * down - rate * sum(error * x for error, x in errors) / len(POINTS)
        aside = momentum * aside - rate * sum(error for error, _ in errors) / len(POINTS)
        slope, offset = slope + down, offset + aside
    return reports


def find_fault(reports, left):
    """What one process would have answered otherwise, up to the state ``left``; None if nothing."""
    state = dict(START)
    for number, trial, epoch, loss, reason in sorted(reports):
        if judge(state, trial, epoch, loss) != (number, reason):
            return f"report {number}, of trial {trial}, was answered {reason!r}"
    return None if state == left else f"the state was left as {left}, not as {state}"


if __name__ == "__main__":
    trained = Parallel(n_jobs=4)(delayed(train)(trial) for trial in range(len(TRIALS)))
    for (rate, momentum), reports in zip(TRIALS, trained, strict=True):
        _, _, epoch, loss, reason = reports[-1]
        print(f"rate {rate:5}, momentum {momentum:4}: loss {loss:6.4f}, {epoch:3} epochs: {reason}")
    reports = [one for of_one_trial in trained for one in of_one_trial]
    left = report.share.get()
    print(f"best: {left['best'][0]:.4f}, by {TRIALS[left['best'][1]]}")
    print(f"{len(reports)} of {EPOCHS * len(TRIALS)} epochs")
    if fault := find_fault(reports, left):
        raise SystemExit(f"check: NOT what one process would answer: {fault}")
    print("check: each answer is what one process would give")
