"""`@shared_state`: functions and classes whose state is a share.

Knows the faces; nothing knows it.
"""
