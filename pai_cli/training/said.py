"""What a training says of itself: of its mask before it begins, then a few words beside a bar, and a line an epoch.

Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pai_cli.progress import Milestone
from pai_cli.spelling import option
from pai_cli.training.recipe import Dynamic, Recipe

if TYPE_CHECKING:
    from pai_cli.files.masks import Mask
    from pai_cli.files.tables import Value


def pattern_given_up(mask: Mask, recipe: Recipe) -> str:
    """That moves of a mask do not keep the pattern N:M which it was pruned by; "" where they do, or there is none."""
    pattern = mask.metadata.get("pattern", "")
    # Where weights only go, at most N of every M are kept still.
    if recipe.dynamic in (None, Dynamic.GMP) or not re.fullmatch("[0-9]{1,9}:[0-9]{1,9}", pattern):
        return ""
    keep, of = map(int, pattern.split(":"))
    if recipe.pattern is not None:
        times, rest = divmod(of, recipe.pattern.of)
        if not rest and keep == times * recipe.pattern.keep:  # k N of every k M are N of each M
            return ""
    srigl = "" if recipe.dynamic is Dynamic.SRIGL else f"{option('dynamic', Dynamic.SRIGL)} and "
    moves = option("dynamic", recipe.dynamic) if recipe.pattern is None else option("pattern", recipe.pattern)
    return (
        f"{moves}: moves do not keep {pattern}, which {mask.path} was pruned by; give {srigl}{option('pattern', pattern)} "
        "to keep it"
    )


def in_epoch(at: tuple[int, int], loss: float | None, accuracy: float | None, lr: float) -> str:
    """Which epoch of how many it is, the loss and the accuracy as last looked at, and the learning rate."""
    known = [] if loss is None else [f"loss {loss:.3g}"]
    known += [] if accuracy is None else [f"accuracy {accuracy:.1%}"]
    return ", ".join([f"epoch {at[0]}/{at[1]}", *known, f"lr {lr:.3g}"])


def epoch_over(record: Mapping[str, Value], epochs: int) -> Milestone:
    """A line on an epoch that is over, from its numbers: those of the examples held out, where some are."""
    parts = [f"epoch {record['epoch']}/{epochs}: lr {record['lr']:.3g}, {_measured(record, 'train')}"]
    if "validation_loss" in record:
        best = ", the best so far" if record["best_epoch"] == record["epoch"] else ""
        parts.append(f"held out: {_measured(record, 'validation')}{best}")
    return Milestone("; ".join(parts))


def _measured(record: Mapping[str, Value], part: str) -> str:
    return f"loss {record[f'{part}_loss']:.4g}, accuracy {record[f'{part}_accuracy']:.2%}"
