"""Showing what a pruning run kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pai_cli.display.console import note, warn
from pai_cli.display.kept import show_counts
from pai_cli.errors import CollapseError
from pai_cli.files.tables import Format
from pai_cli.pruning.run import PruneRequest, PruneSummary


def tell_amount(request: PruneRequest) -> None:
    """Say how much is kept, where nobody said."""
    if request.density_default:
        kept = request.smallest_density
        note(
            f"keeping {100 * kept:g}% of the weights, density {kept:g} (the default; --density or --sparsity changes it)"
        )


@contextmanager
def tell_kept(state: Path | None) -> Iterator[None]:
    """On Ctrl-C, say what a method that trains has kept there and how to go on, then let the interruption through."""
    try:
        yield
    except KeyboardInterrupt:
        if state is not None and state.exists():
            note(f"{state}: what is done is kept; the same command with --resume goes on")
        raise


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


def show_pruning(result: PruneSummary, request: PruneRequest, path: Path, kind: Format) -> None:
    """The layers' densities on standard output, and where the mask went on standard error."""
    counts = {layer.name: (layer.shape, result.kept_by_layer[layer.name]) for layer in result.layers}
    show_counts(counts, path, kind, {"density_default": request.density_default})
