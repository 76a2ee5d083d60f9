"""Gem-Miner: a ticket among signed constants, by scores that are trained while the lowest are frozen out step by step.

Sreenivasan et al. 2022, "Rare Gems: Finding Lottery Tickets at Initialization", https://arxiv.org/abs/2202.12002
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pai_cli.methods.score_training import Kind, ScoreTraining, Tensors
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores
from pai_cli.pruning.trained import FREEZE_EVERY, TrainingContext
from pai_cli.training.recipe import Optimizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pai_cli.models.network import PrunableLayer

HALF = 0.5
PENALTIES = {0.0059: 1e-4, 0.0144: 1e-4, 0.0372: 3e-5, 0.2: 1e-5, 0.5: 1e-8}
"""lambda of the published recipes for ResNet-20 with SGD, by density; those for VGG-16 with Adam have 1e-6 at each."""
ADAM_PENALTY = 1e-6


def usual_penalty(density: float, optimizer: Optimizer) -> float:
    """lambda of the published recipe whose density is nearest, by ratio."""
    if optimizer is Optimizer.ADAM:
        return ADAM_PENALTY
    return PENALTIES[min(PENALTIES, key=lambda published: abs(math.log(published / density)))]


def make_scorer(context: ScoreContext) -> Scorer:
    """A scorer that trains on to the next freeze and gives the scores, in [0, 1].

    Freeze k of K is at the end of epoch kP, counted from 0: the first comes after P + 1 epochs. What would be trained
    after the last changes nothing in the ticket, mask and constants, and is left out.
    """
    training = context.training
    assert training is not None
    options = training.options
    optimizer = Optimizer(options.optimizer or Optimizer.SGD)
    penalty = usual_penalty(training.density, optimizer) if options.penalty is None else options.penalty
    every = options.freeze_every or FREEZE_EVERY
    kind = Kind(_uniform, _over_half, clip=True, penalty=penalty)
    search = ScoreTraining(context, kind, every * training.rounds + 1)
    training.run.story = _story(search, training, every)

    def score(masks: Masks | None) -> Scores:
        if masks is not None:
            search.freeze(masks)
        search.train((every * (search.done + 1) + 1) * search.steps_in_epoch)
        search.done += 1
        return Scores(search.ranked())

    return score


def _uniform(random: np.random.Generator, layer: PrunableLayer) -> NDArray[np.float64]:
    return random.random(layer.shape)


def _over_half(scores: Tensors, flags: Tensors) -> Tensors:
    return {name: flags[name] * (score > HALF) for name, score in scores.items()}


def _story(search: ScoreTraining, training: TrainingContext, every: int) -> dict[str, str]:
    told = {"freeze_every": str(every), "freezes": str(training.rounds), "penalty": repr(search.kind.penalty)}
    return {**search.recipe.story, **told}
