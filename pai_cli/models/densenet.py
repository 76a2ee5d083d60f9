"""DenseNets with bottlenecks and compression (Huang et al. 2017, arXiv:1608.06993, table 1).

Names as in torchvision/models/densenet.py; timm has the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from pai_cli.models.base import Architecture, Shapes, initialise, real_modules

BLOCKS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}
NAMES = tuple(f"densenet{depth}" for depth in BLOCKS)
GROWTH, STEM, BOTTLENECK = 32, 64, 4


@dataclass(frozen=True)
class DenseSpec:
    """What determines a DenseNet of growth 32."""

    blocks: tuple[int, ...]
    classes: int = 1000
    channels: int = 3


class _DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 convolution to 4 times the growth; norm, ReLU, 3x3 convolution to the growth."""

    def __init__(self, inputs: int):
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(inputs), nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, BOTTLENECK * GROWTH, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(BOTTLENECK * GROWTH), nn.ReLU()
        self.conv2 = nn.Conv2d(BOTTLENECK * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, h, w) -> (batch, growth, h, w)."""
        out: torch.Tensor = self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(x))))))
        return out


class _DenseBlock(nn.Module):
    """Every layer reads the block's input and the outputs of all layers before it, joined along the channels."""

    def __init__(self, inputs: int, layers: int):
        super().__init__()
        for i in range(layers):
            self.add_module(f"denselayer{i + 1}", _DenseLayer(inputs + i * GROWTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, h, w) -> (batch, inputs + layers * growth, h, w)."""
        for layer in self.children():
            x = torch.cat([x, layer(x)], 1)
        return x


class DenseNet(nn.Module):
    """Stem, dense blocks with halving transitions between them, global average, linear head."""

    def __init__(self, spec: DenseSpec):
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(spec.channels, STEM, 7, stride=2, padding=3, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(STEM))
        self.features.add_module("relu0", nn.ReLU())
        self.features.add_module("pool0", nn.MaxPool2d(3, stride=2, padding=1))
        channels = STEM
        for i, layers in enumerate(spec.blocks, start=1):
            self.features.add_module(f"denseblock{i}", _DenseBlock(channels, layers))
            channels += layers * GROWTH
            if i < len(spec.blocks):
                self.features.add_module(f"transition{i}", _transition(channels))
                channels //= 2
        self.features.add_module(f"norm{len(spec.blocks) + 1}", nn.BatchNorm2d(channels))
        self.relu = nn.ReLU()
        self.classifier = nn.Linear(channels, spec.classes)
        initialise(self, mode="fan_in")
        for module in real_modules(self):
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, h, w) -> (batch, classes)."""
        logits: torch.Tensor = self.classifier(self.relu(self.features(x)).mean((2, 3)))
        return logits


def _transition(channels: int) -> nn.Sequential:
    transition = nn.Sequential()
    transition.add_module("norm", nn.BatchNorm2d(channels))
    transition.add_module("relu", nn.ReLU())
    transition.add_module("conv", nn.Conv2d(channels, channels // 2, 1, bias=False))
    transition.add_module("pool", nn.AvgPool2d(2))
    return transition


def named(name: str, classes: int) -> Architecture | None:
    """The DenseNet called `name` (`densenet121`, `densenet-121`), or None when it is none of this family's."""
    match = re.fullmatch(r"densenet-?(\d{3})", name)
    if match is None or int(match[1]) not in BLOCKS:
        return None
    return _architecture(DenseSpec(BLOCKS[int(match[1])], classes))


def guess(shapes: Shapes) -> Architecture | None:
    """The DenseNet that `shapes` suggest, to be compared with them exactly."""
    stem, head = shapes.get("features.conv0.weight", ()), shapes.get("classifier.weight", ())
    blocks = tuple(
        sum(
            re.fullmatch(rf"features\.denseblock{i}\.denselayer\d+\.conv2\.weight", name) is not None for name in shapes
        )
        for i in range(1, 5)
    )
    if len(stem) != 4 or len(head) != 2 or blocks not in BLOCKS.values():
        return None
    return _architecture(DenseSpec(blocks, head[0], stem[1]))


def _architecture(spec: DenseSpec) -> Architecture:
    depth = next(depth for depth, blocks in BLOCKS.items() if blocks == spec.blocks)
    return Architecture(
        name=f"densenet{depth}",
        description=f"DenseNet-{depth} (torchvision layout, 224x224 inputs, {spec.classes} classes)",
        input_shape=(spec.channels, 224, 224),
        build=partial(DenseNet, spec),
        classes=spec.classes,
    )
