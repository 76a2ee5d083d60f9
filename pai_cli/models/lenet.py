"""LeNet-5 (LeCun et al. 1998) with ReLU and max-pooling, as it is trained today."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from pai_cli.models.base import Architecture, Shapes

NAMES = ("lenet-5",)


@dataclass(frozen=True)
class LeNetSpec:
    """What determines a LeNet-5: `padding` of the first convolution, `side` of the image it expects."""

    classes: int = 10
    channels: int = 1
    padding: int = 2
    side: int = 28


class LeNet5(nn.Module):
    """5x5 convolutions of 6 and 16 channels, linear layers of 120, 84 and the classes."""

    def __init__(self, spec: LeNetSpec):
        super().__init__()
        self.conv1 = nn.Conv2d(spec.channels, 6, 5, padding=spec.padding)
        self.conv2 = nn.Conv2d(6, 16, 5)
        pooled = ((spec.side + 2 * spec.padding - 4) // 2 - 4) // 2
        self.fc1 = nn.Linear(16 * pooled**2, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, spec.classes)
        self.relu1, self.relu2, self.relu3, self.relu4 = (nn.ReLU() for _ in range(4))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, side, side) -> (batch, classes)."""
        x = self.pool(self.relu1(self.conv1(x)))
        x = torch.flatten(self.pool(self.relu2(self.conv2(x))), 1)
        logits: torch.Tensor = self.fc3(self.relu4(self.fc2(self.relu3(self.fc1(x)))))
        return logits


def named(name: str, classes: int) -> Architecture | None:
    """LeNet-5 for `lenet-5`, else None."""
    return _architecture(LeNetSpec(classes)) if name == "lenet-5" else None


def guess(shapes: Shapes) -> Architecture | None:
    """The LeNet-5 that `shapes` suggest, to be compared with them exactly."""
    stem, first = shapes.get("conv1.weight", ()), shapes.get("fc1.weight", ())
    last = shapes.get("fc3.weight", ())
    if len(stem) != 4 or len(first) != 2 or len(last) != 2:
        return None
    channels = stem[1]
    if first[1] == 16 * 4 * 4:
        return _architecture(LeNetSpec(last[0], channels, padding=0, side=28))
    # A 28x28 image is padded to 32x32 (as in MNIST); colour images are 32x32 already.
    padding, side = (2, 28) if channels == 1 else (0, 32)
    return _architecture(LeNetSpec(last[0], channels, padding, side))


def _architecture(spec: LeNetSpec) -> Architecture:
    return Architecture(
        name="lenet-5",
        description=f"LeNet-5 ({spec.side}x{spec.side} inputs, {spec.classes} classes)",
        input_shape=(spec.channels, spec.side, spec.side),
        build=partial(LeNet5, spec),
        classes=spec.classes,
    )
