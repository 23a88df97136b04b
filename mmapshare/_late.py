"""Late imports and forks keep out of each other's way.

1. Thread A imports a module. 2. Thread B forks. 3. The child, which has no thread A, imports that
module too, and waits for ever for A to be done with it. So this package holds `importing` while
it imports something late, and no fork begins meanwhile.
"""

from __future__ import annotations

import os
from threading import RLock
from typing import Final

importing: Final = RLock()
"""``with importing: import ...`` in any function that may run beside a fork."""

if hasattr(os, "register_at_fork"):  # only with fork
    os.register_at_fork(
        before=importing.acquire,
        after_in_parent=importing.release,
        after_in_child=importing.release,
    )
