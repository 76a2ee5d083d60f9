"""Wide ResNets for CIFAR (Zagoruyko and Komodakis 2016, arXiv:1605.07146): pre-activation, three stages.

torchvision and timm have none for 32x32 images; the names are those of the PyTorch implementation that most build on,
github.com/xternalizing/WideResNet-pytorch (`block1.layer.0.convShortcut`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from pai_cli.models.base import Architecture, Shapes, initialise, real_modules, single_head

NAMES = ("wrn-16-8", "wrn-28-2", "wrn-28-10", "wrn-40-2")
STEM = 16


@dataclass(frozen=True)
class WideSpec:
    """What determines a wide ResNet: `depth` is 6 times the blocks a stage plus 4, `width` multiplies 16, 32, 64."""

    depth: int
    width: int
    head: str = "fc"
    classes: int = 10
    channels: int = 3

    @property
    def blocks(self) -> int:
        """Blocks a stage."""
        return (self.depth - 4) // 6


class _Block(nn.Module):
    """Norm, ReLU and 3x3 convolution, twice; where the sizes differ, the shortcut is a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1, self.relu1 = nn.BatchNorm2d(inputs), nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(outputs), nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = inputs == outputs and stride == 1
        self.convShortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, h, w) -> (batch, outputs, h/stride, w/stride)."""
        y = self.relu1(self.bn1(x))
        # A projection reads what the first norm gives, an identity what came in.
        skip = x if self.convShortcut is None else self.convShortcut(y)
        out: torch.Tensor = skip + self.conv2(self.relu2(self.bn2(self.conv1(y))))
        return out


class _Stage(nn.Module):
    def __init__(self, spec: WideSpec, inputs: int, outputs: int, stride: int):
        super().__init__()
        sizes = [inputs] + [outputs] * (spec.blocks - 1)
        self.layer = nn.Sequential(*(_Block(size, outputs, stride if i == 0 else 1) for i, size in enumerate(sizes)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, h, w) -> (batch, outputs, h/stride, w/stride)."""
        out: torch.Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """Stem of 16 channels, stages `block1` to `block3`, norm, global average, linear head."""

    def __init__(self, spec: WideSpec):
        super().__init__()
        self.conv1 = nn.Conv2d(spec.channels, STEM, 3, padding=1, bias=False)
        sizes = (STEM, *(16 * spec.width * 2**i for i in range(3)))
        for i in range(3):
            self.add_module(f"block{i + 1}", _Stage(spec, sizes[i], sizes[i + 1], 1 if i == 0 else 2))
        self.bn1, self.relu = nn.BatchNorm2d(sizes[-1]), nn.ReLU()
        self._head = spec.head
        self.add_module(spec.head, nn.Linear(sizes[-1], spec.classes))
        initialise(self)
        for module in real_modules(self):
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, h, w) -> (batch, classes)."""
        x = self.conv1(x)
        for i in range(3):
            x = self.get_submodule(f"block{i + 1}")(x)
        logits: torch.Tensor = self.get_submodule(self._head)(self.relu(self.bn1(x)).mean((2, 3)))
        return logits


def named(name: str, classes: int) -> Architecture | None:
    """The network called `name` (`wrn-28-10`, `wideresnet-28-10`), or None when it is none of this family's."""
    match = re.fullmatch(r"(?:wrn|wideresnet|wide-resnet)-?(\d{2,3})-(\d{1,2})", name)
    if match is None or not _possible(int(match[1]), int(match[2])):
        return None
    return _architecture(WideSpec(int(match[1]), int(match[2]), classes=classes))


def guess(shapes: Shapes) -> Architecture | None:
    """The wide ResNet that `shapes` suggest, to be compared with them exactly."""
    stem, first = shapes.get("conv1.weight", ()), shapes.get("block1.layer.0.conv1.weight", ())
    head = single_head(shapes)
    blocks = sum(re.fullmatch(r"block1\.layer\.\d+\.conv1\.weight", name) is not None for name in shapes)
    if len(stem) != 4 or len(first) != 4 or head is None or not _possible(6 * blocks + 4, first[0] // 16):
        return None
    return _architecture(WideSpec(6 * blocks + 4, first[0] // 16, *head, channels=stem[1]))


def _possible(depth: int, width: int) -> bool:
    return depth >= 10 and depth % 6 == 4 and width >= 1


def _architecture(spec: WideSpec) -> Architecture:
    return Architecture(
        name=f"wrn-{spec.depth}-{spec.width}",
        description=f"WideResNet-{spec.depth}-{spec.width} (32x32 inputs, {spec.classes} classes)",
        input_shape=(spec.channels, 32, 32),
        build=partial(WideResNet, spec),
        classes=spec.classes,
    )
