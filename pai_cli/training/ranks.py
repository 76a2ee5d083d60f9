"""What `torchrun` tells a process of itself. Imports nothing heavy."""

from __future__ import annotations

import os


def started_by_torchrun() -> bool:
    """Whether this process is one of several that `torchrun` started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def rank_here() -> int:
    """This process's number among those that `torchrun` started; 0 when it did not."""
    return int(os.environ["RANK"]) if started_by_torchrun() else 0


def world_here() -> int:
    """How many processes `torchrun` started; 1 when it did not."""
    return int(os.environ["WORLD_SIZE"]) if started_by_torchrun() else 1
