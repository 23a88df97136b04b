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
# # A rule that is swapped while others use it
#
# Lambdas and closures are values like any other. Here two workers price orders by a rule that
# stands in a share, and the rule changes while they work.

# %%
import multiprocessing
import warnings

from mmapshare import Share, SharedDict

# A kernel has threads, and Python 3.12 and later warn of fork then. What runs in the
# children here, Python and mmapshare, may be forked beside them.
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
fork = multiprocessing.get_context("fork")

rule = Share(lambda amount: amount)
seen = SharedDict()
stop = Share(False)


# %% [markdown]
# Each worker asks for the rule anew for each order. `get` takes no lock and waits for nobody. It
# notes which prices it came to for an order of 100.


# %%
def work(name):
    while not stop.get():
        price = rule.get()(100)
        with seen.locked() as view:
            prices = view.setdefault(name, [])
            if price not in prices:
                prices.append(price)


workers = [fork.Process(target=work, args=(name,)) for name in ("anna", "ben")]
for worker in workers:
    worker.start()


# %% [markdown]
# `wait` sleeps until the predicate holds. Both have met the first rule:


# %%
def both_have(price):
    return seen.wait(
        lambda found: all(price in found.get(name, ()) for name in ("anna", "ben")), timeout=30
    )


both_have(100), dict(seen)

# %% [markdown]
# Now it is ten percent off, then a closure over a rate, then both rules at once.

# %%
rule.set(lambda amount: amount * 0.9)
both_have(90.0), dict(seen)


# %%
def with_tax(rate, before=None):
    return lambda amount: round((before(amount) if before else amount) * (1 + rate), 2)


rule.set(with_tax(0.2))
both_have(120.0), dict(seen)

# %%
rule.update(lambda old: with_tax(0.05, before=lambda amount: amount * 0.9))
both_have(94.5), dict(seen)

# %% [markdown]
# A closure is copied when it is stored: what it closes over afterwards is its own.

# %%
stop.set(True)
for worker in workers:
    worker.join()
seen

# %%
assert [worker.exitcode for worker in workers] == [0, 0]
assert seen.copy() == {name: [100, 90.0, 120.0, 94.5] for name in ("anna", "ben")}
