"""FORCE: SNIP's score under the mask of the round before, of pruned weights too."""

from __future__ import annotations

import torch

from pai_cli.methods.supervised import Supervised
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores


def make_scorer(context: ScoreContext) -> Scorer:
    """|w * g(m)|, 0 or more, shaped as the weight; w the original weight, g(m) = dL/dw at the masked weights w m.

    L is the mean cross-entropy over the samples. A weight that the mask leaves out has a score as well: what the loss would
    gain or lose by it, to first order, were it put back. So each round chooses from all weights, and one that was pruned may
    return. With one round it is SNIP. de Jorge, Sanyal, Behl, Torr, Rogez, Dokania 2021, "Progressive Skeletonization",
    https://arxiv.org/abs/2006.09081. Float64 when a weight of the network is, else float32.

    Raises what `Supervised` does.
    """
    loss = Supervised(context, tuple(layer.name for layer in context.layers))
    weights = [weight.detach() for weight in loss.weights.values()]
    original = [weight.clone() for weight in weights]

    def score(masks: Masks | None) -> Scores:
        torch._foreach_copy_(weights, original)
        loss.mask(masks)
        gradients = loss.gradient()
        products = torch._foreach_mul(original, list(gradients.values()))
        torch._foreach_abs_(products)
        return Scores(dict(zip(gradients, products, strict=True)))

    return score
