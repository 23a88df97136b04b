"""Shares on a Redis or Valkey: the same contract, over a server that many hosts reach.

Knows the server and what stands there; redis-py is imported when the first such share is opened.
What a share is there: see `scripts` and `scripts_keyed`. What weakens beside memory: the lock is a
lease, since a host can be gone without a word; reads are round trips; and a commit that was
acknowledged is as safe as the server keeps it.
"""
