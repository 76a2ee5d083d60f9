"""`pai sample --construct`: a mask that is built instead of searched for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.display.expanders import show_construction

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.models.network import Network
    from pai_cli.pruning.request import PruneRequest
    from pai_cli.sampling.expanders.layer import Construction
    from pai_cli.sampling.expanders.network import BuiltNetwork
    from pai_cli.sampling.workers import Workers

__all__ = ["construct_mask", "show_construction", "write_built"]


def construct_mask(
    source: Checkpoint, network: Network, request: PruneRequest, construction: Construction, workers: Workers
) -> BuiltNetwork:
    """Build the mask, with a progress bar, and tell what is worth knowing of it."""
    from pai_cli.display.console import note
    from pai_cli.display.progress import progress_bar
    from pai_cli.display.pruning import tell_pruning
    from pai_cli.sampling.expanders.network import construct

    note(f"{source.path}: {network.description}, {network.total:,} prunable weights")
    with progress_bar(construction.kind) as progress:
        built = construct(network, request, construction, workers, progress)
    tell_pruning(built.pruned, no_collapse=False)
    return built


def write_built(
    path: Path, built: BuiltNetwork, source: Checkpoint, arguments: Sequence[str], *, packed: bool, force: bool
) -> None:
    """Write the mask. Raises `OutputError`."""
    from pai_cli.files.masks import write_mask
    from pai_cli.pruning.output import mask_to_write

    write_mask(
        path,
        mask_to_write(built.pruned, built.request, source, arguments, {"method": built.kind}),
        packed=packed,
        force=force,
    )
