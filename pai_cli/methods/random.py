"""Random scores: the baseline that any method has to beat."""

from __future__ import annotations

import torch

from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores


def make_scorer(context: ScoreContext) -> Scorer:
    """Scores drawn independently and uniformly from [0, 1), float64, one a weight.

    `random` keeps the largest over the whole network; `uniform` and `erk` (Evci et al. 2020,
    https://arxiv.org/abs/1911.11134) differ only in how many each layer keeps. The draw depends on the seed
    and the layer's name, not on torch's or NumPy's global state.
    """
    # float64 and not float32: of 60 million float32 draws most would be tied with another
    values = {
        layer.name: torch.from_numpy(context.generator(layer.name).random(layer.shape)) for layer in context.layers
    }

    def score(masks: Masks | None) -> Scores:
        del masks  # a draw does not depend on what is left
        return Scores(values)

    return score
