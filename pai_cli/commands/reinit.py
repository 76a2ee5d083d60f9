"""`pai prune -w`: the weights that go with the mask: redrawn by --reinit, or those of a method that trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.models.network import Network
    from pai_cli.pruning.base import Method
    from pai_cli.pruning.run import PruneRequest
    from pai_cli.pruning.trained import TrainingRun


def refuse_weights_early(path: Path | None, method: Method, *, reinit: bool) -> None:
    """Refuse --reinit and -w without each other, before any work.

    A method that trains has weights to write without --reinit as well.
    """
    from pai_cli.errors import MethodOptionError

    if reinit and path is None:
        raise MethodOptionError("--reinit: redraws the weights; say with -w where to write them")
    if path is None:
        return
    if not reinit and not method.trains:
        raise MethodOptionError(
            f"-w {path}: {method.name} leaves the weights as they are; give --reinit, or leave -w out"
        )


@dataclass(frozen=True)
class Weights:
    """The weights that a mask is meant for: of `network`, or what the method that trains left in its `run`."""

    path: Path | None
    network: Network
    source: Checkpoint
    request: PruneRequest
    run: TrainingRun


def write_weights(weights: Weights, arguments: Sequence[str], *, reinit: bool, force: bool) -> None:
    """Write the weights that the mask is meant for as a checkpoint, none of them masked; without a path, say so where
    they are others than the checkpoint's.
    """
    from pai_cli.display.console import note
    from pai_cli.files.provenance import provenance
    from pai_cli.models.network import save_checkpoint
    from pai_cli.pruning.sanity import redrawn, with_weights

    path, network, source, run, request = weights.path, weights.network, weights.source, weights.run, weights.request
    if path is None:
        if run.weights:
            note(f"the mask belongs to other weights than those of {source.path}; -w OUT would have written them")
        return
    told = {"redrawn_from_sha256" if reinit else "source_sha256": source.sha256, "seed": str(request.seed)}
    whose = "its parameters"
    if run.weights:
        network, whose = with_weights(network, run.weights), f"the weights that {request.method.name} masks"
        told |= {"method": request.method.name, **run.story}
    if reinit:
        network, whose = redrawn(network, request.seed), f"{whose} redrawn"
    save_checkpoint(path, network, {**told, **provenance(arguments)}, force=force)
    note(f"wrote {path}: {network.description}, {whose}")
