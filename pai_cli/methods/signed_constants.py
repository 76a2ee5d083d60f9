"""The frozen network that scores are trained on: signed constants for weights, batch norms without scale and shift.

Ramanujan et al. 2020, https://arxiv.org/abs/1911.13299, section 3.3; Sreenivasan et al. 2022,
https://arxiv.org/abs/2202.12002
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pai_cli.pruning.pattern import inputs_of
from pai_cli.training.model import trained_copy

if TYPE_CHECKING:
    from pai_cli.models.network import Network, PrunableLayer


def fan_in(layer: PrunableLayer) -> int:
    """How many weights lead to one output of the layer: the inputs of its group times the kernel's size."""
    return inputs_of(layer) * math.prod(layer.shape[2:])


def constant_of(layer: PrunableLayer) -> float:
    """The absolute value of every weight of the layer: sqrt(2 / fan_in)."""
    return math.sqrt(2 / fan_in(layer))


def signed_constants(network: Network, layers: tuple[PrunableLayer, ...], device: str = "cpu") -> nn.Module:
    """A copy of the network, each weight of `layers` by the layer's constant with the weight's sign, that of a 0 being +.

    Batch norms have weight 1 and bias 0; everything else, such as biases and the weights of other layers, is as it was.
    Raises `TrainingError`, `DeviceError`.
    """
    model = trained_copy(network, device).requires_grad_(False)
    with torch.no_grad():
        for layer in layers:
            weight = model.get_parameter(layer.name)
            constant = torch.full_like(weight, constant_of(layer))
            weight.copy_(torch.where(weight < 0, -constant, constant))
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.affine:
                module.weight.fill_(1.0)
                module.bias.fill_(0.0)
    return model
