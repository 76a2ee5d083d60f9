"""Fisher-Taylor sensitivity: weights by how much the loss would change without them, to second order."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pai_cli.methods.supervised import Supervised, Tensors
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores


def make_scorer(context: ScoreContext) -> Scorer:
    """|w g + w^2 F / 2|, 0 or more, shaped as the weight; g = dL/dw, F the diagonal of the empirical Fisher information.

    L is the mean over the samples of the cross-entropy L_i, and F the mean of (dL_i/dw)^2, which stands for the diagonal of
    the Hessian; the signs are the authors'. Each sample passes by itself, in evaluation mode, with running statistics of
    batch norms. Float64 when a weight of the network is, else float32. Gollini Navarrete et al. 2025 (their FTS),
    https://arxiv.org/abs/2502.11450

    Raises what `Supervised` does.
    """
    loss = Supervised(context, tuple(layer.name for layer in context.layers))

    def score(masks: Masks | None) -> Scores:
        loss.mask(masks)
        return to_second_order(loss.weights, *loss.moments())

    return score


def to_second_order(weights: Mapping[str, torch.Tensor], gradients: Tensors, diagonal: Tensors) -> Scores:
    """|w g + w^2 h / 2| of each weight, `diagonal` standing for that of the Hessian: the loss's change, but for its sign."""
    values = {}
    for name, gradient in gradients.items():
        weight = weights[name].detach()
        values[name] = (weight * (gradient + weight * diagonal[name] / 2)).abs()
    return Scores(values)
