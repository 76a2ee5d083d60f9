"""Where a training writes. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outputs:
    """Where a training writes; `weights`: None keeps nothing on disk, neither a journal nor a state to go on from.

    `mask`: the final mask of a dynamic one; `plot`: the picture of how it went; `results`: the table; `log_dir`: the folder
    of TensorBoard's events. `keep_every`: seconds between two states. `force`: what is in the way of any of them may go.
    """

    weights: Path | None
    mask: Path | None = None
    plot: Path | None = None
    results: Path | None = None
    log_dir: Path | None = None
    keep_every: float = 600.0
    force: bool = False
