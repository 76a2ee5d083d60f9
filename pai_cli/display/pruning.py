"""Showing what a pruning run kept."""

from __future__ import annotations

from pathlib import Path

from pai_cli.display.console import warn
from pai_cli.display.kept import show_counts
from pai_cli.errors import CollapseError
from pai_cli.files.tables import Format
from pai_cli.pruning.run import PruneSummary


def tell_pruning(result: PruneSummary, *, no_collapse: bool) -> None:
    """Warn of collapsed layers, of those that no pattern fits and of a network cut through.

    Raises `CollapseError` when the user refuses collapse.
    """
    if result.whole:
        warn(f"the pattern does not divide the inputs of {', '.join(result.whole)}: left whole")
    if result.collapsed:
        names = ", ".join(result.collapsed)
        if no_collapse:
            raise CollapseError(
                f"--no-collapse: {len(result.collapsed)} layers would keep no weight ({names}); "
                "raise --density, or take --scope layer"
            )
        warn(f"layer collapse: {names} kept no weight")
    if result.connected is False:
        warn("no path of kept weights leads from the input to the output: nothing can be trained")


def show_pruning(result: PruneSummary, path: Path, kind: Format) -> None:
    """The layers' densities on standard output, and where the mask went on standard error."""
    show_counts({layer.name: (layer.shape, result.kept_by_layer[layer.name]) for layer in result.layers}, path, kind)
