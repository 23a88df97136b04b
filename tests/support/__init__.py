"""What several tests use; whatever reaches into the package does so through `inside`."""

from . import built as built  # First: it says which build of the core the others import.
from .children import TESTS, Child, as_somebody_else, in_child, stranger
from .descriptors import no_more_descriptors, open_fds, region_mappings
from .shares import forget, interrupt_releases, is_free, locked, opened_again
from .traps import PACKAGE, SEED, kill_self, killed_at_every_step, trap
from .wanted import Wanted

__all__ = [
    "PACKAGE",
    "SEED",
    "TESTS",
    "Child",
    "Wanted",
    "as_somebody_else",
    "forget",
    "in_child",
    "interrupt_releases",
    "is_free",
    "kill_self",
    "killed_at_every_step",
    "locked",
    "no_more_descriptors",
    "open_fds",
    "opened_again",
    "region_mappings",
    "stranger",
    "trap",
]
