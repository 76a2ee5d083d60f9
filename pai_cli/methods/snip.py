"""SNIP: weights by how much the loss would change without them, to first order."""

from __future__ import annotations

import torch

from pai_cli.methods.supervised import Supervised
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores


def make_scorer(context: ScoreContext) -> Scorer:
    """|w * g|, 0 or more, shaped as the weight; g = dL/dw, L the mean cross-entropy over the samples.

    The gradient is summed over the batches before the absolute value is taken: it is the derivative of the loss by a
    gate of 1 on the weight. Float64 when a weight of the network is, else float32. `snip` scores once (Lee et al. 2019,
    https://arxiv.org/abs/1810.02340; the division by the sum of all scores there changes no order); `iter-snip` scores
    what is left anew in each round, with the same samples (de Jorge et al. 2021, https://arxiv.org/abs/2006.09081).

    Raises what `Supervised` does.
    """
    loss = Supervised(context, tuple(layer.name for layer in context.layers))

    def score(masks: Masks | None) -> Scores:
        loss.mask(masks)
        gradients = loss.gradient()
        products = torch._foreach_mul([loss.weights[name].detach() for name in gradients], list(gradients.values()))
        torch._foreach_abs_(products)
        return Scores(dict(zip(gradients, products, strict=True)))

    return score
