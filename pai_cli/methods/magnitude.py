"""Magnitude: the simplest score that looks at the weights."""

from __future__ import annotations

from pai_cli.pruning.base import ScoreContext, Scorer, fixed


def make_scorer(context: ScoreContext) -> Scorer:
    """|w| of each weight, in the weight's own floating type; 0 or more.

    Han et al. 2015, https://arxiv.org/abs/1506.02626, here before training instead of after it.
    """
    return fixed({layer.name: context.network.parameter(layer.name).detach().abs() for layer in context.layers})
