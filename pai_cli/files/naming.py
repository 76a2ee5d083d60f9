"""Orders of names as a person would put them."""

from __future__ import annotations

import re


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """A sort key under which `features.2` comes before `features.10`."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


def file_order(name: str) -> list[tuple[int, float | str]]:
    """A sort key for file names: `mask-2` before `mask-10`, and as densities have it `erk-0.05` before `erk-0.2`."""
    parts = re.split(r"(\d+\.\d+|\d+)", name)
    return [(0, float(part)) if part[0].isdecimal() else (1, part) for part in parts if part]
