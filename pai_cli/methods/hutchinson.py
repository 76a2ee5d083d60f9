"""Hutchinson-Taylor sensitivity: weights by how much the loss would change without them, to second order by its Hessian."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from pai_cli.compute.device import sent
from pai_cli.methods.fisher import to_second_order
from pai_cli.methods.grasp import TEMPERATURE
from pai_cli.methods.supervised import Supervised, Tensors
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores
from pai_cli.random import generator_for

PROBES = 10
"""Vectors of random signs for each sample, as many as the authors' code draws."""


def make_scorer(context: ScoreContext) -> Scorer:
    """|w g + w^2 h / 2|, 0 or more, shaped as the weight; g = dL/dw, h an estimate of the diagonal of L's Hessian.

    L is the mean cross-entropy over the samples, logits divided by 200 as GraSP's. h is the mean of z * (H z) over probes
    z, vectors of independent random signs, one for each weight that is pruned (Hutchinson 1990,
    https://doi.org/10.1080/03610919008812866; of diagonals Bekas, Kokiopoulou and Saad 2007,
    https://doi.org/10.1016/j.apnum.2007.01.003): right in the mean, a sample's variance the sum of the squares in the row
    beside the diagonal over the number of probes. Each sample passes by itself with ten probes of its own, in evaluation
    mode, with running statistics of batch norms; where those normalise by their batch, each batch does. Float64 when a
    weight of the network is, else float32. The HTS of Gollini Navarrete et al. 2025, https://arxiv.org/abs/2502.11450;
    temperature, number of probes and signs are their code's.

    Raises what `Supervised` does.
    """
    loss = Supervised(context, tuple(layer.name for layer in context.layers), TEMPERATURE)

    def score(masks: Masks | None) -> Scores:
        loss.mask(masks)
        # Anew in each call, so that masks alone make scores differ.
        generator = generator_for(context.seed, f"{context.method} probes")
        gradients, diagonal = loss.curvature(signs(generator, loss.weights), PROBES)
        return to_second_order(loss.weights, gradients, diagonal)

    return score


def signs(generator: np.random.Generator, like: Mapping[str, torch.Tensor]) -> Callable[[], Tensors]:
    """What draws a probe: 1 or -1, each as likely, for each weight, shaped and placed as `like`, which is not empty.

    Drawn on the host, so that every device has the same.
    """
    sizes = [one.numel() for one in like.values()]
    first = next(iter(like.values()))

    def draw() -> Tensors:
        drawn = np.frombuffer(generator.bytes(-(-sum(sizes) // 8)), np.uint8)
        bits = sent(torch.from_numpy(np.unpackbits(drawn, count=sum(sizes))), str(first.device))
        pieces = bits.to(first.dtype).mul_(2).sub_(1).split_with_sizes(sizes)
        return {name: piece.view(like[name].shape) for name, piece in zip(like, pieces, strict=True)}

    return draw
