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
# # One key of many
#
# A `Share` reads and writes its whole value in each transaction. A `SharedDict` stores each value
# by itself: a change costs what changed, however much is there. Where do they part?

# %%
import statistics
import time

import matplotlib.pyplot as plt

from mmapshare import Share, SharedDict


def microseconds(shared, key, rounds):
    """The median of some blocks that add 1 to one key."""
    took = []
    for _ in range(rounds):
        begin = time.perf_counter()
        with shared.locked() as view:
            view[key] += 1
        took.append(time.perf_counter() - begin)
    return 1e6 * statistics.median(took)


# %%
sizes = [1, 10, 100, 1_000, 10_000, 100_000]
whole, by_key = [], []
for size in sizes:
    items = dict.fromkeys(range(size), 0)
    rounds = max(5, min(500, 200_000 // size))
    whole.append(microseconds(Share(items), size // 2, rounds))
    by_key.append(microseconds(SharedDict(items), size // 2, 500))

for size, one, other in zip(sizes, whole, by_key, strict=True):
    print(f"{size:>7,} keys: Share {one:>9.1f} µs, SharedDict {other:>5.1f} µs")

# %%
figure, axes = plt.subplots(figsize=(6, 3))
axes.loglog(sizes, whole, "o-", color="#d97706", label="Share of a dict")
axes.loglog(sizes, by_key, "o-", color="#3b82f6", label="SharedDict")
axes.set_xlabel("keys")
axes.set_ylabel("µs for a block that adds 1 to one")
axes.legend()
axes.grid(alpha=0.3)
figure.tight_layout()

# %% [markdown]
# For a handful of keys a `Share` is faster, and it keeps identity between values. From some hundred
# keys on it is a `SharedDict`'s work. (Each process keeps an index of the keys; when half of the
# memory is dead, the next commit copies what lives.)

# %%
assert whole[-1] > 20 * by_key[-1]
