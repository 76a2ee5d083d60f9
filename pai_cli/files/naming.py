"""Orders of names as a person would put them."""

from __future__ import annotations

import re


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """A sort key under which `features.2` comes before `features.10`."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]
