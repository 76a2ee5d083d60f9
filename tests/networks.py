"""The networks on which every pruning method is tried, and how to run one on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import ROUND_HALF_UP, Decimal
from unittest.mock import patch

import numpy as np
import torch
from standin import Toy
from torch import nn

from pai_cli.methods import registry
from pai_cli.methods.registry import get
from pai_cli.models import densenet, mobilenet, resnet, vgg, vit
from pai_cli.models.network import Network, init_network, prunable_layers
from pai_cli.pruning.run import PruneRequest, PruneResult, prune
from pai_cli.pruning.trained import TrainingOptions


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.body = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2, bias=False)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.norm(self.body(x)) + self.shortcut(x))
        return self.fc(x.mean((2, 3)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(12, 12)
        self.decode = nn.Linear(12, 12)
        self.decode.weight = self.encode.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(torch.relu(self.encode(x)))


class Returns(nn.Module):
    """A linear layer, whose outputs are given as `change` makes them."""

    def __init__(self, change: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.change = change

    def forward(self, x: torch.Tensor) -> object:
        return self.change(self.fc(x))


def uncopyable() -> nn.Module:
    """A network that holds what nobody can copy."""
    model = nn.Linear(4, 3)
    model.stream = (i for i in range(3))
    return model


class Tokens(nn.Module):
    """Linear layers on inputs of three dimensions: each place of the image is a token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.mix = nn.Linear(8, 8, bias=False)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.embed(x.flatten(2).transpose(1, 2)))
        return self.head(torch.relu(self.mix(x)).mean(1))


def one_weight() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 5))


def convolutions() -> nn.Module:
    """Grouped, depthwise, transposed, in-place, dropout, max-pool; `Flatten` needs no particular memory order."""
    return nn.Sequential(
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, padding=1, groups=4),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(16, 4, 2, stride=2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 10),
    )


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 20, bias=False), nn.ReLU(), nn.Linear(20, 10, bias=False))


NETWORKS = {
    "residual": (Residual, (3, 6, 6)),
    "tied": (Tied, (12,)),
    "tokens": (Tokens, (3, 4, 4)),
    "one_weight": (one_weight, (6,)),
    "convolutions": (convolutions, (3, 4, 4)),
    "mlp": (mlp, (3, 4, 4)),
}


@contextmanager
def slim(divisor: int = 8) -> Iterator[None]:
    """The wide architectures with an eighth of their channels: all of their layers, a sixty-fourth of their weights."""
    narrow = {
        vgg: {"WIDTHS": tuple(width // divisor for width in vgg.WIDTHS)},
        resnet: {"WIDTHS": tuple(width // divisor for width in resnet.WIDTHS)},
        densenet: {"GROWTH": densenet.GROWTH // divisor, "STEM": densenet.STEM // divisor},
        mobilenet: {
            "STAGES": tuple((times, max(width // divisor, 2), *rest) for times, width, *rest in mobilenet.STAGES),
            "STEM": mobilenet.STEM // divisor,
            "LAST": mobilenet.LAST // divisor,
        },
        vit: {"WIDTHS": {"tiny": vit.HEAD_WIDTH}},
    }
    with ExitStack() as patches:
        for family, constants in narrow.items():
            patches.enter_context(patch.multiple(family, **constants))
        yield


def slim_network(name: str, classes: int = 10) -> Network:
    """A known network, freshly drawn, with an eighth of the channels where it is a wide one."""
    with slim():
        return init_network(name, classes, 0)


def slim_vgg(name: str) -> Network:
    """A VGG of an eighth of the channels: all of its depth, a sixty-fourth of its weights."""
    return slim_network(name)


def wrap(model: nn.Module, input_shape: tuple[int, ...] | None) -> Network:
    return Network(model, "toy", input_shape, prunable_layers(model))


def build(name: str, seed: int = 0) -> Network:
    factory, shape = NETWORKS[name]
    torch.manual_seed(seed)
    return wrap(factory(), shape)


def toy_for(network: Network) -> Toy:
    """Data that the network can be trained on: as many classes as its last layer has outputs."""
    assert network.input_shape is not None
    return Toy(network.layers[-1].shape[0], network.input_shape)


NAMES = ", ".join(registry.METHODS)
WITH_DATA = ", ".join(name for name, method in registry.METHODS.items() if method.data)
IN_ROUNDS = ", ".join(name for name, method in registry.METHODS.items() if method.iterative)
"""As messages list them."""

ROUNDS = {"synflow": 5, "synflow-l2": 5, "iter-snip": 5, "force": 5, "ntk-sap": 4, "px": 5, "imp": 2}
"""Fewer than usual, for the methods that go in rounds."""

PER_CLASS = {"hutchinson": 1}
"""Samples of each class, fewer than usual, for the method that looks at each ten times."""

TRAINING = {
    "gem-miner": TrainingOptions(epochs=3, freeze_every=1, batch_size=50, lr=1.0),
    "edge-popup": TrainingOptions(epochs=2, batch_size=50),
    "imp": TrainingOptions(epochs=2, rewind=1, batch_size=50),
}
"""Less than usual, for the methods that train."""


def run(network: Network, method: str, density: float | None = None, **options: object) -> PruneResult:
    if "rounds" not in options and method in ROUNDS:
        options["rounds"] = ROUNDS[method]
    options.setdefault("training", TRAINING.get(method))
    options.setdefault("per_class", PER_CLASS.get(method))
    dataset = toy_for(network) if method in registry.METHODS and registry.METHODS[method].data else None
    return prune(network, PruneRequest(get(method), density, **options), dataset=dataset)  # type: ignore[arg-type]


def same(a: PruneResult, b: PruneResult) -> bool:
    return a.masks.keys() == b.masks.keys() and all(np.array_equal(a.masks[k], b.masks[k]) for k in a.masks)


def half_up(density: float, total: int) -> int:
    return int((Decimal(repr(density)) * total).quantize(Decimal(1), ROUND_HALF_UP))
