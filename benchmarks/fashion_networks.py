"""The two small networks of the study on Fashion-MNIST: 28x28 grey images, ten classes. `--model` takes them, too.

Both begin with a step of two pixels, which makes a training four times as cheap.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

SHAPE = (1, 28, 28)


def _convolution(channels: int, out: int, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is a 1x1 convolution where the sizes differ."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(channels, out, stride), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = _convolution(out, out), nn.BatchNorm2d(out)
        same = channels == out and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(channels, out, stride, kernel=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) -> (N, out, H / stride, W / stride)."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


def _initialised(network: nn.Module) -> nn.Module:
    """Kaiming normal throughout."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return network


def resnet8() -> nn.Module:
    """A residual network of 16, 32 and 64 channels, one block each: 77,072 prunable weights."""
    stages = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    stem = [_convolution(1, 16, 2), nn.BatchNorm2d(16), nn.ReLU()]
    return _initialised(nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)))


def vgg7() -> nn.Module:
    """Six convolutions in a row, of 16, 32, 32, 64, 64, 64 channels, and a linear layer: 106,768 prunable weights."""
    layers: list[nn.Module] = []
    channels = 1
    for out, stride, pooled in ((16, 2, 0), (32, 1, 1), (32, 1, 0), (64, 1, 1), (64, 1, 0), (64, 1, 0)):
        layers += [_convolution(channels, out, stride), nn.BatchNorm2d(out), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] * pooled
        channels = out
    return _initialised(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)))
