"""`stability` of `prune`: what is asked of prunings of perturbed weights, and what is said and written of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.masks import Mask
from pai_cli.errors import UsageError
from pai_cli.pruning.stability import PERTURBATION, Stability
from pai_cli.spectral.parameters import shown
from pai_cli.spelling import option
from pai_cli.telling import note, warn

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset
    from pai_cli.files.masks import MaskToWrite
    from pai_cli.models.network import Network
    from pai_cli.progress import Progress
    from pai_cli.pruning.base import Masks
    from pai_cli.pruning.run import PruneRequest, PruneResult, PruneSummary


@dataclass(frozen=True)
class Repeats:
    """Prunings of perturbed weights that are wanted, and where the mask of what all of them keep goes."""

    prunings: int
    perturbation: float
    out: Path | None


def repeats_of(stability: Any, perturbation: Any, out: Path | None) -> Repeats | None:
    """What is wanted, None for nothing. Raises `UsageError` for numbers out of range."""
    if stability is None:
        return None
    if isinstance(stability, bool) or not isinstance(stability, int) or stability < 1:
        raise UsageError(f"{option('stability', shown(stability))}: must be a whole number of 1 or more")
    size = PERTURBATION if perturbation is None else perturbation
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < 1:
        raise UsageError(f"{option('perturbation', shown(size))}: must be a number above 0 and below 1")
    return Repeats(stability, float(size), out)


@dataclass(frozen=True)
class Found:
    """What came of them: the result with its stability, the weights that all keep, and the interruption that ended them.

    `stable`: None where no pruning could be made.
    """

    result: PruneResult
    stable: Masks | None = None
    stopped: KeyboardInterrupt | None = None


def found_again(
    network: Network, request: PruneRequest, result: PruneResult, wanted: Repeats, *,
    progress: Progress, dataset: Dataset | None,
) -> Found:  # fmt: skip
    """Make the prunings, and say what they found. An interruption ends them, and is given with what was made."""
    from pai_cli.pruning.again import Again, prune_again

    if not request.method.reads_weights:
        return Found(replace(result, stability=certain(result, request, wanted)), result.masks)
    if request.method.trains:
        note(f"{option('stability', wanted.prunings)}: {request.method.name} trains as many times more")
    again = Again(result.masks, wanted.prunings, wanted.perturbation)
    stopped = None
    try:
        prune_again(network, request, again, progress, dataset)
    except KeyboardInterrupt as interruption:
        stopped = interruption
    stability = again.result()
    if again.failed:
        warn(f"{len(again.failed)} of {wanted.prunings} prunings of perturbed weights fail: {again.failed[0]}")
    if stability is None:
        left = f"; {wanted.out} is not written" if wanted.out else ""
        warn(f"no pruning of perturbed weights was made, so how stable the mask is is not known{left}")
        return Found(result, None, stopped)
    _tell(stability, wanted)
    return Found(replace(result, stability=stability), again.stable, stopped)


def certain(result: PruneSummary, request: PruneRequest, wanted: Repeats) -> Stability:
    """That of a method which looks at no weight, without a pruning; it is said."""
    note(f"overlap 1: {request.method.name} looks at no weight, so no change of them changes what it keeps")
    kept = result.kept_by_layer
    return Stability(wanted.perturbation, kept, (kept,) * wanted.prunings, kept)


def _tell(stability: Stability, wanted: Repeats) -> None:
    least = {name: stability.least_overlap(name) for name in stability.kept}
    worst, value = min(((name, one) for name, one in least.items() if one is not None), key=lambda pair: pair[1])
    where = f" (in {worst} {value:.6g})" if value < 1 else ""
    made = "" if stability.prunings == wanted.prunings else f"{stability.prunings} of "
    note(
        f"{made}{wanted.prunings} prunings of weights changed by at most {stability.perturbation:g} of each: overlap "
        f"{stability.overlap():.6g} on average, {stability.least_overlap():.6g} at the least{where}; "
        f"{sum(stability.stable.values()):,} of {sum(stability.kept.values()):,} weights are kept every time"
    )


def stable_mask(wanted: Repeats, mask: MaskToWrite, stable: Masks, *, packed: bool, force: bool) -> Mask:
    """The mask of the weights that all prunings keep, written where that is asked for. Raises `OutputError`."""
    from pai_cli.files.masks import write_mask
    from pai_cli.pruning.output import stable_to_write

    part = stable_to_write(mask, stable)
    made = Mask(part.masks, layouts=part.layouts, metadata=part.metadata)
    if wanted.out is not None:
        write_mask(wanted.out, part, packed=packed, force=force)
        made.path = wanted.out
        note(f"wrote {wanted.out}: the {made.kept:,} weights that are kept every time, density {made.density:.6g}")
    return made
