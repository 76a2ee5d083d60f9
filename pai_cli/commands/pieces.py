"""`pai prune` of a checkpoint that is large: read, chosen from and written piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.files.tables import Format
    from pai_cli.models.network import Network
    from pai_cli.pruning.run import PruneRequest


def prune_in_pieces(
    path: Path,
    source: Checkpoint,
    network: Network,
    request: PruneRequest,
    arguments: Sequence[str],
    packed: bool,
    no_collapse: bool,
    force: bool,
    kind: Format,
) -> None:
    """Choose and write the mask, warn as for any other, and show what was kept."""
    from pai_cli.display.console import note
    from pai_cli.display.progress import progress_bar
    from pai_cli.display.pruning import show_pruning, tell_pruning
    from pai_cli.pruning.streaming.choosing import choose
    from pai_cli.pruning.streaming.writing import write_chosen

    with progress_bar(request.method.name) as progress:
        chosen = choose(source, network, request, progress)
    tell_pruning(chosen.summary, no_collapse=no_collapse)
    if request.input_shape or network.input_shape:
        note("pruned piece by piece: whether a path of kept weights leads from input to output is not looked for")
    with progress_bar(request.method.name) as progress:
        write_chosen(path, chosen, arguments, progress, packed=packed, force=force)
    show_pruning(chosen.summary, request, path, kind)
