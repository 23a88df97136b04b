"""One owner at a time, over processes, threads, tasks and greenlets.

Knows owners, and the words that tell of them; never what the lock protects.
"""
