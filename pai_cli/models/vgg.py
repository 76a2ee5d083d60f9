"""VGG networks (Simonyan and Zisserman 2015, arXiv:1409.1556), with and without batch norm.

For 32x32 inputs the head is one linear layer (or three of 512), for 224x224 the three layers of the paper.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from pai_cli.models.base import SINGLE_HEADS, Architecture, Shapes, initialise

STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)
NAMES = tuple(f"vgg{depth}{bn}{size}" for depth in STAGES for bn in ("", "-bn") for size in ("", "-imagenet"))
LATE_DROPOUT = ("classifier.0", "classifier.3", "classifier.6")
EARLY_DROPOUT = ("classifier.1", "classifier.4", "classifier.6")


@dataclass(frozen=True)
class VGGSpec:
    """What determines a VGG: `head` names its linear layers, `hidden` is their width, `side` the pooled image's."""

    depth: int
    batch_norm: bool = False
    head: tuple[str, ...] = ("classifier",)
    hidden: int = 4096
    side: int = 1
    bias: bool = True
    classes: int = 10
    channels: int = 3


class VGG(nn.Module):
    """`features`: 3x3 convolutions and max-pools; then the head. Input (batch, channels, h, w) -> logits."""

    def __init__(self, spec: VGGSpec):
        super().__init__()
        self.features = nn.Sequential(*_features(spec))
        self.avgpool = nn.AdaptiveAvgPool2d(spec.side)
        self.head_name = spec.head[0].split(".")[0]
        self.add_module(self.head_name, _head(spec))
        initialise(self, linear=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, h, w) -> (batch, classes)."""
        pooled = torch.flatten(self.avgpool(self.features(x)), 1)
        logits: torch.Tensor = self.get_submodule(self.head_name)(pooled)
        return logits


def _features(spec: VGGSpec) -> list[nn.Module]:
    layers: list[nn.Module] = []
    inputs = spec.channels
    for count, width in zip(STAGES[spec.depth], WIDTHS, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(inputs, width, 3, padding=1, bias=spec.bias))
            if spec.batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU())
            inputs = width
        layers.append(nn.MaxPool2d(2))
    return layers


def _head(spec: VGGSpec) -> nn.Module:
    inputs = WIDTHS[-1] * spec.side**2
    if len(spec.head) == 1:
        return nn.Linear(inputs, spec.classes)
    first, second = nn.Linear(inputs, spec.hidden), nn.Linear(spec.hidden, spec.hidden)
    last = nn.Linear(spec.hidden, spec.classes)
    if spec.head == EARLY_DROPOUT:
        return nn.Sequential(nn.Dropout(), first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), last)
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), nn.Dropout(), last)


def named(name: str, classes: int) -> Architecture | None:
    """The VGG called `name` (`vgg16-bn`, `vgg19-imagenet`), or None when it is none of this family's."""
    match = re.fullmatch(r"vgg(\d{2})(-bn)?(-imagenet)?", name)
    if match is None or int(match[1]) not in STAGES:
        return None
    depth, batch_norm = int(match[1]), bool(match[2])
    if match[3]:
        return _architecture(VGGSpec(depth, batch_norm, LATE_DROPOUT, side=7, classes=classes))
    return _architecture(VGGSpec(depth, batch_norm, classes=classes))


def guess(shapes: Shapes) -> Architecture | None:
    """The VGG that `shapes` suggest, to be compared with them exactly."""
    convolutions = sum(name.startswith("features.") and len(shape) == 4 for name, shape in shapes.items())
    heads = (LATE_DROPOUT, EARLY_DROPOUT, *((name,) for name in SINGLE_HEADS))
    head = next((h for h in heads if all(len(shapes.get(f"{n}.weight", ())) == 2 for n in h)), None)
    stem = shapes.get("features.0.weight", ())
    if convolutions + 3 not in STAGES or head is None or len(stem) != 4:
        return None
    inputs, classes = shapes[f"{head[0]}.weight"][1], shapes[f"{head[-1]}.weight"][0]
    return _architecture(
        VGGSpec(
            depth=convolutions + 3,
            batch_norm=any(name.endswith(".running_mean") for name in shapes),
            head=head,
            hidden=shapes[f"{head[-1]}.weight"][1],
            side=7 if inputs == WIDTHS[-1] * 49 else 1,
            bias="features.0.bias" in shapes,
            classes=classes,
            channels=stem[1],
        )
    )


def _architecture(spec: VGGSpec) -> Architecture:
    norm = "-bn" if spec.batch_norm else ""
    size = "-imagenet" if spec.side == 7 else ""
    side = 224 if spec.side == 7 else 32
    norm_text = "batch norm, " if spec.batch_norm else ""
    head = "one linear layer" if len(spec.head) == 1 else "three linear layers"
    return Architecture(
        name=f"vgg{spec.depth}{norm}{size}",
        description=f"VGG-{spec.depth} ({norm_text}{side}x{side} inputs, {head}, {spec.classes} classes)",
        input_shape=(spec.channels, side, side),
        build=partial(VGG, spec),
        classes=spec.classes,
    )
