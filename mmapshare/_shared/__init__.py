"""What `Share` and `SharedDict` have in common: life, waiting, handles.

Knows transactions and stores, and never what is in a store.
"""
