"""`pai prune --reinit`: the redrawn weights beside the mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.models.network import Network


def refuse_weights_early(path: Path | None, mask: Path, *, reinit: bool, force: bool) -> None:
    """Refuse --reinit and -w without each other, and an output that cannot be written, before any work."""
    from pai_cli.errors import MethodOptionError, OutputError
    from pai_cli.files.atomic import check_output

    if reinit and path is None:
        raise MethodOptionError("--reinit: redraws the weights; say with -w where to write them")
    if path is None:
        return
    if not reinit:
        raise MethodOptionError(f"-w {path}: only --reinit changes weights; give both, or leave -w out")
    if path.resolve() == mask.resolve():
        raise OutputError(f"{path}: the mask and the weights need different names; change -o or -w")
    check_output(path, force=force)


def write_redrawn(
    path: Path, network: Network, source: Checkpoint, seed: int, arguments: Sequence[str], *, force: bool
) -> None:
    """Write the network, its parameters redrawn by the seed, as a checkpoint; no weight is masked in it."""
    from pai_cli.display.console import note
    from pai_cli.files.provenance import provenance
    from pai_cli.models.network import save_checkpoint
    from pai_cli.pruning.sanity import redrawn

    story = {"redrawn_from_sha256": source.sha256, "seed": str(seed), **provenance(arguments)}
    save_checkpoint(path, redrawn(network, seed), story, force=force)
    note(f"wrote {path}: {network.description}, its parameters redrawn")
