"""SynFlow-L2: weights by the flow through the network of squared parameters, without data."""

from __future__ import annotations

from pai_cli.methods.synflow import flow_scorer
from pai_cli.pruning.base import ScoreContext, Scorer


def make_scorer(context: ScoreContext) -> Scorer:
    """w^2 * dR/d(w^2) in float64, 0 or more, shaped as the weight; 0 for a weight that is masked or on no path.

    R is SynFlow's sum of the outputs for an input of ones, with every parameter and buffer replaced by its square instead
    of its absolute value: without biases, the sum over all paths of the squared product of their weights, v_p^2. The score
    is the synaptic saliency of R (Tanaka et al. 2020), the part of R whose paths pass the weight, so SynFlow's laws hold
    for it. Divided by w^2 it is the sum of (dv_p/dw)^2, the weight's share of the trace of the Path Kernel. Gebhart,
    Saxena, Schrater 2021, https://arxiv.org/abs/2101.10552

    Raises what SynFlow does.
    """
    return flow_scorer(context, "synflow-l2", squared=True)
