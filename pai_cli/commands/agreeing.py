"""What `pai mine` does before it searches: which options go together, the files opened, the consensus written."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pai_cli.files.masks import Mask
    from pai_cli.files.plan import FilePlan
    from pai_cli.mining.collection import Collection
    from pai_cli.mining.level import Level
    from pai_cli.progress import Progress


@dataclass(frozen=True)
class Given:
    """What was asked for, of the options that say what is read and written."""

    files: list[str]
    graphs: bool
    level: Level | None
    weights: Path | None
    model: str | None
    input_shape: tuple[int, ...] | None
    output: Path | None
    packed: bool
    force: bool
    trust: bool


def check_given(given: Given) -> None:
    """Wrong usage where an option could do nothing."""
    of_masks = {
        "--level": given.level,
        "--weights": given.weights,
        "--output": given.output,
        "--trust": given.trust or None,
    }
    idle = [flag for flag, value in of_masks.items() if value is not None]
    if given.graphs and idle:
        raise typer.BadParameter(f"{idle[0]}: is about masks, and --graphs reads lists of edges; leave one out")
    if given.weights is None and (given.model is not None or given.input_shape is not None):
        flag = "--input-shape" if given.model is None else "--model"
        raise typer.BadParameter(f"{flag}: says how --weights is followed; give --weights CKPT too")
    if given.weights is not None and given.level is not None and given.level.value == "weight":
        raise typer.BadParameter("--weights: at --level weight layers stand by themselves; leave it out")
    if given.packed and given.output is None:
        raise typer.BadParameter("--packed: is about the mask that -o writes; give -o MASK too")


def check_search(ctx: typer.Context, *, overlap: bool, consensus: bool) -> None:
    """Wrong usage where an option of the search is given and --overlap searches nothing.

    --support counts without a search too where a consensus is written.
    """
    of_search = ("min_edges", "max_results", "timeout", *(() if consensus else ("support",)))
    idle = [name for name in of_search if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if overlap and idle:
        flag = "--" + idle[0].replace("_", "-")
        raise typer.BadParameter(f"{flag}: is about the search, and --overlap makes none; leave one out")


def open_collection(given: Given, plan: FilePlan, progress: Progress) -> tuple[Collection, list[Mask]]:
    """The graphs, and the masks they are of (none with --graphs)."""
    from pai_cli.api.plans import read_masks
    from pai_cli.display.console import note
    from pai_cli.files.paths import mask_paths
    from pai_cli.mining.level import Level
    from pai_cli.mining.opening import NetworkSource, graph_collection, mask_collection, open_masks

    if given.graphs:
        return graph_collection([Path(text) for text in given.files], note, progress), []
    paths = mask_paths(given.files, sys.stdin or io.StringIO(), note, trust=given.trust)
    read_masks(plan, paths)
    masks = open_masks(paths, note, trust=given.trust)
    source = NetworkSource(given.weights, given.model, given.input_shape, given.trust)
    return mask_collection(masks, given.level or Level.UNIT, source, note, progress), masks


def write_consensus(given: Given, masks: Sequence[Mask], support: int, arguments: Sequence[str]) -> bool:
    """Write the mask of what enough masks keep, where -o asks for it, and say how much that is.

    Gives whether it went to standard output or a pipe, where tables would end up in it.
    """
    if given.output is None:
        return False
    import numpy as np

    from pai_cli.display.console import note, warn
    from pai_cli.files.atomic import is_special
    from pai_cli.files.masks import write_mask
    from pai_cli.files.provenance import provenance
    from pai_cli.mining.consensus import consensus

    mask = consensus(masks, support, provenance(arguments))
    write_mask(given.output, mask, packed=given.packed, force=given.force)
    kept = {name: int(np.count_nonzero(array)) for name, array in mask.masks.items()}
    total = sum(array.size for array in mask.masks.values())
    note(
        f"wrote {given.output}: the {sum(kept.values()):,} of {total:,} weights that {support} of {len(masks)} masks keep, "
        f"density {sum(kept.values()) / total:.6g}"
    )
    collapsed = [name for name, count in kept.items() if not count]
    if collapsed:
        warn(f"layer collapse: {', '.join(collapsed)} kept no weight; lower --support")
    return is_special(given.output)
