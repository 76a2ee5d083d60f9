"""Which seeds there are."""

from __future__ import annotations

from pai_cli.errors import MethodOptionError
from pai_cli.spelling import option

LARGEST_SEED = 2**63 - 1
"""The largest that every random generator here takes."""


def check_seed(seed: int) -> None:
    """Raise `MethodOptionError` unless 0 <= seed <= `LARGEST_SEED`."""
    if not 0 <= seed <= LARGEST_SEED:
        raise MethodOptionError(f"{option('seed', seed)}: must be 0 to {LARGEST_SEED}")
