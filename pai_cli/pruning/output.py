"""A run's result as a mask file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.masks import MaskToWrite
from pai_cli.files.provenance import provenance
from pai_cli.files.stacks import stacked_layouts, stacked_masks, whole_stacks
from pai_cli.pruning.base import Masks
from pai_cli.pruning.run import PruneRequest, PruneResult, PruneSummary


def mask_to_write(
    result: PruneResult,
    request: PruneRequest,
    source: Checkpoint,
    arguments: Sequence[str],
    story: Mapping[str, str] | None = None,
) -> MaskToWrite:
    """The masks with the metadata that `run_metadata` makes and the `story`: what the request does not tell, of samples or a
    search.

    `arguments`: what was typed after `pai`.
    """
    metadata = {**run_metadata(result, request, source.sha256), **(story or {}), **provenance(arguments)}
    layouts = {layer.name: layer.layout for layer in result.layers}
    stacks = whole_stacks(source.stacks, layouts)
    return MaskToWrite(stacked_masks(result.masks, stacks), stacked_layouts(layouts, stacks), metadata)


def run_metadata(result: PruneSummary, request: PruneRequest, source_sha256: str) -> dict[str, str]:
    """The metadata of `mask-file`: method, density asked for, seed, scope, what the mask was made from."""
    return {
        "method": request.method.name,
        "density": repr(_density(result, request)),
        "seed": str(request.seed),
        "scope": result.scope,
        "rounds": str(result.rounds),
        "source_sha256": source_sha256,
        **_selection(request),
        **dict(request.story),
        **({"effective": str(result.effective)} if result.on_no_path or request.effective else {}),
        **_tied(result, request),
        **_stability(result),
    }


def _tied(result: PruneSummary, request: PruneRequest) -> dict[str, str]:
    """By layer how many weights had the score of the cut, and how many of those are kept; not of a pattern's many cuts."""
    if not result.ties or request.pattern is not None:
        return {}
    return {"tied": json.dumps(result.ties, separators=(",", ":"))}


def _stability(result: PruneSummary) -> dict[str, str]:
    """What prunings of perturbed weights keep of the mask, where there were any."""
    if result.stability is None:
        return {}
    return {"stability": json.dumps(result.stability.facts(), separators=(",", ":"))}


def stable_to_write(mask: MaskToWrite, stable: Masks) -> MaskToWrite:
    """The mask of those of its weights that every pruning of perturbed weights keeps: what is told of its own density and
    ties is not.
    """
    kept, total = sum(int(one.sum()) for one in stable.values()), sum(one.size for one in stable.values())
    told = {key: text for key, text in mask.metadata.items() if key not in ("density_default", "tied")}
    stacks = {name: mask.masks[name].shape for name, layout in mask.layouts.items() if layout.stacked}
    return MaskToWrite(
        stacked_masks(stable, stacks), mask.layouts, {**told, "density": repr(kept / total), "stable": "true"}
    )


def _density(result: PruneSummary, request: PruneRequest) -> float:
    """What was asked for; as it turned out, when a density was given for each layer."""
    if request.pattern is not None:
        return request.pattern.density
    return result.density if request.density is None else request.density


def _selection(request: PruneRequest) -> dict[str, str]:
    """What was asked for besides a density and a method, where it was, and that the density was not."""
    asked = {}
    if request.pattern is not None:
        asked["pattern"] = str(request.pattern)
    if request.densities is not None:
        asked["densities"] = json.dumps(dict(request.densities), separators=(",", ":"))
    for flag in ("density_default", "shuffle", "invert"):
        if getattr(request, flag):
            asked[flag] = "true"
    if request.ties != "first":
        asked["ties"] = request.ties
    return asked
