"""The masks and weights that are measured: whole networks, one set of weights a network, and single large layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from machine import Mask
from numpy.typing import NDArray

from pai_cli.methods.registry import get
from pai_cli.models.network import Network, init_network
from pai_cli.pruning.run import PruneRequest, choose_masks
from pai_cli.spectral.graph import unroll
from pai_cli.spectral.network import LayerInput

CIFAR = (3, 32, 32)

SKEW_DENSITY = 0.2


@dataclass(frozen=True)
class NetworkMask:
    """A mask of all of a network: its layers in order, each with its weights."""

    network: str
    kind: str
    density: float
    layers: list[LayerInput]

    @property
    def bare(self) -> list[LayerInput]:
        """The layers without their weights."""
        return [LayerInput(layer.name, layer.mask, None, layer.layout) for layer in self.layers]

    @property
    def matrices(self) -> list[Mask]:
        """The masks as matrices."""
        return [unroll(layer.mask, layer.layout) for layer in self.layers]


@cache
def network_of(name: str) -> Network:
    """The freshly initialised network for ten classes."""
    return init_network(name, 10, 0)


def pruned(name: str, kind: str, density: float, rounds: int) -> NetworkMask:
    """A mask by the package's own method `kind`: `uniform` draws an exact count in each layer, `synflow` iterates."""
    network = network_of(name)
    request = PruneRequest(get(kind), density, rounds=rounds if kind == "synflow" else None, input_shape=CIFAR)
    masks, _ = choose_masks(network, request)
    layers = [
        LayerInput(layer.name, masks[layer.name], network.parameter(layer.name).detach().numpy(), layer.layout)
        for layer in network.layers
    ]
    return NetworkMask(name, kind, density, layers)


def skewed(name: str = "resnet34", density: float = SKEW_DENSITY) -> NetworkMask:
    """One threshold on |W| over the network, as a trained net's would be skewed.

    W is normal noise times lognormal scales of rows (0.6), input channels (0.6) and positions in the kernel (0.2), times
    fan_in^(-1/4).
    """
    generator = np.random.default_rng(0)
    network = network_of(name)
    weights = {layer.name: _skewed_weights(generator, layer.shape) for layer in network.layers}
    everything = np.concatenate([np.abs(weight).reshape(-1) for weight in weights.values()])
    kept = round(density * everything.size)
    threshold = np.partition(everything, everything.size - kept)[everything.size - kept]
    layers = [
        LayerInput(layer.name, np.abs(weights[layer.name]) >= threshold, weights[layer.name], layer.layout)
        for layer in network.layers
    ]
    return NetworkMask(name, "skewed", density, layers)


def _skewed_weights(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    rows, channels, positions = shape[0], shape[1], int(np.prod(shape[2:]))
    weights = generator.standard_normal((rows, channels, positions))
    weights *= np.exp(0.6 * generator.standard_normal((rows, 1, 1)))
    weights *= np.exp(0.6 * generator.standard_normal((1, channels, 1)))
    weights *= np.exp(0.2 * generator.standard_normal((1, 1, positions)))
    weights *= (channels * positions) ** -0.25
    return weights.astype(np.float32).reshape(shape)


def large_mask(rows: int, columns: int, density: float, seed: int = 0) -> Mask:
    """A random mask, each weight kept on its own, made with little memory beside it."""
    generator = np.random.default_rng(seed)
    mask = np.empty((rows, columns), dtype=np.bool_)
    for row in mask:
        row[:] = generator.random(columns, dtype=np.float32) < density
    return mask
