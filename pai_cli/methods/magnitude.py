"""Magnitude: the simplest score that looks at the weights."""

from __future__ import annotations

from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores


def make_scorer(context: ScoreContext) -> Scorer:
    """|w| of each weight, in the weight's own floating type; 0 or more.

    Han et al. 2015, https://arxiv.org/abs/1506.02626, here before training instead of after it.
    """
    network = context.network
    values = {layer.name: network.parameter(layer.name).detach().abs() for layer in context.layers}

    def score(masks: Masks | None) -> Scores:
        del masks  # the weights do not change from round to round
        return Scores(values)

    return score
