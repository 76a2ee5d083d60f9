"""Whether a run goes piece by piece. The masks are the same either way."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pai_cli.pruning.base import Method

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint

LARGE = 2**28
"""Weights from which on a checkpoint is pruned piece by piece.

Loaded, so many take 1 GiB in float32 and while they are read a second one; random scores, which are float64, and their
selection make that about 5 GiB. Below, a run takes little time and memory either way, and the network at hand tells more:
whether a path of kept weights leads from its input to its output.
"""


def in_pieces(source: Checkpoint, method: Method, model: str | None) -> bool:
    """Whether to prune the checkpoint without loading it: a method that scores in pieces, a large checkpoint in
    safetensors, and a network that names and shapes tell (code that makes a network makes all of it).
    """
    if method.in_pieces is None or not source.in_spans:
        return False
    if model is not None and (":" in model or model == "hf"):
        return False
    return sum(prod(shape) for shape in source.shapes.values()) >= LARGE
