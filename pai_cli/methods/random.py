"""Random scores: the baseline that any method has to beat."""

from __future__ import annotations

import torch

from pai_cli.pruning.base import ScoreContext, Scorer, fixed


def make_scorer(context: ScoreContext) -> Scorer:
    """Scores drawn independently and uniformly from [0, 1), float64, one a weight.

    `random` keeps the largest over the whole network; `uniform` and `erk` (Evci et al. 2020,
    https://arxiv.org/abs/1911.11134) differ only in how many each layer keeps. The draw depends on the seed
    and the layer's name, not on torch's or NumPy's global state.
    """
    # float64 and not float32: of 60 million float32 draws most would be tied with another
    return fixed(
        {layer.name: torch.from_numpy(context.generator(layer.name).random(layer.shape)) for layer in context.layers}
    )
