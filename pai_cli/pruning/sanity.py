"""Changes after which a mask should do worse, if its method finds more than a density for each layer.

Frankle et al. 2021, https://arxiv.org/abs/2009.08576; Su et al. 2020, https://arxiv.org/abs/2009.11094
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from pai_cli.errors import ScoreError
from pai_cli.pruning.base import Masks, Scorer, Scores
from pai_cli.random import generator_for
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.models.network import Network


def inverted(scorer: Scorer) -> Scorer:
    """The scores with the opposite sign, so that the smallest are kept; ties still go to the lower index.

    In each round anew, which takes from the network what the next round scores by. Raises `ScoreError` when nothing is
    left of that, as well as what `scorer` raises.
    """

    def score(masks: Masks | None) -> Scores:
        try:
            values = scorer(masks).values
        except ScoreError as error:
            if masks is None:
                raise
            cause = error.text.partition(";")[0]
            raise ScoreError(
                f"{option('invert')}: removes first what a later round scores by ({cause}); give "
                f"{option('rounds', '1')}"
            ) from error
        return Scores({name: -of_layer for name, of_layer in values.items()})

    return score


def shuffled(masks: Masks, seed: int) -> Masks:
    """Each layer's mask in a random order within the layer: the same counts, other places.

    The order of a layer depends on the seed and the layer's name only.
    """
    return {
        name: generator_for(seed, f"shuffle {name}").permutation(mask.reshape(-1)).reshape(mask.shape)
        for name, mask in masks.items()
    }


def with_weights(network: Network, weights: Mapping[str, torch.Tensor]) -> Network:
    """A copy of the network with these tensors, by state-dict name, in their own precision. What is shared stays so."""
    changed = copy.deepcopy(network)
    tensors = changed.model.state_dict(keep_vars=True)
    for name, weight in weights.items():
        tensors[name].data = weight.clone()
    return changed


def redrawn(network: Network, seed: int) -> Network:
    """A copy of the network, each parameter's values in a random order within the parameter.

    That draws from the distribution that the values have, whatever initialisation made them; what is constant, as the
    scales of fresh batch norms are, stays. Shared parameters stay shared. The order depends on the seed and the
    parameter's name only.
    """
    changed = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in changed.model.named_parameters():
            order = generator_for(seed, f"redraw {name}").permutation(parameter.numel())
            values = parameter.detach().reshape(-1)[torch.from_numpy(order).to(parameter.device)]
            parameter.copy_(values.reshape(parameter.shape))
    return changed
