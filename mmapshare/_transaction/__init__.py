"""From taking the lock to the commit: blocks, views, drafts, and work without the lock.

Knows objects and how they are encoded, and of a store its methods; never a face, and never where a
store keeps anything.
"""
