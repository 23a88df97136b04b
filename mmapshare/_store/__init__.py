"""Committed bytes by version: the contract of a store (`base`), and the one over memory.

Knows every byte of a region, and the lock; never an object, and so never the codec.
"""
