"""Pruning a checkpoint larger than memory into its file, for `prune`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.api.masks import Mask
from pai_cli.api.requests import tell_pruning
from pai_cli.api.stability import Repeats, certain
from pai_cli.files.atomic import is_special
from pai_cli.files.provenance import typed
from pai_cli.spelling import option
from pai_cli.telling import note

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.models.network import Network
    from pai_cli.progress import Progress
    from pai_cli.pruning.base import Method
    from pai_cli.pruning.request import PruneRequest


@dataclass(frozen=True)
class Written:
    """Where a run's mask goes, and how; `repeats`: what is to be found out of its stability before."""

    path: Path | None
    packed: bool
    no_collapse: bool
    force: bool
    repeats: Repeats | None


def why_whole(
    path: Path | None,
    ties: str | None,
    method: Method,
    repeats: Repeats | None,
    *,
    pattern: bool,
    reinit: bool,
    effective: bool,
) -> str:
    """What keeps a checkpoint from being pruned piece by piece, whatever its size and the method; "" for nothing."""
    if path is None:
        return f"the mask goes to no file; {option('output')} names one"
    if reinit:
        return f"{option('reinit')} writes the weights too"
    if effective:
        return f"{option('effective')} looks for paths through the network"
    if pattern and ties in ("random", "error"):
        return f"{option('ties', ties)} settles what {option('pattern')} ties"
    if repeats is not None and (method.reads_weights or repeats.out is not None):
        return f"{option('stability', repeats.prunings)} prunes again what is perturbed"
    return ""


def prune_in_pieces(
    source: Checkpoint, network: Network, request: PruneRequest, written: Written, progress: Progress
) -> Mask:
    """Prune a large checkpoint piece by piece, into its file."""
    from pai_cli.pruning.streaming.choosing import choose
    from pai_cli.pruning.streaming.writing import write_chosen

    assert written.path is not None
    chosen = choose(source, network, request, progress)
    tell_pruning(chosen.summary, network, no_collapse=written.no_collapse, rule=request.ties)
    if request.input_shape or network.input_shape:
        note("pruned piece by piece: whether a path of kept weights leads from input to output is not looked for")
    if request.pattern is not None and not request.method.random:
        note("pruned piece by piece: of equal scores in a group the first are kept, and it is not counted how many")
    if written.repeats is not None:
        stability = certain(chosen.summary, request, written.repeats)
        chosen = replace(chosen, summary=replace(chosen.summary, stability=stability))
    write_chosen(written.path, chosen, typed(), progress, packed=written.packed, force=written.force)
    if is_special(written.path):
        return Mask.elsewhere(written.path, chosen.summary, source.stacks)
    mask = Mask.load(written.path)
    mask.summary = chosen.summary
    mask.stable = mask if written.repeats is not None else None
    return mask
