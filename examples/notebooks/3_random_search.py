# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A random search that shares its best so far
#
# Four workers look for good parameters of a support vector machine on scikit-learn's digits. They
# share what was found, stop when it is good enough, and one of them is killed on the way: in the
# middle of a block, where it does most harm elsewhere.

# %%
import multiprocessing
import os
import signal
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from mmapshare import shared_state

warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
fork = multiprocessing.get_context("fork")

images, digits = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(
    images[:900], digits[:900], test_size=0.4, random_state=0
)

GOOD_ENOUGH = 0.985
MOST_TRIALS = 300


# %% [markdown]
# The state of a `@shared_state` function is one for all processes, and each call is one
# transaction. `offer` takes a trial in, and says whether to go on.


# %%
@shared_state(initial={"trials": [], "best": 0.0, "parameters": None})
def offer(state, worker, parameters, accuracy):
    state["trials"].append((worker, accuracy))
    if accuracy > state["best"]:
        state["best"], state["parameters"] = accuracy, parameters
    if worker == 3 and len([n for n, _ in state["trials"] if n == 3]) == 3:
        os.kill(os.getpid(), signal.SIGKILL)  # Within its transaction, which leaves no trace.
    return state["best"] < GOOD_ENOUGH and len(state["trials"]) < MOST_TRIALS


def search(worker):
    rng = np.random.default_rng(4 + worker)
    go_on = True
    while go_on:
        parameters = {"C": 10 ** rng.uniform(-2, 2), "gamma": 10 ** rng.uniform(-6, -1)}
        model = SVC(**parameters).fit(train_x, train_y)
        go_on = offer(worker, parameters, model.score(test_x, test_y))


# %% [markdown]
# `watch` draws the share anew in one place until the search is over.

# %%
workers = [fork.Process(target=search, args=(n,)) for n in range(4)]
for worker in workers:
    worker.start()

offer.share.watch(
    lambda state: state["best"] >= GOOD_ENOUGH or len(state["trials"]) >= MOST_TRIALS, timeout=90
)

# %%
for worker in workers:
    worker.join()
[worker.exitcode for worker in workers]

# %% [markdown]
# Worker 3 was killed by SIGKILL, -9, holding the lock. The others went on at once, with a whole
# value:

# %%
found = offer.share.get()
found["best"], found["parameters"], offer.share.info().holders_found_dead

# %%
figure, axes = plt.subplots(figsize=(6, 2.8))
accuracies = [accuracy for _, accuracy in found["trials"]]
axes.scatter(
    range(len(accuracies)),
    accuracies,
    c=[worker for worker, _ in found["trials"]],
    cmap="tab10",
    vmax=9,
)
axes.step(range(len(accuracies)), np.maximum.accumulate(accuracies), where="post", color="grey")
axes.axhline(GOOD_ENOUGH, linestyle=":", color="grey")
axes.set_xlabel("trial, coloured by worker")
axes.set_ylabel("accuracy")
figure.tight_layout()

# %%
assert [worker.exitcode for worker in workers] == [0, 0, 0, -9]
assert found["best"] == max(accuracies)
