"""Showing what a pruning run kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.display.kept import show_counts
from pai_cli.files.tables import Format, Record

if TYPE_CHECKING:
    from pai_cli.pruning.run import PruneSummary


def show_pruning(result: PruneSummary, path: Path, kind: Format, *, density_default: bool) -> None:
    """The layers' densities on standard output, and where the mask went on standard error."""
    counts = {layer.name: (layer.shape, result.kept_by_layer[layer.name]) for layer in result.layers}
    more: Record = {"density_default": density_default}
    beside: list[Record] = []
    if result.stability is not None:
        more |= {"prunings": result.stability.prunings, "perturbation": result.stability.perturbation}
        beside = [result.stability.record(name) for name in (*counts, None)]
    show_counts(counts, path, kind, more, beside)
