"""SynFlow: weights by the flow that passes through them, without data."""

from __future__ import annotations

from math import isfinite

import numpy as np
import torch

from pai_cli.errors import ScoreError
from pai_cli.models.linearised import Flow, Linearised
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores
from pai_cli.spelling import option


def make_scorer(context: ScoreContext) -> Scorer:
    """|w * dR/dw| in float64, 0 or more, shaped as the weight; 0 for a weight that is masked or on no path.

    R is the sum of the outputs for an input of ones, with every parameter and buffer replaced by its absolute
    value: without biases, the sum over all paths from input to output of the product of the weights on the
    path. The score of a weight is the part of R whose paths pass it. So scores into a hidden unit sum to the
    scores out of it, and without biases every cut of the network sums to R. Tanaka et al. 2020,
    https://arxiv.org/abs/2006.05467

    Raises `MethodOptionError` (input shape missing or wrong) and `ScoreError` (R past float64; no flow left).
    """
    names = tuple(layer.name for layer in context.layers)
    linearised = Linearised(context.network, names, context.input_shape, context.device)
    # Written over in each round: on VGG-16, allocating them anew takes as long as the gradients themselves.
    values = {
        name: torch.empty_like(weight, memory_format=torch.contiguous_format, requires_grad=False)
        for name, weight in linearised.weights.items()
    }

    def score(masks: Masks | None) -> Scores:
        linearised.mask(masks)
        flow = linearised.flow()
        _check(flow, masks)
        with torch.no_grad():
            for name, gradient in flow.gradients.items():
                torch.mul(gradient, linearised.weights[name], out=values[name]).abs_()
        return Scores(values, flow.through)

    return score


def _check(flow: Flow, masks: Masks | None) -> None:
    if not (isfinite(flow.output) and isfinite(flow.through)):
        raise ScoreError(
            "synflow: the flow through the network is not a finite float64 (too deep, or weights too large "
            f"or not finite); give another {option('method')}, such as erk"
        )
    if flow.through > 0:
        return
    if masks is None:
        raise ScoreError(
            "synflow: no flow reaches the output even before pruning (a layer of zeros, or a last "
            f"activation that is flat); give another {option('method')}, such as erk"
        )
    left = sum(int(np.count_nonzero(mask)) for mask in masks.values())
    total = sum(mask.size for mask in masks.values())
    raise ScoreError(
        f"synflow: no flow reaches the output with {left:,} of {total:,} weights left; "
        f"give more {option('rounds')}, {option('rounds', 'auto')}, or a larger {option('density')}"
    )
