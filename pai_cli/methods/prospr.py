"""ProsPr: weights by how much the loss after the first steps of training depends on them.

Alizadeh et al. 2022, "Prospect pruning: finding trainable weights at initialization using meta-gradients",
https://arxiv.org/abs/2202.08132
"""

from __future__ import annotations

import torch

from pai_cli.methods.supervised import Supervised, Tensors
from pai_cli.models.copies import remove
from pai_cli.models.network import Network
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores

STEPS, RATE = 3, 0.1
"""Of the authors' code: steps of plain gradient descent, and their learning rate."""


def make_scorer(context: ScoreContext) -> Scorer:
    """|dL(w_3)/dm|, 0 or more, shaped as the weight; m its gate, w_0 = w m and w_(t+1) = w_t - 0.1 dL/dw(w_t).

    L is the mean cross-entropy over the samples, the same ones in each step and at the end. Every parameter takes the steps,
    biases and norms too; running statistics, where batch norms take them, stay as they are at w_0. The slope through the
    steps is exact, second derivatives included: v_3 = dL/dw(w_3), v_t = v_(t+1) - 0.1 H(w_t) v_(t+1) with the Hessian H of
    L, and the score is |w v_0|. A weight that is pruned already takes no step. Float64 when a weight of the network is, else
    float32.

    Raises what `Supervised` does.
    """
    loss = Supervised(context, _parameters(context.network))
    start = _copied(loss)

    def score(masks: Masks | None) -> Scores:
        _put(loss, start)
        loss.mask(masks)
        points = []
        for _ in range(STEPS):
            points.append(_copied(loss))
            slope = loss.gradient()
            remove(slope, masks)
            torch._foreach_add_([loss.weights[name].detach() for name in slope], list(slope.values()), alpha=-RATE)
        vector = loss.gradient()
        for point in reversed(points):
            _put(loss, point)
            remove(vector, masks)
            bent = loss.hessian_times(vector)
            torch._foreach_add_([vector[name] for name in bent], list(bent.values()), alpha=-RATE)
        first = points[0]
        return Scores({one.name: (first[one.name] * vector[one.name]).abs_() for one in context.layers})

    return score


def _parameters(network: Network) -> tuple[str, ...]:
    """Every parameter that can take a step, each once; prunable ones by their layers' names."""
    layers = {id(network.parameter(layer.name)): layer.name for layer in network.layers}
    named = [(name, one) for name, one in network.model.named_parameters() if one.is_floating_point()]
    return tuple(layers.get(id(one), name) for name, one in named)


def _copied(loss: Supervised) -> Tensors:
    return {name: weight.detach().clone() for name, weight in loss.weights.items()}


def _put(loss: Supervised, values: Tensors) -> None:
    torch._foreach_copy_([weight.detach() for weight in loss.weights.values()], list(values.values()))
