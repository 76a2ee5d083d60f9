"""GraSP: weights by how much the gradient flow would fall without them."""

from __future__ import annotations

from pai_cli.methods.supervised import Supervised
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores

TEMPERATURE = 200.0
"""What logits are divided by, so that the softmax is smooth and the scores vary little from sample to sample."""


def make_scorer(context: ScoreContext) -> Scorer:
    """w * (H g), of either sign, shaped as the weight; g and H are gradient and Hessian of L by the prunable weights.

    L is the mean cross-entropy over the samples, logits divided by 200. Removing a weight changes the gradient flow,
    half of |g|^2, by minus w * (H g) to first order. The paper's score is that change, and it REMOVES the largest: weights
    without which the gradient flows more. The score here has the opposite sign, so that the largest are KEPT: weights
    whose removal would reduce the flow most. The flow is that of every prunable weight of the network, those of layers
    left whole by `ignore` included. Float64 when a weight of the network is, else float32. Wang et al. 2020,
    https://arxiv.org/abs/2002.07376

    Raises what `Supervised` does.
    """
    loss = Supervised(context, tuple(layer.name for layer in context.network.layers), TEMPERATURE)

    def score(masks: Masks | None) -> Scores:
        loss.mask(masks)
        products = loss.hessian_times(loss.gradient())
        return Scores({one.name: loss.weights[one.name].detach() * products[one.name] for one in context.layers})

    return score
