"""A run's result as a mask file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.masks import MaskToWrite
from pai_cli.files.provenance import provenance
from pai_cli.pruning.run import PruneRequest, PruneResult


def mask_to_write(
    result: PruneResult,
    request: PruneRequest,
    source: Checkpoint,
    arguments: Sequence[str],
    story: Mapping[str, str] | None = None,
) -> MaskToWrite:
    """The masks with the metadata of `mask-file`: method, density asked for, seed, scope, what they were made from.

    `arguments`: what was typed after `pai`. `story`: metadata of what was done beyond one run, a search.
    """
    metadata = {
        "method": request.method,
        "density": repr(request.density),
        "seed": str(request.seed),
        "scope": result.scope,
        "rounds": str(result.rounds),
        "source_sha256": source.sha256,
        **(story or {}),
        **provenance(arguments),
    }
    return MaskToWrite(result.masks, {layer.name: layer.layout for layer in result.layers}, metadata)
