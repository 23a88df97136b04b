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
# # Lost updates, and how a block cures them
#
# Four processes add 1 to the same number, 5 000 times each. It should be 20 000
# in the end.
#
# `%%fork 4` runs a cell in four forked children; in each of them `rank` is its number.

# %%
# %load_ext mmapshare
import matplotlib.pyplot as plt

from mmapshare import Share

# %% [markdown]
# ## Read, add, write
#
# Each child reads the number, adds 1, and writes it back. Between the read and the write another
# one does the same, and one of the two is lost.

# %%
careless = Share(0)
started = Share(0)

# %%
# %%fork 4
started.update(lambda n: n + 1)
started.wait(lambda n: n == 4)  # All are here.
for _ in range(5000):
    careless.set(careless.get() + 1)
print("added 5 000")

# %%
careless

# %% [markdown]
# ## The same in a block
#
# `locked()` lets one holder in at a time, over all processes. What the block changed is committed
# when it ends, all of it or, on an exception or a kill, nothing.

# %%
careful = Share(0)

# %%
# %%fork 4
for _ in range(5000):
    with careful.locked() as view:
        view.value += 1
print("added 5 000")

# %%
careful

# %% [markdown]
# ## What got lost

# %%
figure, axes = plt.subplots(figsize=(5, 2.2))
numbers = [careless.get(), careful.get()]
bars = axes.barh(["get, add, set", "locked()"], numbers, color=["#d97706", "#3b82f6"])
axes.bar_label(bars, padding=4)
axes.axvline(20_000, linestyle=":", color="grey")
axes.set_xlim(0, 24_000)
axes.set_xlabel("counted of 20 000")
axes.invert_yaxis()
figure.tight_layout()

# %%
assert careful.get() == 20_000
assert careless.get() < 20_000
