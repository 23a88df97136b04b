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
# # A large histogram, filled by four workers and drawn while they work
#
# Four children throw points at one histogram of 256 MiB. Each block adds to a slice, and costs
# the pages that it touches. The notebook looks at it meanwhile, without a copy: always one version.

# %%
import os
import time

import matplotlib.pyplot as plt
import numpy as np

from mmapshare import Share

SIDE, STRIP, POINTS, BLOCKS = 8192, 64, 2_000, 20
histogram = Share(np.zeros((SIDE, SIDE), "u4"))
print(histogram.info().used_bytes >> 20, "MiB")


# %%
def throw(rank):
    """Blocks that each add some points to a strip of rows, near the middle above all."""
    rng = np.random.default_rng(rank)
    for _ in range(BLOCKS):
        first = int(np.clip(rng.normal(SIDE / 2, SIDE / 6), 0, SIDE - STRIP))
        columns = np.clip(rng.normal(SIDE / 2, SIDE / 8, POINTS), 0, SIDE - 1).astype(int)
        rows = rng.integers(0, STRIP, POINTS)
        with histogram.locked() as view:
            np.add.at(view.value[first : first + STRIP], (rows, columns), 1)


children = []
for rank in range(4):
    pid = os.fork()
    if pid == 0:
        try:
            throw(rank)
        finally:
            os._exit(0)
    children.append(pid)

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3))
for number, axis in enumerate(axes, 1):
    while histogram.version < 25 * number:
        histogram.wait(since=histogram.version, timeout=60)
    begin = time.perf_counter()
    seen = histogram.snapshot(copy=False)
    took = time.perf_counter() - begin
    assert seen.value.sum() == POINTS * (seen.version - 1), "a block is there whole, or not at all"
    axis.imshow(seen.value.reshape(128, 64, 128, 64).sum(axis=(1, 3)))
    axis.set_title(f"version {seen.version}, got in {1e3 * took:.1f} ms")
    axis.set_axis_off()
plt.show()

# %%
for pid in children:
    os.waitpid(pid, 0)
assert histogram.get(copy=False).sum() == 4 * BLOCKS * POINTS
print(f"{histogram.version - 1} blocks, {histogram.get(copy=False).sum():,} points")
