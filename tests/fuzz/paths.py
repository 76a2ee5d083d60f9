"""Random networks with shortcuts, concatenations, groups and pooling: their paths, against an enumeration of every path."""

from __future__ import annotations

from pathlib import Path

from test_unrolled import check_every_path


def case(seed: int, folder: Path) -> None:
    """A few networks, each under one mask."""
    for number in range(10):
        check_every_path(10 * seed + number)
