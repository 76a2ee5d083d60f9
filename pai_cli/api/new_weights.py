"""The weights that go with a mask: redrawn, or those of a method that trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.files.provenance import provenance, typed
from pai_cli.spelling import option
from pai_cli.telling import note

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.models.network import Network
    from pai_cli.pruning.run import PruneRequest
    from pai_cli.pruning.trained import TrainingRun


@dataclass(frozen=True)
class Weights:
    """The weights that a mask is meant for: of `network`, or what the method that trains left in its `run`."""

    path: Path | None
    network: Network
    source: Checkpoint
    request: PruneRequest
    run: TrainingRun


def write_weights(weights: Weights, *, reinit: bool, force: bool) -> None:
    """Write the weights that the mask is meant for as a checkpoint, none of them masked; without a path, say so where
    they are others than the checkpoint's.
    """
    from pai_cli.models.network import save_checkpoint
    from pai_cli.pruning.sanity import redrawn, with_weights

    path, network, source, run, request = weights.path, weights.network, weights.source, weights.run, weights.request
    if path is None:
        if run.weights:
            out = option("weights_out", "OUT")
            note(f"the mask belongs to other weights than those of {source.path}; {out} would have written them")
        return
    told = {"redrawn_from_sha256" if reinit else "source_sha256": source.sha256, "seed": str(request.seed)}
    whose = "its parameters"
    if run.weights:
        network, whose = with_weights(network, run.weights), f"the weights that {request.method.name} masks"
        told |= {"method": request.method.name, **run.story}
    if reinit:
        network, whose = redrawn(network, request.seed), f"{whose} redrawn"
    save_checkpoint(path, network, {**told, **provenance(typed())}, force=force)
    note(f"wrote {path}: {network.description}, {whose}")
