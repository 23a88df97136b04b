"""`@shared_state`: functions and classes whose state is a share.

Knows the faces; nothing knows it.
"""

from .decorate import shared_state
from .functions import SharedFunction

__all__ = [
    "SharedFunction",
    "shared_state",
]
