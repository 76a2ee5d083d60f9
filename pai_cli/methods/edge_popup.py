"""edge-popup: a subnetwork of signed constants, each layer's largest of the trained scores at every step.

Ramanujan et al. 2020, "What's hidden in a randomly weighted neural network?", https://arxiv.org/abs/1911.13299
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from pai_cli.errors import MethodOptionError
from pai_cli.methods.score_training import Kind, ScoreTraining, Tensors
from pai_cli.methods.signed_constants import fan_in
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores
from pai_cli.pruning.trained import EPOCHS
from pai_cli.spelling import option

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pai_cli.models.network import PrunableLayer


def make_scorer(context: ScoreContext) -> Scorer:
    """A scorer that trains for all epochs and gives the scores' absolute values.

    Raises `MethodOptionError` where what a step keeps is not so many weights of a layer.
    """
    counts = context.counts
    if not isinstance(counts, Mapping):
        raise MethodOptionError(
            f"{option('method', context.method)}: every step keeps so many of each layer's largest scores; leave "
            f"{option('pattern')} and {option('invert')} out"
        )
    assert context.training is not None

    def kept(scores: Tensors, flags: Tensors) -> Tensors:
        return {name: _largest(score.abs(), counts[name], flags[name]) for name, score in scores.items()}

    epochs = context.training.options.epochs or EPOCHS
    search = ScoreTraining(context, Kind(_kaiming_uniform, kept, clip=False), epochs)
    context.training.run.story = search.recipe.story

    def score(masks: Masks | None) -> Scores:  # noqa: ARG001  (there is one round)
        search.train()
        return Scores({name: one.abs() for name, one in search.ranked().items()})

    return score


def _largest(scores: torch.Tensor, count: int, like: torch.Tensor) -> torch.Tensor:
    """1 at the `count` largest, else 0."""
    kept = torch.zeros_like(like)
    kept.view(-1)[scores.reshape(-1).topk(count, sorted=False).indices] = 1
    return kept


def _kaiming_uniform(random: np.random.Generator, layer: PrunableLayer) -> NDArray[np.float64]:
    """As layers are initialised by torch (a = sqrt 5): uniform between -1/sqrt(fan_in) and 1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in(layer))
    return random.uniform(-bound, bound, layer.shape)
