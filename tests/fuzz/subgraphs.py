"""Small collections of graphs: both searches for what they share find what brute force finds, and nothing twice."""

from __future__ import annotations

import random
from pathlib import Path

from test_mining import assert_both_find_all


def case(seed: int, folder: Path) -> None:
    """A hundred collections."""
    generator = random.Random(seed)
    for _ in range(100):
        assert_both_find_all(generator.getrandbits(48))
