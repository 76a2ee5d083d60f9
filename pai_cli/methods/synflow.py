"""SynFlow: weights by the flow that passes through them, without data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite

import numpy as np
import torch

from pai_cli.errors import ScoreError
from pai_cli.models.linearised import Flow, Linearised
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores
from pai_cli.spelling import option

Tensors = list[torch.Tensor]


def make_scorer(context: ScoreContext) -> Scorer:
    """|w * dR/dw| in float64, 0 or more, shaped as the weight; 0 for a weight that is masked or on no path.

    R is the sum of the outputs for an input of ones, with every parameter and buffer replaced by its absolute
    value: without biases, the sum over all paths from input to output of the product of the weights on the
    path. The score of a weight is the part of R whose paths pass it. So scores into a hidden unit sum to the
    scores out of it, and without biases every cut of the network sums to R. Tanaka et al. 2020,
    https://arxiv.org/abs/2006.05467

    Raises `MethodOptionError` (input shape missing or wrong) and `ScoreError` (R past float64; no flow left).
    """
    return flow_scorer(context, "synflow")


def flow_scorer(context: ScoreContext, method: str, *, squared: bool = False) -> Scorer:
    """The scorer of `make_scorer`, or of the network whose parameters and buffers are `squared`; `method`: for messages."""
    names = tuple(layer.name for layer in context.layers)
    shape, device = context.input_shape, context.device
    linearised = Linearised(context.network, names, shape, device, squared=squared, method=method)
    products = _written_over(linearised.weights) if context.device == "cpu" else _anew

    def score(masks: Masks | None) -> Scores:
        linearised.mask(masks)
        flow = linearised.flow()
        _check(method, flow, masks)
        with torch.no_grad():
            found = products(list(flow.gradients.values()), list(linearised.weights.values()))
        return Scores(dict(zip(flow.gradients, found, strict=True)), flow.through)

    return score


def _written_over(weights: Mapping[str, torch.Tensor]) -> Callable[[Tensors, Tensors], Tensors]:
    """|g w| a tensor at a time, into the same memory each time: on VGG-16 a CPU takes as long to find it anew as for g."""
    values = [
        torch.empty_like(one, memory_format=torch.contiguous_format, requires_grad=False) for one in weights.values()
    ]

    def products(gradients: Tensors, by: Tensors) -> Tensors:
        return [
            torch.mul(gradient, weight, out=value).abs_()
            for gradient, weight, value in zip(gradients, by, values, strict=True)
        ]

    return products


def _anew(gradients: Tensors, weights: Tensors) -> Tensors:
    """|g w|, all tensors in one launch each for product and absolute value."""
    found = torch._foreach_mul(gradients, weights)
    torch._foreach_abs_(found)
    return list(found)


def _check(method: str, flow: Flow, masks: Masks | None) -> None:
    if not (isfinite(flow.output) and isfinite(flow.through)):
        raise ScoreError(
            f"{method}: the flow through the network is not a finite float64 (too deep, or weights too large "
            f"or not finite); give another {option('method')}, such as erk"
        )
    if flow.through > 0:
        return
    if masks is None:
        raise ScoreError(
            f"{method}: no flow reaches the output even before pruning (a layer of zeros, or a last "
            f"activation that is flat); give another {option('method')}, such as erk"
        )
    left = sum(int(np.count_nonzero(mask)) for mask in masks.values())
    total = sum(mask.size for mask in masks.values())
    raise ScoreError(
        f"{method}: no flow reaches the output with {left:,} of {total:,} weights left; "
        f"give more {option('rounds')}, {option('rounds', 'auto')}, or a larger {option('density')}"
    )
