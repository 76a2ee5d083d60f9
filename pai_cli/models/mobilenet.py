"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, table 2), under torchvision's names or timm's.

torchvision/models/mobilenetv2.py and timm/models/efficientnet.py (`mobilenetv2_100`) hold the same network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from pai_cli.models.base import Architecture, Shapes, add_at, initialise

NAMES = ("mobilenetv2",)
SPELLINGS = ("mobilenetv2", "mobilenet-v2", "mobilenetv2-100")

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, output channels, blocks, and stride of the first block."""

STEM, LAST = 32, 1280


@dataclass(frozen=True)
class MobileNetSpec:
    """What determines a MobileNetV2 of width 1; `timm`: whether timm's names are used instead of torchvision's."""

    classes: int = 1000
    channels: int = 3
    timm: bool = False


@dataclass(frozen=True)
class _Step:
    """A convolution and its batch norm, by name; `active`: whether ReLU6 follows. `joins`: the block's input is added."""

    convolution: str
    norm: str
    sizes: tuple[int, int]
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    active: bool = True
    begins: bool = False
    joins: bool = False


class MobileNetV2(nn.Module):
    """Stem, 17 inverted residual blocks, a 1x1 convolution, global average, dropout, linear head."""

    def __init__(self, spec: MobileNetSpec):
        super().__init__()
        self._steps = tuple(_steps(spec))
        for step in self._steps:
            inputs, outputs = step.sizes
            add_at(
                self,
                step.convolution,
                nn.Conv2d(
                    inputs,
                    outputs,
                    step.kernel,
                    step.stride,
                    padding=step.kernel // 2,
                    groups=inputs if step.depthwise else 1,
                    bias=False,
                ),
            )
            add_at(self, step.norm, nn.BatchNorm2d(outputs))
        self._activations = nn.ModuleList(nn.ReLU6() for _ in self._steps)
        self._dropout = nn.Dropout(0.2)
        self._head = "classifier" if spec.timm else "classifier.1"
        add_at(self, self._head, nn.Linear(LAST, spec.classes))
        initialise(self, linear=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, h, w) -> (batch, classes)."""
        before = x
        for step, activation in zip(self._steps, self._activations, strict=True):
            if step.begins:
                before = x
            x = self.get_submodule(step.norm)(self.get_submodule(step.convolution)(x))
            if step.active:
                x = activation(x)
            if step.joins:
                x = x + before
        logits: torch.Tensor = self.get_submodule(self._head)(self._dropout(x.mean((2, 3))))
        return logits


def _steps(spec: MobileNetSpec) -> Iterator[_Step]:
    stem = ("conv_stem", "bn1") if spec.timm else ("features.0.0", "features.0.1")
    yield _Step(*stem, (spec.channels, STEM), 3, 2)
    inputs, number = STEM, 1
    for stage, (expansion, outputs, blocks, stride) in enumerate(STAGES):
        for block in range(blocks):
            place = f"blocks.{stage}.{block}" if spec.timm else f"features.{number}.conv"
            yield from _block(spec, place, (inputs, inputs * expansion, outputs), stride if block == 0 else 1)
            inputs, number = outputs, number + 1
    last = ("conv_head", "bn2") if spec.timm else (f"features.{number}.0", f"features.{number}.1")
    yield _Step(*last, (inputs, LAST))


def _block(spec: MobileNetSpec, place: str, sizes: tuple[int, int, int], stride: int) -> Iterator[_Step]:
    """Expansion (none where the sizes are equal), depthwise, projection."""
    inputs, hidden, outputs = sizes
    expands = hidden != inputs
    if spec.timm:
        names = [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
        names = names if expands else [("conv_dw", "bn1"), ("conv_pw", "bn2")]
    else:
        names = [("0.0", "0.1"), ("1.0", "1.1"), ("2", "3")] if expands else [("0.0", "0.1"), ("1", "2")]
    full = [(f"{place}.{convolution}", f"{place}.{norm}") for convolution, norm in names]
    if expands:
        yield _Step(*full[0], (inputs, hidden), begins=True)
    yield _Step(*full[-2], (hidden, hidden), 3, stride, depthwise=True, begins=not expands)
    yield _Step(*full[-1], (hidden, outputs), active=False, joins=stride == 1 and inputs == outputs)


def named(name: str, classes: int) -> Architecture | None:
    """MobileNetV2 for its usual spellings, else None."""
    return _architecture(MobileNetSpec(classes)) if name in SPELLINGS else None


def guess(shapes: Shapes) -> Architecture | None:
    """The MobileNetV2 that `shapes` suggest, to be compared with them exactly."""
    timm = "conv_stem.weight" in shapes
    stem = shapes.get("conv_stem.weight" if timm else "features.0.0.weight", ())
    head = shapes.get("classifier.weight" if timm else "classifier.1.weight", ())
    if len(stem) != 4 or len(head) != 2:
        return None
    return _architecture(MobileNetSpec(head[0], stem[1], timm))


def _architecture(spec: MobileNetSpec) -> Architecture:
    layout = "timm" if spec.timm else "torchvision"
    return Architecture(
        name="mobilenetv2",
        description=f"MobileNetV2 ({layout} layout, 224x224 inputs, {spec.classes} classes)",
        input_shape=(spec.channels, 224, 224),
        build=partial(MobileNetV2, spec),
        classes=spec.classes,
    )
